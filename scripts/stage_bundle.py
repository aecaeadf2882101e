"""Stages the bundle for the MONAI Model Zoo and Hugging Face: a folder without the rest of the repository.

    python scripts/stage_bundle.py OUT_DIR
    python scripts/stage_bundle.py OUT_DIR --zip
    python scripts/stage_bundle.py OUT_DIR --leave-out-large

The folder is OUT_DIR/chest_ct_zero_shot_findings. It contains only the bundle's own weights, because other weights in
models/ may have licences that forbid sharing. docs/sharing.md describes the next steps.
"""

import argparse
import hashlib
import json
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

NAME = "chest_ct_zero_shot_findings"
LARGE_BYTES = 25_000_000
"""Limit of the Model Zoo for files in its repository; larger files are listed in large_files.yml."""

HOME = "https://huggingface.co/MONAI/{name}/resolve/{version}"
CONTENT = ("LICENSE", "bundle", "configs", "models/model.pt", "models/text_encoder")
CARD = ("docs/README.md", "docs/data_license.txt")
# The configs refer to these.
PAGES = ("docs/use_published_weights.md", "docs/findings_record.md", "docs/evaluation/paraphrases.json")
LEFT_OUT = {"__pycache__", ".DS_Store"}
REQUIRED = ("LICENSE", "configs/metadata.json", "configs/inference.json", "models/model.pt", *CARD, *PAGES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help=f"folder for {NAME}")
    parser.add_argument("--zip", action="store_true", help=f"also write {NAME}_v<version>.zip beside the folder")
    parser.add_argument(
        "--leave-out-large",
        action="store_true",
        help="leave out files over 25 MB, which large_files.yml lists, as a pull request to the Zoo requires",
    )
    parser.add_argument("--large-files-url", default=HOME, help="download address of large files (default %(default)s)")
    options = parser.parse_args()
    try:
        folder = stage(options.output, options.large_files_url, options.leave_out_large)
        archive = write_zip(folder) if options.zip else None
    except ValueError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        reason = error.strerror or error
        sys.exit(f"error: {options.output}: cannot be written ({reason}); free some space or use another folder")
    files = [file for file in folder.rglob("*") if file.is_file()]
    print(f"{folder}: {len(files)} files, {sum(file.stat().st_size for file in files) / 1e6:.1f} MB")
    if archive is not None:
        print(f"{archive}: {archive.stat().st_size / 1e6:.1f} MB")


def stage(output: Path, large_files_url: str = HOME, leave_out_large: bool = False) -> Path:
    """Writes the folder, completely or not at all.

    Raises:
        ValueError: It exists already, a required file is missing, or the metadata has no changelog of this version.
    """
    folder = output / NAME
    if folder.exists():
        raise ValueError(f"{folder}: exists already; remove it or use another folder")
    missing = [name for name in REQUIRED if not (ROOT / name).is_file()]
    if missing:
        raise ValueError(f"{ROOT}: missing {', '.join(missing)}, required by the Model Zoo")
    metadata = json.loads((ROOT / "configs" / "metadata.json").read_text(encoding="utf-8"))
    version = metadata["version"]
    if version not in metadata.get("changelog", {}):
        raise ValueError(f"configs/metadata.json: expected a changelog entry for version {version}; add one")

    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{NAME}.", dir=output) as scratch:
        copy = Path(scratch) / NAME
        for name in sorted(set(content())):
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.suffix == ".md":
                target.write_text(_links_kept_inside(name), encoding="utf-8")
            else:
                shutil.copyfile(ROOT / name, target)
        large = sorted(name for name in content() if (ROOT / name).stat().st_size > LARGE_BYTES)
        if large:
            base = large_files_url.format(name=NAME, version=version)
            (copy / "large_files.yml").write_text(_large_files(large, base), encoding="utf-8")
        for name in large if leave_out_large else ():
            (copy / name).unlink()
        copy.rename(folder)
    return folder


def content() -> Iterator[str]:
    """Files of the bundle relative to its root: the fixed content, the card, and files in docs/ that it links to."""
    for name in CONTENT:
        path = ROOT / name
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file() and not LEFT_OUT & set(file.parts) and file.suffix != ".pyc":
                yield file.relative_to(ROOT).as_posix()
    yield from _linked((*CARD, *PAGES))


def _linked(pages: tuple[str, ...]) -> list[str]:
    """The pages, and the files in docs/ that they link to."""
    found: list[str] = []
    waiting = list(pages)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.append(name)
        waiting += [target for _, _, target in _links(name) if target.startswith("docs/") and (ROOT / target).is_file()]
    return found


def _links(name: str) -> list[tuple[str, str, str]]:
    """Local links of a page: the whole link, its text, and its target relative to the root."""
    path = ROOT / name
    if path.suffix != ".md":
        return []
    links = []
    for match in re.finditer(r"!?\[([^\]]*)\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        target = match[2].split("#")[0]
        if target and not re.match(r"[a-z]+:", target):
            resolved = (path.parent / target).resolve()
            links.append(
                (
                    match[0],
                    match[1],
                    resolved.relative_to(ROOT).as_posix() if resolved.is_relative_to(ROOT) else match[2],
                )
            )
    return links


def _links_kept_inside(name: str) -> str:
    """A page with links to files outside the bundle replaced by their text."""
    text = (ROOT / name).read_text(encoding="utf-8")
    shared = set(content())
    for link, words, target in _links(name):
        if target not in shared:
            text = text.replace(link, words)
    return text


def _large_files(names: list[str], base: str) -> str:
    lines = ["large_files:"]
    for name in names:
        digest = hashlib.sha256((ROOT / name).read_bytes()).hexdigest()
        lines += [
            f'  - path: "{name}"',
            f'    url: "{base}/{name}"',
            f'    hash_val: "{digest}"',
            '    hash_type: "sha256"',
        ]
    return "\n".join(lines) + "\n"


def write_zip(folder: Path) -> Path:
    """Packs the folder as the only top-level entry of a zip.

    Raises:
        ValueError: The archive exists already.
    """
    version = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))["version"]
    archive = folder.parent / f"{NAME}_v{version}.zip"
    if archive.exists():
        raise ValueError(f"{archive}: exists already; remove it")
    partial = archive.with_suffix(".partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as packed:
            for file in sorted(folder.rglob("*")):
                if file.is_file():
                    packed.write(file, file.relative_to(folder.parent).as_posix())
        partial.replace(archive)
    finally:
        partial.unlink(missing_ok=True)
    return archive


if __name__ == "__main__":
    main()
