"""Reads a trained run on the test studies, for the tests of PLACE that can fail."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose
from numpy.typing import NDArray
from torch import Tensor

from bundle.ctfindings.data.batches import prepare_unmasked_batch
from bundle.ctfindings.data.datalist import load_datalist
from bundle.ctfindings.data.loaders import cached_dataset, study_loader
from bundle.ctfindings.files.atomic_write import atomic_path
from bundle.ctfindings.findings import FINDING_ANATOMY, FINDINGS
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
from experiments.harness.runs import Run
from experiments.place.validity import (
    attention_hits,
    counterfactual_rank,
    owner_gap,
    query_collapse,
    recall_within_organ,
)

OBSERVED_FILE = "observed.json"

LOCALIZED = tuple(index for index, finding in enumerate(FINDINGS) if finding.localized)
"""Findings with a place, whose lesions attention is compared with."""

SCANS_OF_A_BATCH, COUNTERFACTUALS = 4, 20
"""Scans that are contrasted with each other, and scans that are rendered again without one of their lesions."""


def observed_run(run: Run, datalist: Path) -> dict[str, Any]:
    """What the tests of ``validity`` read of a run on the test split, computed unless that is done."""
    path = run.folder / OBSERVED_FILE
    if not path.is_file():
        observer = Observer(run)
        found = observer.of(load_datalist(datalist, "test"))
        found["counterfactual_ranks"] = observer.counterfactuals(counterfactual_scans(datalist))
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(found) + "\n", encoding="utf-8")
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


class Observer:
    """A trained run, read on the test studies without masks, as a user would.

    Args:
        run: the run.
    """

    def __init__(self, run: Run) -> None:
        parser = ConfigParser()
        parser.read_config(list(run.configs))
        parser.update(dict(run.keys))
        self.network: VisionLanguageModel = parser.get_parsed_content("network_def").eval()
        load_checkpoint(self.network, run.checkpoint)
        self.pipeline = parser.get_parsed_content("image_pipeline")
        self.preprocessing = parser.get_parsed_content("preprocessing")
        self.cache: dict[str, Any] = {
            "cache_dir": parser.get_parsed_content("cache_dir"),
            "cache_key": parser.get_parsed_content("cache_key"),
        }
        self.loss: PathologyAlignmentLoss = parser.get_parsed_content("loss#losses#pathology_alignment")
        trained = torch.load(run.checkpoint, map_location="cpu", weights_only=True).get("loss", {})
        own = "losses.pathology_alignment."
        self.loss.load_state_dict(
            {key.removeprefix(own): value for key, value in trained.items() if key.startswith(own)},
            strict=bool(trained),
        )
        self.correlation: CorrelationExplorationLoss = parser.get_parsed_content("loss#losses#correlation_exploration")
        with torch.no_grad():
            self.prompts = mean_over_templates(template_bank(self.network.text))

    @torch.no_grad()
    def of(self, studies: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """What the tests of ``validity`` read: numbers of each batch, sentence or lesion, and those of all scans."""
        augmentation = [RandObservationsd(draw=False)]
        dataset = cached_dataset(studies, self.preprocessing, augmentation, **self.cache)
        gaps, hits, rows, used = [], [], [], []
        correlated: list[list[float]] = []
        correlated_lesions: list[list[float]] = []
        start = 0
        for batch in study_loader(dataset, batch_size=SCANS_OF_A_BATCH):
            image, targets, _, inputs = prepare_unmasked_batch(batch)
            known = {**targets, **self.network(image, **inputs)}
            if "sentence" in known:
                observed = as_observations(**{name: known[name] for name in self.loss.inputs})
                gaps.append(owner_gap(self.loss, observed))
                used.append(self.loss.use(observed))
                rows.append(observed)
            if "correlation" in known:
                correlated += self._correlations(known)
                if isinstance(batch.get("finding_masks"), Tensor):
                    correlated_lesions += self._correlations(known, batch["finding_masks"])
            hits += self._attention(batch, image, start)
            start += len(image)
        all_rows = joined(rows)
        return {
            "owner_gap": gaps,
            "recall_within_organ": recall_within_organ(all_rows),
            "attention": hits,
            "collapse": query_collapse(all_rows.pathology[all_rows.valid.all(dim=1)], torch.stack(used).sum(dim=0)),
            "correlation": _gap(correlated),
            "correlation_of_lesions": _gap(correlated_lesions),
        }

    def _correlations(self, known: Mapping[str, Any], masks: Tensor | None = None) -> list[list[float]]:
        """Losses of each scan with its own, another and no report; with masks, over pairs with a patch of a finding."""
        names = ("correlation", "correlation_shuffled", "correlation_without_report")
        target, weight = known["correlation_target"], known["correlation_weight"]
        if masks is not None:
            lesion = finding_tokens(masks, self.network.image.tower.stride).any(dim=2)  # type: ignore[arg-type]
            drawn = lesion.gather(1, known["correlation_positions"])
            weight = weight * (drawn.unsqueeze(1) | drawn.unsqueeze(2))
        losses = [self.correlation.of_scans(known[name], target, weight) for name in names]
        return [each for each in torch.stack(losses, 1).tolist() if np.isfinite(each).all()]

    def _attention(self, batch: Mapping[str, Any], image: Tensor, start: int) -> list[dict[str, float]]:
        """Of every localized finding with a mask in a batch, see ``attention_hits``; ``scan`` is counted from start."""
        if not isinstance(batch.get("finding_masks"), Tensor):
            return []
        encoded, stride = self.network.image(image), self.network.image.tower.stride
        grid = encoded.grid
        lesions = dilate_membership(finding_tokens(batch["finding_masks"], stride), grid, 1)  # type: ignore[arg-type]
        organs = token_membership(batch["anatomy"], stride)  # type: ignore[arg-type]
        found = []
        for scan, finding in product(range(len(image)), LOCALIZED):
            if batch["labels"][scan, finding] != 1:
                continue
            without = torch.nonzero(batch["labels"][:, finding] == 0).flatten().tolist()
            hit = attention_hits(
                encoded.pathology_attention[scan],
                encoded.pathology_valid[scan],
                encoded.pathology[scan],
                self.prompts[finding, 0],
                lesions[scan, :, finding],
                organs[scan, :, FINDING_ANATOMY[finding]],
                encoded.pathology_attention[without[0]] if without else None,
            )
            found += [] if hit is None else [{"scan": start + scan, **hit}]
        return found

    @torch.no_grad()
    def counterfactuals(self, rendered: Sequence["Counterfactual"]) -> list[float]:
        """Rank of each removed finding by the fall of its support when the same scan is rendered without it alone."""
        return [
            counterfactual_rank(
                self._support(scan.whole, scan.affine), self._support(scan.without, scan.affine), scan.finding
            )
            for scan in rendered
        ]

    def _support(self, hu: NDArray[np.int16], affine: NDArray[np.float64]) -> Tensor:
        """Support of each finding in a scan, ``[C]``."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "scan.nii.gz"
            write_nifti(path, hu, affine)
            image = Compose(self.pipeline)({"image": path})["image"].as_tensor()[None].float()
        encoded = self.network.image(image)
        return observation_logits(encoded.pathology, encoded.pathology_valid, self.prompts[:, 0], self.prompts[:, 1])[0]


class Counterfactual(NamedTuple):
    """A synthetic scan, and the same scan without one finding."""

    whole: NDArray[np.int16]
    without: NDArray[np.int16]
    affine: NDArray[np.float64]
    finding: int


def counterfactual_scans(datalist: Path) -> list[Counterfactual]:
    """The first synthetic scans of the test split with a localized finding, and without it; none of other scans."""
    content = json.loads(datalist.read_text(encoding="utf-8"))
    seed = content.get("parameters", {}).get("seed")
    rendered: list[Counterfactual] = []
    for study in content["test"] if seed is not None else ():
        present = [finding for finding in LOCALIZED if study["labels"][finding] == 1]
        if present and len(rendered) < COUNTERFACTUALS:
            index, labels = int(study["id"].rpartition("_")[2]), [int(label) for label in study["labels"]]
            _, whole, _, _, affine = make_case(seed, index, labels)
            _, without, _, _, _ = make_case(seed, index, labels, without=present[0])
            rendered.append(Counterfactual(whole, without, affine, present[0]))
    return rendered


def _gap(losses: list[list[float]]) -> dict[str, float] | None:
    return correlation_gap(np.array(losses)) if losses else None


def joined(parts: Sequence[Any]) -> Any:
    """The observations of all batches as those of one."""
    starts = np.cumsum([0, *(len(part.written) for part in parts)])
    shifted = [part._replace(owner=part.owner + int(start)) for part, start in zip(parts, starts, strict=False)]
    return type(parts[0])(*(torch.cat(columns) for columns in zip(*shifted, strict=True)))
