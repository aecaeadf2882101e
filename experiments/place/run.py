"""Shows what each part of PLACE adds on synthetic scans, and whether it observes pathology at all.

    python scripts/make_synthetic_scans.py --output data/synthetic --training 400 --validation 100 --test 200
    python experiments/place/run.py --datalist data/synthetic --epochs 6 --seeds 0 1 2

Trains ``configs/objectives/place.json`` whole and without its parts, and evaluates the last epoch of each on the test
split. Writes ``results.json`` into the output folder: report retrieval, macro AUC, and the tests of ``validity.py``,
each with its interval and its verdict. The command resumes: finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose
from torch import Tensor

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.data.batches import prepare_unmasked_batch
from bundle.ctfindings.data.datalist import load_datalist
from bundle.ctfindings.data.loaders import cached_dataset, study_loader
from bundle.ctfindings.findings import FINDING_ANATOMY, FINDING_NAMES, FINDINGS
from bundle.ctfindings.losses.correlation_exploration import CorrelationExplorationLoss
from bundle.ctfindings.losses.pathology_alignment import PathologyAlignmentLoss, as_observations
from bundle.ctfindings.networks.checkpoint import load_checkpoint
from bundle.ctfindings.networks.image.pooling import dilate_membership, finding_tokens, token_membership
from bundle.ctfindings.networks.observation_scoring import observation_logits
from bundle.ctfindings.networks.text.prompts import mean_over_templates, template_bank
from bundle.ctfindings.networks.vision_language import VisionLanguageModel
from bundle.ctfindings.phantom.dataset import make_case, write_nifti
from bundle.ctfindings.reports.observations import RandObservationsd
from bundle.ctfindings.training.observation_metrics import correlation_gap
from experiments.harness.command_line import experiment_parser, work_folder
from experiments.harness.page import write_results
from experiments.harness.runs import Variant, reduced_datalist, run_variant, split_sizes
from experiments.place.validity import (
    CANDIDATES,
    attention_hits,
    counterfactual_rank,
    owner_gap,
    query_collapse,
    recall_within_organ,
    verdict,
)

OVERLAY = ("objectives/place.json",)
VARIANTS = (
    Variant("place", "PLACE", OVERLAY),
    Variant("no_alignment", "without the alignment", OVERLAY, {"loss_weights#pathology_alignment": 0.0}),
    Variant("no_correlation", "without the correlations", OVERLAY, {"loss_weights#correlation_exploration": 0.0}),
    Variant("one_query", "with one query", OVERLAY, {"pathology_queries": 1}),
    Variant("no_use", "without the term on the use", OVERLAY, {"loss#losses#pathology_alignment#spread": 0.0}),
)

LOCALIZED = tuple(index for index, finding in enumerate(FINDINGS) if finding.localized)
"""Findings with a place, whose lesions attention is compared with."""

SCANS_OF_A_BATCH, COUNTERFACTUALS = 4, 20
"""Scans that are contrasted with each other, and scans that are rendered again without one of their lesions."""


class Observer:
    """A trained run, read on the test studies without masks, as a user would.

    Args:
        variant: of the run.
        run: its folder, with ``last.pt``.
        keys: config keys of all runs.
    """

    def __init__(self, variant: Variant, run: Path, keys: Mapping[str, Any]) -> None:
        parser = ConfigParser()
        parser.read_config([str(ROOT / "configs" / name) for name in ("train.json", *variant.overlays)])
        parser.update({"bundle_root": str(ROOT), **keys, **variant.keys})
        self.network: VisionLanguageModel = parser.get_parsed_content("network_def").eval()
        load_checkpoint(self.network, run / "last.pt")
        self.pipeline = parser.get_parsed_content("image_pipeline")
        self.preprocessing = parser.get_parsed_content("preprocessing")
        self.cache: dict[str, Any] = {
            "cache_dir": parser.get_parsed_content("cache_dir"),
            "cache_key": parser.get_parsed_content("cache_key"),
        }
        self.loss = PathologyAlignmentLoss()
        with torch.no_grad():
            self.prompts = mean_over_templates(template_bank(self.network.text))

    @torch.no_grad()
    def of(self, studies: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The numbers of the tests by scan or sentence, as lists, and those of all scans together."""
        augmentation = [RandObservationsd(draw=False)]
        dataset = cached_dataset(studies, self.preprocessing, augmentation, **self.cache)
        gaps, recalls, hits, correlated, rows, used = [], [], [], [], [], []
        for batch in study_loader(dataset, batch_size=SCANS_OF_A_BATCH):
            image, targets, _, inputs = prepare_unmasked_batch(batch)
            known = {**targets, **self.network(image, **inputs)}
            if "sentence" in known:
                observed = as_observations(**{name: known[name] for name in self.loss.inputs})
                gaps += [owner_gap(self.loss, observed)] * len(image)
                used.append(self.loss.use(observed))
                rows.append(observed)
            if "correlation" in known:
                of_scans = CorrelationExplorationLoss().of_scans
                names = ("correlation", "correlation_shuffled", "correlation_without_report")
                target, weight = known["correlation_target"], known["correlation_weight"]
                correlated += torch.stack([of_scans(known[name], target, weight) for name in names], 1).tolist()
            hits += self._attention(batch, image)
        joined = _joined(rows)
        recalls = recall_within_organ(joined).tolist()
        complete = [losses for losses in correlated if np.isfinite(losses).all()]
        return {
            "owner_gap": gaps,
            "recall_within_organ": recalls,
            "attention": hits,
            "collapse": query_collapse(joined.pathology[joined.valid.all(dim=1)], torch.stack(used).sum(dim=0)),
            "correlation": correlation_gap(np.array(complete)) if complete else None,
        }

    def _attention(self, batch: Mapping[str, Any], image: Tensor) -> list[dict[str, float]]:
        """Of every localized finding with a mask in a batch, see ``attention_hits``."""
        if not isinstance(batch.get("finding_masks"), Tensor):
            return []
        encoded, stride = self.network.image(image), self.network.image.tower.stride
        grid = encoded.grid
        lesions = dilate_membership(finding_tokens(batch["finding_masks"], stride), grid, 1)  # type: ignore[arg-type]
        organs = token_membership(batch["anatomy"], stride)  # type: ignore[arg-type]
        found = [
            attention_hits(
                encoded.pathology_attention[scan],
                encoded.pathology_valid[scan],
                encoded.pathology[scan],
                self.prompts[finding, 0],
                lesions[scan, :, finding],
                organs[scan, :, FINDING_ANATOMY[finding]],
            )
            for scan in range(len(image))
            for finding in LOCALIZED
            if batch["labels"][scan, finding] == 1
        ]
        return [hit for hit in found if hit is not None]

    @torch.no_grad()
    def counterfactuals(self, studies: Sequence[Mapping[str, Any]], seed: int) -> list[float]:
        """Rank of a finding by the fall of its support when the same scan is rendered without it, for some scans."""
        ranks: list[float] = []
        for study in studies:
            present = [finding for finding in LOCALIZED if study["labels"][finding] == 1]
            if present and len(ranks) < COUNTERFACTUALS:
                index, labels = int(study["id"].rpartition("_")[2]), [int(label) for label in study["labels"]]
                without = [0 if finding == present[0] else label for finding, label in enumerate(labels)]
                before, after = (self._support(seed, index, given) for given in (labels, without))
                ranks.append(counterfactual_rank(before, after, present[0]))
        return ranks

    def _support(self, seed: int, index: int, labels: Sequence[int]) -> Tensor:
        """Support of each finding in a scan that is rendered with given labels, ``[C]``."""
        _, hu, _, _, affine = make_case(seed, index, labels)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "scan.nii.gz"
            write_nifti(path, hu, affine)
            image = Compose(self.pipeline)({"image": path})["image"].as_tensor()[None].float()
        encoded = self.network.image(image)
        return observation_logits(encoded.pathology, encoded.pathology_valid, self.prompts[:, 0], self.prompts[:, 1])[0]


def _joined(parts: Sequence[Any]) -> Any:
    """The observations of all batches as those of one."""
    starts = np.cumsum([0, *(len(part.written) for part in parts)])
    shifted = [part._replace(owner=part.owner + int(start)) for part, start in zip(parts, starts, strict=False)]
    return type(parts[0])(*(torch.cat(columns) for columns in zip(*shifted, strict=True)))


def verdicts(found: Mapping[str, Any], ranks: Sequence[float], queries: int) -> dict[str, Any]:
    """The tests of a run, each with what was found, the limit, and whether it passed."""

    def of(values: Sequence[float], above: float) -> dict[str, Any] | None:
        return verdict(np.array(values), above, [str(row) for row in range(len(values))]) if len(values) > 1 else None

    collapse, correlation = found["collapse"], found["correlation"]
    attention = found["attention"]
    return {
        "owner gap above 0": of(found["owner_gap"], 0.0),
        "recall within an organ above chance": of(found["recall_within_organ"], 1 / CANDIDATES),
        "attention above another query": of([hit["matched"] - hit["other"] for hit in attention], 0.0),
        "attention above a random token of the organ": of([hit["matched"] - hit["organ"] for hit in attention], 0.0),
        "the removed finding falls more than the median one": of(
            [len(FINDING_NAMES) / 2 - rank for rank in ranks], 0.0
        ),
        "queries in effect above a quarter": {
            **collapse,
            "passed": collapse["effective"] > queries / 4
            and collapse["cosine"] < 0.5
            and collapse["rank"] > queries / 4,
        },
        "correlations need the report": None
        if correlation is None
        else {**correlation, "passed": correlation.get("cce_gap_low", 0) > 0 and correlation["cce_gap"] > 0.01},
    }


def experiment(options: argparse.Namespace) -> Path:
    """Runs the experiment and returns the folder of its results."""
    work = work_folder(options)
    datalist = reduced_datalist(options.datalist, options.scans, work)
    keys = {"epochs": options.epochs, "cache_dir": str(options.cache.resolve()), **dict(options.set)}
    content = json.loads(datalist.read_text(encoding="utf-8"))
    results: dict[str, Any] = {"studies": split_sizes(datalist), "keys": keys, "variants": {}}
    for variant in VARIANTS:
        if variant.name not in options.variants:
            continue
        for seed in options.seeds:
            evaluation = run_variant(variant, seed, datalist, work, keys, options.resamples)
            metrics = json.loads((evaluation / "metrics.json").read_text(encoding="utf-8"))
            observer = Observer(variant, evaluation.parent, {**keys, "datalist": str(datalist), "seed": seed})
            found = observer.of(load_datalist(datalist, "test"))
            drawn = content.get("parameters", {}).get("seed")
            ranks = [] if drawn is None else observer.counterfactuals(content["test"], drawn)
            queries = int(variant.keys.get("pathology_queries", 16))
            results["variants"].setdefault(variant.name, {})[str(seed)] = {
                "macro_auc": metrics["macro"]["auc"],
                "macro_auc_interval": metrics["macro"]["auc_interval"],
                "observation_weight": metrics["calibration"]["observation_weight"],
                "evidence_hit_rate": metrics["evidence"]["hit_rate"],
                "report_retrieval": metrics.get("report_retrieval"),
                "tests": verdicts(found, ranks, queries),
            }
            write_results(options.output, results)
    return Path(options.output)


def main() -> None:
    parser = experiment_parser(__doc__, "place", seeds=(0, 1, 2))
    names = [variant.name for variant in VARIANTS]
    parser.add_argument("--variants", nargs="+", choices=names, default=names, help="variants to run (default: all)")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    print(run_or_exit(experiment, options))


if __name__ == "__main__":
    main()
