"""The shared folder, as scripts/stage_bundle.py makes it."""

import runpy
from pathlib import Path
from typing import Any, cast

import pytest

NAME = "chest_ct_zero_shot_findings"


def names_in(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="session")
def stage_script(bundle_root: Path) -> dict[str, Any]:
    return runpy.run_path(str(bundle_root / "scripts" / "stage_bundle.py"))


@pytest.fixture(scope="session")
def staged(stage_script: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cast(Path, stage_script["stage"](tmp_path_factory.mktemp("staged")))


@pytest.fixture(scope="session")
def archive(stage_script: dict[str, Any], staged: Path) -> Path:
    return cast(Path, stage_script["write_zip"](staged))
