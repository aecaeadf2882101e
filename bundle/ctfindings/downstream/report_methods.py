"""Methods that write a report for each test scan from a subset of the training reports. Shapes: S scans, C findings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from ignite.metrics import Loss
from monai.engines import SupervisedEvaluator
from scipy.special import expit
from torch import Tensor
from torch.utils.data import DataLoader

from bundle.ctfindings.anatomy import ANATOMY_NAMES, THORAX
from bundle.ctfindings.data.datalist import label_rows
from bundle.ctfindings.data.study_record import report_text
from bundle.ctfindings.downstream.best_training import BestTraining
from bundle.ctfindings.downstream.encoded_scans import Rows, ScanEncoder
from bundle.ctfindings.downstream.report_decoder import (
    PieceVocabulary,
    ReportDecoder,
    collate_reports,
    next_piece_loss,
    prepare_reports,
    scan_rows,
)
from bundle.ctfindings.downstream.task_run import Studies
from bundle.ctfindings.findings import FINDING_ANATOMY, FINDING_NAMES
from bundle.ctfindings.inference.findings_record import FindingAnswer
from bundle.ctfindings.inference.output.draft_report import compose_report
from bundle.ctfindings.metrics.classification import FloatArray
from bundle.ctfindings.metrics.thresholds import choose_thresholds


class Draw(NamedTuple):
    """One subset of the training reports, which a method may learn from, and the test scans."""

    encoder: ScanEncoder
    rows: dict[str, Rows]  # By split; those of the training split are of the subset
    training: Studies  # Studies of the subset
    validation: Studies
    test: Studies
    seed: int


Method = Callable[[Draw], list[str]]
"""Returns a report for each test scan."""


def written_report(study: dict[str, Any]) -> str:
    """Findings and impression of a study as one text; empty without a report."""
    return report_text(study.get("report"))


def random_reports(draw: Draw) -> list[str]:
    """Training reports drawn at random."""
    drawn = np.random.default_rng(draw.seed).integers(0, len(draw.training), len(draw.test))
    return [written_report(draw.training[place]) for place in drawn]


def frequent_reports(draw: Draw) -> list[str]:
    """The same report for every scan: the first training report with the labels that most training reports have."""
    known = label_rows(draw.training) == 1
    _, first, counts = np.unique(known, axis=0, return_index=True, return_counts=True)
    return [written_report(draw.training[int(first[counts.argmax()])])] * len(draw.test)


def oracle_reports(draw: Draw) -> list[str]:
    """The training report whose labels are nearest to the true ones."""
    known, asked = (label_rows(given) == 1 for given in (draw.training, draw.test))
    return [written_report(draw.training[int((known != labels).sum(axis=1).argmin())]) for labels in asked]


def nearest_reports(draw: Draw) -> list[str]:
    """The training report whose text row is nearest to the row of the thorax."""
    texts = [written_report(study) for study in draw.training]
    with torch.no_grad():
        written: Tensor = draw.encoder.network.encode_text(texts, "report").cpu()
    best = (draw.rows["test"]["anatomy"][:, THORAX] @ written.T).argmax(dim=1)
    return [texts[place] for place in best.tolist()]


def composed_reports(draw: Draw) -> list[str]:
    """Draft reports of the findings whose zero-shot score reaches the threshold of the best F1 on validation."""
    scores = {split: expit(draw.rows[split]["zero_shot"].double().numpy()) for split in ("validation", "test")}
    thresholds = choose_thresholds(scores["validation"], label_rows(draw.validation), "f1", FINDING_NAMES)
    seen = draw.rows["test"]["anatomy_valid"].tolist()
    return [
        compose_report(_answers(score, thresholds, found)).text
        for score, found in zip(scores["test"], seen, strict=True)
    ]


@dataclass(frozen=True)
class DecoderReports:
    """Reports of a decoder that is trained on the reports of the subset.

    Args:
        training: Training of the decoder.
        layers: Layers of the decoder.
        width: Width of the decoder.
        longest: Word pieces of a generated report at most.
    """

    training: BestTraining
    layers: int = 2
    width: int = 256
    longest: int = 256

    def __call__(self, draw: Draw) -> list[str]:
        """Trains the decoder, and returns a report for each test scan."""
        torch.manual_seed(draw.seed)
        device, longest = draw.encoder.device, self.longest
        vocabulary = PieceVocabulary(draw.encoder.network.text.tokenizer, list(map(written_report, draw.training)))
        given = {split: scan_rows(rows) for split, rows in draw.rows.items()}
        pairs = {
            split: [
                (row, vocabulary.encode(written_report(study), longest))
                for row, study in zip(given[split], listed, strict=True)
            ]
            for split, listed in (("training", draw.training), ("validation", draw.validation))
        }
        _, count, embedding = given["test"].shape
        network = ReportDecoder(embedding, count, len(vocabulary.pieces), longest, self.layers, self.width).to(device)
        loaders: dict[str, Any] = {
            split: DataLoader(
                listed,  # type: ignore[arg-type]  # a list is a dataset
                self.training.batch_size,
                shuffle=split == "training",
                collate_fn=collate_reports,
                generator=torch.Generator().manual_seed(draw.seed),
            )
            for split, listed in pairs.items()
        }
        likelihood = Loss(lambda logits, places: -next_piece_loss(logits, places), lambda o: (o["pred"], o["label"]))
        evaluator = SupervisedEvaluator(
            device=device,
            val_data_loader=loaders["validation"],
            network=network,
            prepare_batch=prepare_reports,
            key_val_metric={"likelihood": likelihood},
            decollate=False,
        )
        groups = [{"params": list(network.parameters()), "lr": self.training.learning_rate}]
        self.training.run(evaluator, groups, loaders["training"], next_piece_loss, "likelihood")
        network.eval()
        chunks = given["test"].to(device).split(self.training.batch_size)
        return [vocabulary.decode(places) for chunk in chunks for places in network.write(chunk)]


def _answers(scores: FloatArray, thresholds: FloatArray, seen: Sequence[bool]) -> list[FindingAnswer]:
    """Answers about one scan as a record has them, without evidence."""
    return [
        FindingAnswer(
            name,
            float(score),
            float(threshold),
            present=bool(score >= threshold),
            anatomy=ANATOMY_NAMES[row],
            anatomy_found=seen[row],
        )
        for name, row, score, threshold in zip(FINDING_NAMES, FINDING_ANATOMY, scores, thresholds, strict=True)
    ]
