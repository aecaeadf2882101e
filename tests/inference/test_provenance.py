"""What the record says of the weights."""

from __future__ import annotations

import json
from pathlib import Path

from bundle.ctfindings.inference.provenance import METADATA, describe_model, training_warnings
from bundle.ctfindings.networks.checkpoint import sha256_of


def test_the_metadata_name_the_weights_that_ship(bundle_root: Path) -> None:
    shipped = json.loads((bundle_root / METADATA).read_text())["weights"]
    assert shipped["sha256"] == sha256_of(bundle_root / "models" / "model.pt")


def test_the_reader_is_told_first_what_the_shipped_weights_were_trained_on(bundle_root: Path) -> None:
    model = describe_model(bundle_root, sha256_of(bundle_root / "models" / "model.pt"), "a tower")
    (line,) = training_warnings(model)
    assert "synthetic scans" in line and "never checked on patients" in line


def test_of_other_weights_nothing_is_said(bundle_root: Path, tmp_path: Path) -> None:
    other = describe_model(bundle_root, "0" * 64, "a tower")
    assert other.trained_on is None and training_warnings(other) == []
    assert describe_model(tmp_path, "0" * 64, "a tower").trained_on is None, "a folder without metadata"
