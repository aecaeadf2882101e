"""Concepts that no training label names, asked by free text: sex, contrast agent, and calcification of a nodule.

    python scripts/make_synthetic_scans.py --output data/scans --training 600 --validation 150 --test 250 --seed 0
    python experiments/leave_findings_out/uncaptioned.py --datalist data/scans

A pair of texts scores each scan with the weights as they are. Beside it, a linear probe learns the concept, with its
labels, from the frozen rows of the same anatomies. The pairs and anatomies were chosen before the first run. How many
training reports and captions name a concept is counted in a datalist that the same report writer wrote.

Shapes: S scans, T texts, K anatomies, E embedding.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bundle.ctfindings.anatomy import ANATOMY_NAMES, THORAX
from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.data.datalist import load_datalist
from bundle.ctfindings.files.progress import progress_bar
from bundle.ctfindings.inference.encoding import encode_study, moved
from bundle.ctfindings.inference.service import load_service
from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.networks.classifier import load_classifier
from experiments.harness.page import write_results
from experiments.harness.shown_command import shown_command
from experiments.leave_findings_out.results import UNCAPTIONED_FILE, write_results_page

PROBE_FOLDS = 5


@dataclass(frozen=True)
class Concept:
    """What is asked, where, and what a scan's record says of it."""

    name: str
    pairs: tuple[tuple[str, str], ...]  # a text and its opposite
    anatomy: str
    truth: Callable[[Mapping[str, Any]], bool | None]  # None leaves the scan out
    named: str  # regular expression of a text that names it


def _calcified(study: Mapping[str, Any]) -> bool | None:
    kinds = [site["kind"] for site in study["sites"] if site["finding"] == "Lung nodule"]
    return "calcified" in kinds if kinds else None


CONCEPTS = (
    Concept(
        "sex",
        (
            ("a female patient", "a male patient"),
            ("chest CT of a woman", "chest CT of a man"),
            ("breast tissue is seen", "no breast tissue is seen"),
        ),
        "thorax",
        lambda study: study["sex"] == "F",
        r"\b(wo)?m[ae]n\b|\b(fe)?male\b|\bbreasts?\b|gyna?ecomastia",
    ),
    Concept(
        "contrast agent",
        (
            ("contrast-enhanced scan", "unenhanced scan"),
            ("intravenous contrast in the vessels", "no intravenous contrast in the vessels"),
            ("the aorta is bright with contrast", "the aorta has the density of the muscles"),
        ),
        "aorta",
        lambda study: bool(study["contrast"]),
        r"contrast|enhanc|intraven",
    ),
    Concept(
        "calcified, among scans with a nodule",
        (
            ("calcified nodule", "soft tissue nodule"),
            ("a nodule that contains calcium", "a nodule without calcium"),
            ("dense calcified granuloma", "nodule of soft tissue density"),
        ),
        "lung",
        _calcified,
        r"calcified (\w+ )?(nodul|granuloma|lesion of nodular)|(nodul\w*|granuloma\w*)[^.,;]* calcifi",
    ),
)
"""Chosen before the first run: the texts are averaged, as the templates of a finding are."""


def probe_scores(features: NDArray[np.float64], truth: NDArray[np.int64]) -> NDArray[np.float64]:
    """Scores ``[S]`` of a logistic regression on ``[S, F]``, each from the folds without its scan."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    folds = StratifiedKFold(PROBE_FOLDS, shuffle=True, random_state=0)
    return np.asarray(cross_val_predict(probe, features, truth, cv=folds, method="decision_function"))


def compared(
    asked: NDArray[np.float64], features: NDArray[np.float64], truth: NDArray[np.int64], patients: Sequence[str]
) -> dict[str, Any]:
    """AUC of texts and of a probe, and of the texts minus the probe, with intervals by patient.

    Args:
        asked: Score of the mean of the pairs and of each pair, ``[S, 1 + T]``.
        features: Frozen features, ``[S, F]``.
        truth: 1 or 0, ``[S]``.
        patients: Patient of each scan; each has one scan.
    """
    bootstrap = Bootstrap(list(patients))
    probe = probe_scores(features, truth)
    labels = np.repeat(truth[:, None], asked.shape[1], axis=1)
    texts = bootstrap.auc(asked, labels).findings
    own = asked[:, :1]
    return {
        "scans": len(truth),
        "positives": int(truth.sum()),
        "free_text": texts.entry(0),
        "probe": bootstrap.auc(probe[:, None], labels[:, :1]).findings.entry(0),
        "difference": bootstrap.auc_difference(own, probe[:, None], labels[:, :1]).findings.entry(0),
        "pairs": [texts.entry(1 + pair) for pair in range(asked.shape[1] - 1)],
    }


def named_in(studies: Sequence[Mapping[str, Any]], pattern: str) -> dict[str, int]:
    """How many studies have a report, and a caption or snippet, that matches a regular expression."""
    found = re.compile(pattern, re.IGNORECASE)
    learned = [
        " ".join([*study["captions"].values(), *(snippet["text"] for snippet in study["snippets"])])
        for study in studies
    ]
    reports = [" ".join(study["report"].values()) for study in studies]
    return {
        "studies": len(studies),
        "reports": sum(bool(found.search(text)) for text in reports),
        "captions": sum(bool(found.search(text)) for text in learned),
    }


@torch.inference_mode()
def score(studies: Sequence[Mapping[str, Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    """Encodes each scan once with the shipped weights.

    Returns:
        Logits of the mean pair and of each pair of all concepts, ``[S, sum of (1 + T)]``, rows of the anatomies,
        ``[S, K, E]``, and the SHA-256 of the weights.
    """
    service = load_service(ROOT, text=False)
    network, text = service.network, service.text_tower().eval()
    load_classifier(network, service.ckpt_path, text)
    deltas, rows = [], []
    for concept in CONCEPTS:
        first, second = (text([pair[side] for pair in concept.pairs], "prompt") for side in (0, 1))
        delta = first - second
        deltas.append(torch.cat([delta.mean(0, keepdim=True), delta]))
        rows += [ANATOMY_NAMES.index(concept.anatomy)] * (1 + len(concept.pairs))
    logits, features = [], []
    for study in progress_bar(studies, "encoding"):
        encoded = encode_study(network, service.preprocessing({"image": str(study["image"])}))
        embedding = moved(encoded.embedding, service.device)
        scores, _ = network.pair_logits(embedding, torch.cat(deltas), torch.tensor(rows, device=service.device))
        logits.append(scores[0].double().cpu().numpy())
        features.append(embedding.anatomy[0].double().cpu().numpy())
    return np.stack(logits), np.stack(features), service.model.weights_sha256


def experiment(options: argparse.Namespace) -> Path:
    """Scores the scans of a split, writes the results, and the page anew."""
    folder = options.datalist if options.datalist.is_dir() else options.datalist.parent
    training = load_datalist(folder / "datalist.json", "training")
    studies = load_datalist(folder / "datalist.json", options.split)[: options.scans]
    logits, rows, weights = score(studies)
    concepts, start = [], 0
    for concept in CONCEPTS:
        asked = logits[:, start : start + 1 + len(concept.pairs)]
        start += asked.shape[1]
        found = [concept.truth(study) for study in studies]
        used = np.flatnonzero([value is not None for value in found])
        truth = np.array([int(bool(found[row])) for row in used])
        features = rows[used][:, [ANATOMY_NAMES.index(concept.anatomy), THORAX]].reshape(len(used), -1)
        measured = compared(asked[used], features, truth, [str(studies[row]["patient"]) for row in used])
        for pair, entry in zip(concept.pairs, measured["pairs"], strict=True):
            entry["texts"] = list(pair)
        named = named_in(training, concept.named)
        concepts.append({"concept": concept.name, "anatomy": concept.anatomy, "named_in": named, **measured})
    result = {
        "command": shown_command(sys.argv, {"--datalist": "FOLDER", "--output": None}),
        "parameters": json.loads((folder / "parameters.json").read_text(encoding="utf-8")),
        "split": options.split,
        "weights_sha256": weights,
        "probe_folds": PROBE_FOLDS,
        "bootstrap": Bootstrap(["a", "b"]).settings(),
        "concepts": concepts,
    }
    write_results(options.output, result, UNCAPTIONED_FILE)
    return write_results_page(options.output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datalist", type=Path, required=True, help="folder of make_synthetic_scans.py")
    parser.add_argument("--split", default="training", help="scans to score; the shipped weights had none of seed 0")
    parser.add_argument("--scans", type=int, help="first scans of the split (default: all)")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "experiments" / "leave_findings_out")
    print(run_or_exit(experiment, parser.parse_args()))


if __name__ == "__main__":
    main()
