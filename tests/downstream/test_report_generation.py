"""Reports: each method writes what its rows state, the floors are where they should be, and bad input is named."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from bundle.ctfindings.downstream.best_training import BestTraining
from bundle.ctfindings.downstream.report_decoder import (
    END,
    PADDING,
    START,
    PieceVocabulary,
    ReportDecoder,
    collate_reports,
    next_piece_loss,
)
from bundle.ctfindings.downstream.report_generation import ReportGeneration
from bundle.ctfindings.downstream.report_methods import DecoderReports
from bundle.ctfindings.downstream.task_run import TaskRun
from tests.downstream.conftest import LabelEncoder


@pytest.fixture(scope="module")
def tokenizer(bundle_root: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_file=str(bundle_root / "models" / "text_encoder" / "tokenizer.json"))


class Writer(LabelEncoder):
    """Rows that state the labels without noise, also as zero-shot logits."""

    device = torch.device("cpu")

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(noise=0.0)
        self.network.text = type("Text", (), {"tokenizer": tokenizer})

    def encode(self, studies: list[dict[str, Any]], name: str = "") -> dict[str, torch.Tensor]:
        rows = super().encode(studies, name)
        rows["zero_shot"] = torch.stack([study["labels"] * 4.0 - 2.0 for study in studies])
        return rows


TRAINING = BestTraining(epochs=4, steps=40, patience=4, batch_size=16, learning_rate=0.005)


def run(datalist: Path, tokenizer: Any, **options: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "decoder": DecoderReports(TRAINING, width=48, longest=48),
        "fractions": [100],
        "seeds": [0],
        "methods": ["random", "frequent", "nearest", "composed", "oracle"],
    }
    task = ReportGeneration(**{**settings, **options})
    return TaskRun(task, Writer(tokenizer), datalist, datalist.parent / "out", resamples=20).run()


def test_rows_that_state_the_findings_give_good_reports_and_random_ones_are_near_the_floor(
    datalist: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    methods = run(datalist, tokenizer)["methods"]
    crg = {method: found["100"]["crg"]["macro"]["value"] for method, found in methods.items()}
    assert crg["composed"] == pytest.approx(1.0, abs=0.02)
    assert crg["composed"] > crg["nearest"] > crg["random"] and crg["oracle"] > crg["random"]
    with (datalist.parent / "out" / "reports_frequent_100.csv").open(encoding="utf-8") as file:
        assert len({row["generated"] for row in csv.DictReader(file)}) == 1
    assert crg["frequent"] < crg["nearest"]
    assert crg["random"] == pytest.approx(1 / 3, abs=0.08)
    printed = capsys.readouterr().out
    assert "CRG of all stated or all denied is 0.333" in printed and "First test scans" not in printed


def test_a_decoder_learns_to_write_what_the_rows_state(datalist: Path, tokenizer: Any) -> None:
    record = run(datalist, tokenizer, methods=["random", "decoder"])
    found = {method: record["methods"][method]["100"]["f1_micro"]["macro"]["value"] for method in ("random", "decoder")}
    assert found["decoder"] > found["random"] + 0.1
    with (datalist.parent / "out" / "reports_decoder_100.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40 and "there is" in rows[0]["generated"]
    page = (datalist.parent / "out" / "report.html").read_text(encoding="utf-8")
    assert "First test scans" in page and 'class="long"' in page


def test_studies_without_a_report_are_left_out_and_silent_reports_are_named(datalist: Path, tokenizer: Any) -> None:
    content = json.loads(datalist.read_text(encoding="utf-8"))
    del content["test"][3]["report"]
    content["training"][5]["report"] = {"findings": "Comparison with the earlier study.", "impression": ""}
    datalist.write_text(json.dumps(content), encoding="utf-8")
    record = run(datalist, tokenizer, methods=["nearest"])
    assert record["warnings"] == [
        "training reports without an observation: 1, first training-5",
        "test studies without a report, left out: 1, first test-3",
    ]


@pytest.mark.parametrize(
    ("split", "keep", "message"),
    [
        ("test", 1, "the test split has reports of fewer than two patients"),
        ("training", 0, "the training split has no"),
    ],
)
def test_splits_without_reports_are_refused(
    datalist: Path, tokenizer: Any, split: str, keep: int, message: str
) -> None:
    content = json.loads(datalist.read_text(encoding="utf-8"))
    for study in content[split][keep:]:
        del study["report"]
    datalist.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=f"report_generation: {message}"):
        run(datalist, tokenizer)
    assert not (datalist.parent / "out").exists()


def test_a_fraction_of_one_report_and_an_unknown_method_are_refused(datalist: Path, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=r"report_generation: 1 % of the labels \(seed 0\) leave one report"):
        run(datalist, tokenizer, fractions=[1])
    with pytest.raises(ValueError, match=r"methods: expected some of random, frequent, .* got 'llm'"):
        ReportGeneration(DecoderReports(TRAINING), ["llm"])


def test_texts_survive_the_vocabulary_and_padding_does_not_count(tokenizer: Any) -> None:
    vocabulary = PieceVocabulary(tokenizer, ["There is a pleural effusion.", "No nodule."])
    places = vocabulary.encode("There is a nodule.", 20)
    assert places[0] == START and places[-1] == END
    assert vocabulary.decode(places.tolist()[1:]) == "there is a nodule."
    assert len(vocabulary.encode("There is a pleural effusion.", 4)) == 4
    rows, padded = collate_reports([(torch.zeros(2, 6), places), (torch.ones(2, 6), places[:3])])
    assert rows.shape == (2, 2, 6) and (padded[1, 3:] == PADDING).all()
    network = ReportDecoder(6, 2, len(vocabulary.pieces), 20, layers=1, width=16)
    logits = network((rows, padded[:, :-1]))
    assert logits.shape == (2, len(places) - 1, len(vocabulary.pieces))
    changed = logits.clone()
    changed[1, 2:] += 5 * torch.randn_like(changed[1, 2:])  # the targets of these are padding
    assert next_piece_loss(changed, padded[:, 1:]) == next_piece_loss(logits, padded[:, 1:])
