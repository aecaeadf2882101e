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
from bundle.ctfindings.published.classifier import PublishedClassifier

TASK = ("downstream/task", "downstream/retrieval")


def _tasks(bundle_root: Path, *names: str) -> ConfigParser:
    """The configs of a training with others after it."""
    parser = ConfigParser()
    parser.read_config([bundle_root / "configs" / f"{name}.json" for name in ("train", *names)])
    parser.update({"bundle_root": str(bundle_root)})
    return parser


@pytest.fixture(scope="module")
def encoder(bundle_root: Path, untrained_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> ScanEncoder:
    """The encoder of the tasks, with the random weights of the tests and a cache of its own."""
    parser = _tasks(bundle_root, *TASK)
    cache = str(tmp_path_factory.mktemp("cache"))
    parser.update({"cache_dir": cache, "ckpt_path": str(untrained_weights)})
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


@pytest.mark.parametrize("network", ["astra", "merlin"])
def test_a_published_encoder_reads_scans_through_its_own_pipeline(bundle_root: Path, network: str) -> None:
    own, task = (_tasks(bundle_root, *names) for names in ([f"networks/{network}"], [f"networks/{network}", *TASK]))
    steps = task.get_parsed_content("scan_encoder#preprocessing")
    assert [type(step) for step in steps] == [type(step) for step in own.get_parsed_content("image_pipeline")]
    assert [type(step) for step in steps] != [
        type(step) for step in _tasks(bundle_root, *TASK).get_parsed_content("scan_encoder#preprocessing")
    ]


def test_a_converted_published_model_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="found PublishedClassifier; the downstream tasks do not run on converted"):
        ScanEncoder(PublishedClassifier.__new__(PublishedClassifier), None, [])  # type: ignore[arg-type]
