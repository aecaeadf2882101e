"""Join splits of several datalists, such as to calibrate on one archive and score on another.

    python scripts/join_datalists.py --output data/both.json \\
        validation=data/ct_rate/datalist.json test=data/rad_chestct/datalist.json

No scan is copied; paths are relative to the new datalist. An id that occurs twice or a patient in two splits is an
error. A patient with different ids in two sources is not recognized.
"""

import argparse
from pathlib import Path

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.data.join_datalists import join_datalists


def split_and_path(text: str) -> tuple[str, Path]:
    """``split=path``."""
    split, separator, path = text.partition("=")
    if not separator or not path:
        raise argparse.ArgumentTypeError(
            f"expected SPLIT=DATALIST, such as test=data/rad_chestct/datalist.json, got {text!r}"
        )
    return split, Path(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "parts",
        type=split_and_path,
        nargs="+",
        metavar="SPLIT=DATALIST",
        help="split and the datalist it is taken from",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="JSON", help="the datalist to write")
    options = parser.parse_args()
    counts = run_or_exit(join_datalists, options.parts, options.output)
    print(f"{options.output}: " + ", ".join(f"{split} {count}" for split, count in counts.items()))


if __name__ == "__main__":
    main()
