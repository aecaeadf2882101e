"""Turns a published checkpoint of fVLM or RadFinder into a bundle checkpoint.

    python scripts/convert_checkpoint.py fvlm checkpoint_19.pth models/fvlm.pt --text-encoder cxr_bert
    python scripts/convert_checkpoint.py radfinder radfinder_download models/radfinder.pt --text-encoder qwen3_embedding

Every tensor of the file is used, or named as dropped, or refused by name. With a text encoder (a folder or a hub name;
only its tokenizer is read, remote code is never run) the prompts are encoded too; without one, every run does that. The
licence of the weights stays that of the group that published them: docs/use_published_weights.md.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.published.convert import convert_to_bundle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=("fvlm", "radfinder"), help="whose checkpoint it is")
    parser.add_argument("checkpoint", type=Path, help="the published file, or the folder of the download")
    parser.add_argument("output", type=Path, help="bundle checkpoint to write")
    parser.add_argument(
        "--text-encoder", help="folder or hub name of the text encoder, for its tokenizer; encodes the prompts now"
    )
    options = parser.parse_args()
    converted, digest = run_or_exit(
        convert_to_bundle, options.model, options.checkpoint, options.output, options.text_encoder
    )
    print(f"{options.output}: {len(converted.state)} tensors, sha256 {digest}")
    for key, value in converted.source.items():
        print(f"  {key}: {value}")
    for reason, count in Counter(converted.dropped.values()).items():
        names = [name for name, why in converted.dropped.items() if why == reason]
        print(f"  dropped {count}: {names[0]}{' and others' if count > 1 else ''} ({reason})")


if __name__ == "__main__":
    main()
