"""Have text encoders collapsed on the captions of real reports? Untrained, pretrained, and after training.

    python experiments/text_collapse/run.py REPORTS_FOLDER
    python experiments/text_collapse/run.py DATALIST.json --checkpoints fvlm=runs/a/last.pt ca_gcl=runs/b/last.pt

Reads every CSV with a column of findings in a folder (CT-RATE's layout), or the test split of a datalist, which runs on
that datalist have not trained on. Writes numbers and a figure, no text of a report.
Docs: docs/diagnostics.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bundle.ctfindings.cli.error_lines import run_or_exit  # noqa: E402
from bundle.ctfindings.networks.text.text_tower import TextTower  # noqa: E402
from experiments.text_collapse.collapse import (  # noqa: E402
    collapse_results,
    encoder_embeddings,
    read_captions,
    split_captions,
    write_collapse_page,
)


def named_path(text: str) -> tuple[str, Path]:
    """``name=path``."""
    name, separator, path = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is no name=path")
    return name, Path(path)


def measure(options: argparse.Namespace) -> Path:
    """Runs the experiment and returns its page."""
    encoder = str(options.text_encoder)
    fresh = json.loads((ROOT / "configs" / "networks" / "text_from_scratch.json").read_text(encoding="utf-8"))
    from_split = options.reports.is_file()
    captions = (
        split_captions(options.reports)
        if from_split
        else read_captions(options.reports, options.count, options.seeds[0])
    )
    pretrained = partial(TextTower, encoder, embedding=options.embedding, trainable_layers=options.trainable_layers)
    untrained = partial(
        TextTower, encoder, embedding=options.embedding, trainable_layers=-1, from_scratch=fresh["text_from_scratch"]
    )
    embeddings = encoder_embeddings(captions, pretrained, untrained, options.checkpoints, options.seeds)
    results = collapse_results(captions, embeddings, resamples=options.resamples, seed=options.seeds[0])
    source = "DATALIST.json" if from_split else f"FOLDER --count {options.count}"
    command = f"python experiments/text_collapse/run.py {source} --seeds {' '.join(map(str, options.seeds))}"
    command += (
        "".join([" --checkpoints", *(f" {name}=RUN" for name, _ in options.checkpoints)]) if options.checkpoints else ""
    )
    return write_collapse_page(options.output, results, "Text encoders on the captions of real reports", command)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", type=Path, help="folder with CSV tables of reports, or a datalist")
    parser.add_argument(
        "--count", type=int, default=500, help="reports of a folder, drawn at random (default %(default)s)"
    )
    parser.add_argument(
        "--checkpoints",
        type=named_path,
        nargs="+",
        default=[],
        metavar="NAME=PATH",
        help="trained models to measure; a name again for each seed",
    )
    parser.add_argument(
        "--text_encoder", type=Path, default=ROOT / "models" / "text_encoder", help="default: the bundle's"
    )
    parser.add_argument("--embedding", type=int, default=128, help="size of the shared space (default %(default)s)")
    parser.add_argument(
        "--trainable_layers", type=int, default=0, help="as the checkpoints were trained (default %(default)s)"
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "docs" / "experiments" / "text_collapse", help="default: %(default)s"
    )
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap (default %(default)s)")
    seeds = "of new encoders and heads, and of the checkpoints of a name in their order; the first also of draw and bootstrap (default 0)"
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help=seeds)
    print(run_or_exit(measure, parser.parse_args()))


if __name__ == "__main__":
    main()
