"""What the record says of the weights."""

import json
from pathlib import Path

import torch

from bundle.ctfindings.inference.provenance import METADATA, describe_model, training_warnings
from bundle.ctfindings.networks.checkpoint import adapted_source, sha256_of


def test_the_metadata_name_the_weights_that_ship(bundle_root: Path) -> None:
    shipped = json.loads((bundle_root / METADATA).read_text())["weights"]
    assert shipped["sha256"] == sha256_of(bundle_root / "models" / "model.pt")


def test_the_reader_is_told_first_what_the_shipped_weights_were_trained_on(bundle_root: Path) -> None:
    model = describe_model(bundle_root, bundle_root / "models" / "model.pt", "a tower")
    (line,) = training_warnings(model)
    assert "synthetic scans" in line and "not shown to work on scans of patients" in line


def test_of_other_weights_nothing_is_said(bundle_root: Path, tmp_path: Path) -> None:
    weights = tmp_path / "own.pt"
    torch.save({"model": {"image.weight": torch.zeros(1)}}, weights)
    other = describe_model(bundle_root, weights, "a tower")
    assert other.trained_on is other.published is None and training_warnings(other) == []
    assert describe_model(tmp_path, bundle_root / "models" / "model.pt", "a tower").trained_on is None, (
        "a folder without metadata"
    )


def test_adapted_weights_say_what_they_were_adapted_from_and_to(bundle_root: Path, tmp_path: Path) -> None:
    state, shipped = {"image.weight": torch.zeros(1)}, bundle_root / "models" / "model.pt"
    patients = ["a", "a", "b"]
    torch.save({"model": state, "source": adapted_source(shipped, patients)}, tmp_path / "own.pt")
    model = describe_model(bundle_root, tmp_path / "own.pt", "a tower")
    assert (model.adapted_to, model.published) == ("3 scans of 2 patients", None)
    (line,) = training_warnings(model)
    assert line.startswith("These weights were trained only on synthetic scans")
    assert line.endswith("then adapted to 3 scans of 2 patients, and were not shown to work on others")

    torch.save({"model": state, "source": adapted_source(tmp_path / "own.pt", ["c"])}, tmp_path / "again.pt")
    again = describe_model(bundle_root, tmp_path / "again.pt", "a tower")
    assert again.trained_on == model.trained_on
    assert again.adapted_to == "3 scans of 2 patients, then 1 scan of 1 patient"

    published = {"model": "Astra", "paper": "arXiv 1", "licence": "MIT", "sha256": "0"}
    torch.save({"model": state, "source": published}, tmp_path / "astra.pt")
    torch.save({"model": state, "source": adapted_source(tmp_path / "astra.pt", ["c"])}, tmp_path / "adapted.pt")
    adapted = describe_model(bundle_root, tmp_path / "adapted.pt", "a tower")
    assert adapted.published == published
    assert training_warnings(adapted) == [
        "These are the published weights of Astra (arXiv 1), adapted to 1 scan of 1 patient, "
        "and were not shown to work on others; licence: MIT"
    ]


def test_published_weights_are_named_with_their_licence(bundle_root: Path, tmp_path: Path) -> None:
    source = {
        "model": "RadFinder",
        "source": "https://example.org",
        "paper": "arXiv 2603.02026",
        "licence": "CC BY-NC-SA 4.0",
    }
    torch.save({"model": {"image.weight": torch.zeros(1)}, "source": source}, tmp_path / "radfinder.pt")
    model = describe_model(bundle_root, tmp_path / "radfinder.pt", "WindowEncoder")
    assert model.published == source
    assert training_warnings(model) == [
        "These are the published weights of RadFinder (arXiv 2603.02026); licence: CC BY-NC-SA 4.0"
    ]
