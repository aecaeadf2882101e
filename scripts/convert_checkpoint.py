"""Converts a published checkpoint of fVLM, RadFinder, Astra or Merlin to a bundle checkpoint.

    python scripts/convert_checkpoint.py astra
    python scripts/convert_checkpoint.py fvlm checkpoint_19.pth models/fvlm.pt --text-encoder cxr_bert
    python scripts/convert_checkpoint.py radfinder radfinder_download models/radfinder.pt --text-encoder qwen3_embedding

Without a file, Astra and Merlin are taken from their installed package (make astra). Every tensor of the file is used,
listed as dropped, or reported as an error. With a text encoder (folder or hub name; only its tokenizer is read, and no
remote code runs) the prompts are encoded now; otherwise every run encodes them. The weights keep the licence of their
authors: see docs/use_published_weights.md.
"""

import argparse
from collections import Counter
from pathlib import Path

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.published.convert import MODELS, convert_to_bundle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=MODELS, help="published model")
    parser.add_argument("checkpoint", type=Path, nargs="?", help="published file, or folder of the download")
    parser.add_argument("output", type=Path, nargs="?", help="bundle checkpoint to write (default: models/MODEL.pt)")
    parser.add_argument("--text-encoder", help="folder or hub name of the text encoder; encodes the prompts now")
    options = parser.parse_args()
    output = options.output or Path("models") / f"{options.model}.pt"
    converted, digest = run_or_exit(convert_to_bundle, options.model, options.checkpoint, output, options.text_encoder)
    print(f"{output}: {len(converted.state)} tensors, sha256 {digest}")
    for key, value in converted.source.items():
        print(f"  {key}: {value}")
    for reason, count in Counter(converted.dropped.values()).items():
        names = [name for name, why in converted.dropped.items() if why == reason]
        print(f"  dropped {count}: {names[0]}{' and others' if count > 1 else ''} ({reason})")


if __name__ == "__main__":
    main()
