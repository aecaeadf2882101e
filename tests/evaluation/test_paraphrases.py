"""Findings asked for in other words: what counts as new words, ranks by text, and AUC on images."""

import numpy as np
import pytest
import torch

from bundle.ctfindings.evaluation.paraphrases import accuracy_by_band, image_record, text_record
from bundle.ctfindings.findings import FINDING_NAMES, finding_index
from bundle.ctfindings.metrics.bootstrap import Bootstrap

C = len(FINDING_NAMES)
HEART, EMPHYSEMA = finding_index("Cardiomegaly"), finding_index("Emphysema")


class NameReader:
    """A text tower that knows the names of the findings, and that a big heart is cardiomegaly."""

    def __call__(self, texts: list[str], role: str) -> torch.Tensor:
        assert role == "prompt"
        rows = []
        for text in texts:
            named = [index for index, name in enumerate(FINDING_NAMES) if name.lower() in text.lower()]
            rows.append(named[0] if named else HEART)
        return torch.eye(C)[rows]


def test_paraphrases_are_ranked_among_the_positive_prompts() -> None:
    asked = [(HEART, "big heart"), *((EMPHYSEMA, text) for text in ("emphysema here", "holes", "destroyed lung"))]
    record = text_record(NameReader(), asked)  # type: ignore[arg-type]
    assert (record["paraphrases"], record["accuracy"], record["accuracy_within_3"]) == (4, 0.5, 0.5)
    by_finding = {row["finding"]: (row["paraphrases"], row["accuracy"]) for row in record["findings"]}
    assert by_finding["Cardiomegaly"] == (1, 1.0) and by_finding["Emphysema"] == (3, pytest.approx(1 / 3))
    assert by_finding["Atelectasis"] == (0, None)
    assert [(miss["text"], miss["nearest"]) for miss in record["missed"]] == [
        ("holes", "Cardiomegaly"),
        ("destroyed lung", "Cardiomegaly"),
    ]


def test_each_band_of_novelty_has_its_own_auc() -> None:
    """The text that training had is right on every scan, the new one is right the other way round."""
    labels = np.zeros((20, C), dtype=np.int64)
    labels[::2, HEART] = 1
    logits = np.stack([labels[:, HEART], -labels[:, HEART]], axis=1).astype(float)
    asked = [(HEART, "Enlarged hearts with dilated chambers"), (HEART, "swollen pump of blood")]
    record = image_record(logits, labels, asked, Bootstrap([f"p{index}" for index in range(20)], resamples=50))
    assert {band: row["paraphrases"] for band, row in record["bands"].items()} == {
        "novel": 1,
        "related": 0,
        "near duplicate": 1,
    }
    assert record["bands"]["near duplicate"]["auc"] == 1 and record["bands"]["novel"]["auc"] == 0
    assert record["bands"]["related"] == {"paraphrases": 0, "auc": None, "auc_interval": [None, None]}
    known, new = record["images"]
    assert (known["overlap"], known["auc"], new["auc"]) == (pytest.approx(1), 1, 0) and new["overlap"] < 0.2


def test_ranks_by_text_are_counted_in_each_band() -> None:
    images = [
        {"finding": "Cardiomegaly", "text": text, "band": band}
        for text, band in (("pump", "novel"), ("swollen pump", "novel"), ("big heart", "near duplicate"))
    ]
    missed = [{"finding": "Cardiomegaly", "text": "pump"}, {"finding": "Emphysema", "text": "big heart"}]
    found = accuracy_by_band({"images": images, "missed": missed})
    assert found == {"novel": 0.5, "related": None, "near duplicate": 1.0}
