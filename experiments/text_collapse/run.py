"""Measures the collapse of text encoders on the captions of real reports: untrained, pretrained, and trained.

    python experiments/text_collapse/run.py REPORTS_FOLDER
    python experiments/text_collapse/run.py DATALIST.json --checkpoints fvlm=runs/a/last.pt ca_gcl=runs/b/last.pt

Reads every CSV with a findings column in a folder (CT-RATE's layout), or the test split of a datalist, which no run on
that datalist has trained on. Writes numbers and a figure, but no text of a report. See docs/diagnostics.md.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.networks.text.text_tower import TextTower
from experiments.harness.shown_command import shown_command
from experiments.text_collapse.collapse import (
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
        raise argparse.ArgumentTypeError(f"expected NAME=PATH, got {text!r}")
    return name, Path(path)


def measure(options: argparse.Namespace) -> Path:
    """Runs the experiment and returns its page."""
    encoder = str(options.text_encoder)
    fresh = json.loads((ROOT / "configs" / "networks" / "text_from_scratch.json").read_text(encoding="utf-8"))
    captions = (
        split_captions(options.reports)
        if options.reports.is_file()
        else read_captions(options.reports, options.count, options.seeds[0])
    )
    pretrained = partial(TextTower, encoder, embedding=options.embedding, trainable_layers=options.trainable_layers)
    untrained = partial(
        TextTower, encoder, embedding=options.embedding, trainable_layers=-1, from_scratch=fresh["text_from_scratch"]
    )
    embeddings = encoder_embeddings(captions, pretrained, untrained, options.checkpoints, options.seeds)
    results = collapse_results(captions, embeddings, resamples=options.resamples, seed=options.seeds[0])
    command = shown_command(sys.argv, {"--output": None})
    return write_collapse_page(options.output, results, "Text encoders on the captions of real reports", command)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", type=Path, help="folder with CSV tables of reports, or a datalist")
    parser.add_argument(
        "--count", type=int, default=500, help="number of reports drawn at random from a folder (default %(default)s)"
    )
    parser.add_argument(
        "--checkpoints",
        type=named_path,
        nargs="+",
        default=[],
        metavar="NAME=PATH",
        help="trained models to measure; repeat a name for each seed",
    )
    parser.add_argument(
        "--text_encoder",
        type=Path,
        default=ROOT / "models" / "text_encoder",
        help="folder of the pretrained encoder (default: the bundle's)",
    )
    parser.add_argument("--embedding", type=int, default=128, help="size of the shared space (default %(default)s)")
    parser.add_argument(
        "--trainable_layers", type=int, default=0, help="trainable layers of the checkpoints (default %(default)s)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=ROOT / "docs" / "experiments" / "text_collapse",
        help="folder of the page",
    )
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples (default %(default)s)")
    seeds = "seeds of new encoders and heads, and of the checkpoints of a name; the first is also the bootstrap's"
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help=seeds)
    print(run_or_exit(measure, parser.parse_args()))


if __name__ == "__main__":
    main()
