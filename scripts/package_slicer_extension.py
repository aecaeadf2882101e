"""Packages the 3D Slicer extension: the module with its client code and a synthetic scan in one folder.

    .venv/bin/python scripts/package_slicer_extension.py
    .venv/bin/python scripts/package_slicer_extension.py --output dist --zip
    .venv/bin/python scripts/package_slicer_extension.py --repository https://github.com/OWNER/SlicerCTFindings

Writes OUTPUT/SlicerCTFindings, a complete extension. Add its subfolder CTFindings to Slicer's additional module paths,
or push the folder to a repository of its own for the Extensions Index. With --repository, its CMakeLists.txt names that
repository, and OUTPUT/CTFindings.json is its entry in the index.
"""

import argparse
import json
import re
import shutil
import sys
from pathlib import Path

from bundle.ctfindings.phantom.dataset import write_nifti
from bundle.ctfindings.phantom.example import example_case

ROOT = Path(__file__).resolve().parent.parent

NAME = "SlicerCTFindings"
SAMPLE = Path("CTFindings") / "Resources" / "SampleData" / "synthetic_chest_ct.nii.gz"
BRANCH = "main"
SCHEMA = (
    "https://raw.githubusercontent.com/Slicer/Slicer/main/Schemas/slicer-extension-catalog-entry-schema-v1.0.1.json#"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("dist"), help="folder to write to (default: %(default)s)")
    parser.add_argument("--zip", action="store_true", help=f"also write {NAME}.zip beside the folder")
    parser.add_argument("--replace", action="store_true", help="replace an earlier copy in OUTPUT")
    parser.add_argument("--repository", metavar="URL", help="public GitHub repository that will hold the folder")
    options = parser.parse_args()
    if options.repository and not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", options.repository):
        sys.exit(f"error: --repository: expected https://github.com/OWNER/NAME, got {options.repository!r}")
    targets = [options.output / NAME, *([options.output / f"{NAME}.zip"] if options.zip else [])]
    targets += [options.output / "CTFindings.json"] if options.repository else []
    if not options.replace and (existing := next((path for path in targets if path.exists()), None)):
        sys.exit(f"error: {existing}: exists already; add --replace, or choose another --output")
    try:
        folder = package(options.output)
        if options.repository:
            publish(folder, options.repository.removesuffix(".git"))
        archive = shutil.make_archive(str(folder), "zip", options.output, NAME) if options.zip else None
    except OSError as error:
        sys.exit(f"error: {options.output}: cannot write ({error.strerror or error}); choose another --output")
    print(f"{folder}: add its subfolder CTFindings to Slicer's additional module paths")
    if archive:
        print(archive)


def package(output: Path) -> Path:
    """Copies the extension and the client code to ``output / "SlicerCTFindings"``, replacing an earlier copy, and
    renders the scan of its entry in Sample Data.

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
    _, image, affine = example_case()
    (folder / SAMPLE).parent.mkdir()
    write_nifti(folder / SAMPLE, image, affine)
    return folder


def publish(folder: Path, repository: str) -> None:
    """Writes the addresses of a repository into the ``CMakeLists.txt`` of a packaged extension, and its entry for the
    Extensions Index beside the folder.
    """
    listing = folder / "CMakeLists.txt"
    text = listing.read_text(encoding="utf-8")
    raw = f"{repository.replace('github.com', 'raw.githubusercontent.com', 1)}/{BRANCH}"
    addresses = {
        "HOMEPAGE": repository,
        "ICONURL": f"{raw}/CTFindings.png",
        "SCREENSHOTURLS": f"{raw}/Screenshots/views.png",
    }
    lines = "".join(f'set(EXTENSION_{key} "{address}")\n' for key, address in addresses.items())
    start = 'set(EXTENSION_CATEGORY "'
    listing.write_text(text.replace(start, lines + start, 1), encoding="utf-8")
    entry = {
        "$schema": SCHEMA,
        "build_dependencies": [],
        "build_subdirectory": ".",
        "category": text.partition(start)[2].partition('"')[0],
        "scm_revision": BRANCH,
        "scm_url": f"{repository}.git",
        "tier": 1,
    }
    (folder.parent / "CTFindings.json").write_text(json.dumps(entry, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
