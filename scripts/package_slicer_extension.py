"""Packages the 3D Slicer extension: the module with its client code in one folder.

    python scripts/package_slicer_extension.py
    python scripts/package_slicer_extension.py --output dist --zip

Writes OUTPUT/SlicerCTFindings, a complete extension. Add its subfolder CTFindings to Slicer's additional module paths,
or push the folder to a repository of its own for the Extensions Index.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

NAME = "SlicerCTFindings"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("dist"), help="folder to write to (default: %(default)s)")
    parser.add_argument("--zip", action="store_true", help=f"also write {NAME}.zip beside the folder")
    parser.add_argument("--replace", action="store_true", help="replace an earlier copy in OUTPUT")
    options = parser.parse_args()
    targets = [options.output / NAME, *([options.output / f"{NAME}.zip"] if options.zip else [])]
    if not options.replace and (existing := next((path for path in targets if path.exists()), None)):
        sys.exit(f"error: {existing}: exists already; add --replace, or choose another --output")
    try:
        folder = package(options.output)
        archive = shutil.make_archive(str(folder), "zip", options.output, NAME) if options.zip else None
    except OSError as error:
        sys.exit(f"error: {options.output}: cannot write ({error.strerror or error}); choose another --output")
    print(f"{folder}: add its subfolder CTFindings to Slicer's additional module paths")
    if archive:
        print(archive)


def package(output: Path) -> Path:
    """Copies the extension and the client code to ``output / "SlicerCTFindings"``, replacing an earlier copy.

    Returns:
        The folder.
    """
    folder = output / NAME
    if folder.exists():
        shutil.rmtree(folder)
    left_out = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "plugins" / "slicer", folder, ignore=left_out)
    client = ROOT / "plugins" / "client" / "ctfindings_client"
    shutil.copytree(client, folder / "CTFindings" / client.name, ignore=left_out)
    return folder


if __name__ == "__main__":
    main()
