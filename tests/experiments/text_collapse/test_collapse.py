"""Captions of real reports for the collapse of text encoders: from tables, and from the split that no run has trained
on.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.networks.text.text_tower import TextTower
from experiments.text_collapse.collapse import (
    collapse_results,
    encoder_embeddings,
    read_captions,
    seed_label,
    split_captions,
    write_collapse_page,
)

WIDTH = 8


def test_a_folder_without_reports_is_named(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("VolumeName,Emphysema\na,1\n")
    with pytest.raises(ValueError, match="no CSV table here has a column Findings_EN"):
        read_captions(tmp_path)


def test_captions_of_real_tables_are_read_once_each(tmp_path: Path, write_reports: Callable[[Path], Path]) -> None:
    captions = read_captions(write_reports(tmp_path))
    assert captions.reports == 2, "the second and third row are the same report"
    assert len(captions.texts) == len(captions.anatomy) == len(captions.normal) == len(captions.report)
    assert set(captions.report.tolist()) == {0, 1}
    rows = np.random.default_rng(0).normal(size=(len(captions.texts), WIDTH))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    results = collapse_results(captions, {"an encoder": rows}, resamples=10)
    dumped = json.dumps(results, allow_nan=False)
    assert "effusion" not in dumped, "no text of a report is kept"
    assert read_captions(tmp_path, reports=1).reports == 1


@pytest.fixture
def write_reports() -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "reports.csv").write_text(
            "VolumeName,Findings_EN,Impressions_EN\n"
            'a,"Heart size is normal. There is a pleural effusion on the left.",Pleural effusion.\n'
            'b,"Lungs are clear. The aorta is normal. The heart is enlarged.",Cardiomegaly.\n'
            'c,"Lungs are clear. The aorta is normal. The heart is enlarged.",Cardiomegaly.\n'
        )
        (folder / "labels.csv").write_text("VolumeName,Emphysema\na,1\n")
        return folder

    return write


def test_a_datalist_gives_the_captions_of_its_test_split(tmp_path: Path) -> None:
    captions = {"lung": {"text": "A nodule.", "normal": False}, "heart": {"text": "Normal heart.", "normal": True}}
    unseen = [
        {"id": "c", "image": "c.nii.gz", "captions": captions},
        {"id": "d", "image": "d.nii.gz"},
        {"id": "e", "image": "e.nii.gz"},
    ]
    unseen[2]["captions"] = {"aorta": {"text": "Wide aorta.", "normal": False}}
    datalist = tmp_path / "datalist.json"
    trained = [{"id": "a", "image": "a.nii.gz", "captions": {"lung": {"text": "Seen.", "normal": True}}}]
    datalist.write_text(json.dumps({"training": trained, "validation": [], "test": unseen}), encoding="utf-8")
    found = split_captions(datalist)
    rows = sorted(zip(found.texts, found.anatomy, found.normal, found.report, strict=True))
    assert rows == [
        ("A nodule.", ANATOMY_NAMES.index("lung"), False, 0),
        ("Normal heart.", ANATOMY_NAMES.index("heart"), True, 0),
        ("Wide aorta.", ANATOMY_NAMES.index("aorta"), False, 1),
    ]
    assert found.reports == 2, "a study without captions is no report"
    with pytest.raises(ValueError, match="no study of the split 'validation' has captions"):
        split_captions(datalist, "validation")


def test_the_page_has_a_row_for_each_encoder_and_what_is_written_beside_it(
    tmp_path: Path, write_reports: Callable[[Path], Path]
) -> None:
    captions = read_captions(write_reports(tmp_path))
    rows = np.random.default_rng(0).normal(size=(len(captions.texts), WIDTH))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    encoders = {"one, seed 0": rows, "one, seed 1": rows, "two": rows[:, ::-1]}
    results = collapse_results(captions, encoders, resamples=10)
    (tmp_path / "notes.md").write_text("What the data suggest.", encoding="utf-8")
    page = write_collapse_page(tmp_path, results, "Encoders", "python scripts/x.py").read_text(encoding="utf-8")
    assert [line.split("|")[1].strip() for line in page.splitlines() if line.startswith(("| one", "| two"))] == [
        *encoders
    ]
    assert page.startswith("# Encoders\n\nWhat the data suggest.\n\n") and page.endswith("(similarity.png)\n")
    assert (tmp_path / "similarity.png").is_file()


def test_every_seed_has_its_own_new_weights_and_its_checkpoint_of_each_name(
    tmp_path: Path, bundle_root: Path, write_reports: Callable[[Path], Path]
) -> None:
    captions = read_captions(write_reports(tmp_path))
    encoder = str(bundle_root / "models" / "text_encoder")
    fresh = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    pretrained, untrained = (
        partial(TextTower, encoder, embedding=8),
        partial(TextTower, encoder, 8, trainable_layers=-1, from_scratch=fresh),
    )
    files = []
    for seed in (4, 5):
        torch.manual_seed(seed)
        files.append(("trained", tmp_path / f"{seed}.pt"))
        torch.save({f"text.{name}": value for name, value in pretrained().state_dict().items()}, files[-1][1])
    found = encoder_embeddings(captions, pretrained, untrained, files, seeds=[4, 5])
    kinds = ("untrained", "pretrained, new head", "trained")
    assert set(found) == {"pretrained trunk", *(seed_label(kind, seed) for kind in kinds for seed in (4, 5))}
    for kind in kinds:
        assert np.abs(found[seed_label(kind, 4)] - found[seed_label(kind, 5)]).max() > 0.01
    with pytest.raises(ValueError, match="trained: 2 checkpoints are given for 1 seeds"):
        encoder_embeddings(captions, pretrained, untrained, files, seeds=[4])
