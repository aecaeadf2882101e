"""Encoded scans: rows as evaluation computes them, kept on disk by the weights that made them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from bundle.ctfindings.data.datalist import load_datalist
from bundle.ctfindings.data.loaders import cached_dataset, study_loader
from bundle.ctfindings.downstream.encoded_scans import EncodeRowsd, ScanEncoder, scan_features
from bundle.ctfindings.evaluation.evaluated_model import collect_scores, whole_scan_steps
from bundle.ctfindings.findings import FINDINGS


@pytest.fixture(scope="module")
def encoder(bundle_root: Path, untrained_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> ScanEncoder:
    """The encoder of the tasks, with the random weights of the tests and a cache of its own."""
    parser = ConfigParser()
    names = ("train.json", "downstream/task.json", "downstream/retrieval.json")
    parser.read_config([bundle_root / "configs" / name for name in names])
    cache = str(tmp_path_factory.mktemp("cache"))
    parser.update({"bundle_root": str(bundle_root), "cache_dir": cache, "ckpt_path": str(untrained_weights)})
    encoder: ScanEncoder = parser.get_parsed_content("scan_encoder")
    encoder.load()
    return encoder


def test_rows_are_those_of_the_evaluation_and_are_made_once(
    encoder: ScanEncoder, phantom_scan: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "datalist.json"
    path.write_text(f'{{"test": [{{"id": "a", "image": "{phantom_scan[0]}"}}]}}', encoding="utf-8")
    studies = load_datalist(path, "test")
    rows = encoder.encode(studies)
    dataset = cached_dataset(studies, whole_scan_steps(encoder.preprocessing))
    scored = collect_scores(study_loader(dataset, 1), encoder.network)
    np.testing.assert_allclose(rows["anatomy"][0], scored.anatomy[0], atol=1e-3)  # evaluation keeps half precision
    np.testing.assert_allclose(rows["zero_shot"][0], scored.logits[0], atol=2e-2)
    assert rows["pathology"].shape == (1, 0, 128)
    assert scan_features(rows, ["anatomy", "pathology", "field"]).shape == (1, 6 * 128 + 2 * 128)

    def fail(*args: object) -> None:
        raise AssertionError("the scan was encoded again")

    monkeypatch.setattr(EncodeRowsd, "__call__", fail)
    again = encoder.encode(studies)
    assert all(torch.equal(again[name], value) for name, value in rows.items())


def test_the_key_of_the_cache_is_that_of_the_weights(encoder: ScanEncoder) -> None:
    image, scorer, deltas = encoder.network.image, encoder.network.scorer, torch.zeros(len(FINDINGS), 128)
    first, again = (EncodeRowsd(image, scorer, deltas).weights for _ in range(2))
    assert first == again != EncodeRowsd(image, scorer, deltas + 1).weights
    with torch.no_grad():
        image.field[1].bias[0] += 1
        changed = EncodeRowsd(image, scorer, deltas).weights
        image.field[1].bias[0] -= 1
    assert changed != first
