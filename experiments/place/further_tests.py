"""Tests of PLACE on a trained run that need no training of it: word order, correlations without it, size of lesions.

Shapes: B scans, m token positions, S sentences, E embedding.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neural_network import MLPRegressor
from torch import Tensor

from bundle.ctfindings.anatomy import THORAX
from bundle.ctfindings.data.batches import prepare_unmasked_batch
from bundle.ctfindings.data.loaders import cached_dataset, study_loader
from bundle.ctfindings.losses.pathology_alignment import Observations, as_observations
from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.retrieval import rank_of_own
from bundle.ctfindings.networks.correlation_targets import patch_voxels
from bundle.ctfindings.networks.image.observation_extractor import cell_centres
from bundle.ctfindings.networks.image.pooling import finding_tokens
from bundle.ctfindings.reports.observations import RandObservationsd
from bundle.ctfindings.training.observation_metrics import correlation_gap
from experiments.harness.task_results import FOUND
from experiments.place.observer import SCANS_OF_A_BATCH, Observer, joined
from experiments.place.validity import similarity, verdict

FITTED_PAIRS = 500
"""Pairs of each validation scan on which the prediction from positions is trained."""

CONDITIONS = ("correlation", "correlation_shuffled", "correlation_without_report")
NORMAL_WEIGHT = 0.5


class Pairs(NamedTuple):
    """The pairs of positions of a scan that count, P of them."""

    predicted: NDArray[np.float64]  # by the model, P
    target: NDArray[np.float64]  # P
    weight: NDArray[np.float64]  # P
    classes: NDArray[np.int64]  # of both tissues, as one number that does not depend on their order, P
    places: NDArray[np.float64]  # in units of 100 mm: middle of the two and absolute distance along each axis, (P, 6)


class Read(NamedTuple):
    """What the tests read of a split."""

    rows: Observations
    texts: list[str]  # S
    pairs: list[Pairs]
    lesion_losses: list[list[float]]  # by scan with a lesion: with its own, another and no report
    lesion_ml: list[float]


@torch.no_grad()
def read_split(observer: Observer, studies: Sequence[dict[str, Any]]) -> Read:
    """Reads the studies of a split without masks; masks only tell which patches hold a lesion."""
    dataset = cached_dataset(studies, observer.preprocessing, [RandObservationsd(draw=False)], **observer.cache)
    network, explorer = observer.network, observer.network.correlation
    if explorer is None:
        raise ValueError("this run has no correlation task")
    rows, texts, pairs, losses, volumes = [], [], [], [], []
    for batch in study_loader(dataset, batch_size=SCANS_OF_A_BATCH):
        image, targets, _, inputs = prepare_unmasked_batch(batch)
        known = {**targets, **network(image, **inputs)}
        rows.append(as_observations(**{name: known[name] for name in observer.loss.inputs}))
        texts += [item.text for given in batch["observations"] for item in given]
        stride: tuple[int, int, int] = network.image.tower.stride  # type: ignore[assignment]
        grid = [size // edge for size, edge in zip(image.shape[2:], stride, strict=True)]
        body = network.image.own_members(known["anatomy_logits"])[:, :, THORAX]
        index = known["correlation_positions"]
        places = cell_centres(grid, explorer.step_mm, body).gather(1, index.unsqueeze(2).expand(-1, -1, 3))
        low, high = explorer.hu_window
        hu = patch_voxels(image.float(), stride, index).mean(dim=2) * (high - low) + low
        tissue = torch.bucketize(hu, explorer.limits_hu)
        pairs += [_pairs(*each) for each in zip(*_of(known), tissue, places, strict=True)]
        if not isinstance(batch.get("finding_masks"), Tensor):
            continue
        lesion = finding_tokens(batch["finding_masks"], stride).any(dim=2).gather(1, index)
        weight = known["correlation_weight"] * (lesion.unsqueeze(1) | lesion.unsqueeze(2))
        of_scans = [
            observer.correlation.of_scans(known[name], known["correlation_target"], weight) for name in CONDITIONS
        ]
        voxel_ml = float(np.prod(explorer.step_mm)) / float(np.prod(stride)) / 1000
        for scan, row in enumerate(torch.stack(of_scans, 1).tolist()):
            if np.isfinite(row).all():
                losses.append(row)
                volumes.append(float((batch["finding_masks"][scan] != 0).sum()) * voxel_ml)
    return Read(joined(rows), texts, pairs, losses, volumes)


def _of(known: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    return known["correlation"], known["correlation_target"], known["correlation_weight"]


def _pairs(predicted: Tensor, target: Tensor, weight: Tensor, tissue: Tensor, places: Tensor) -> Pairs:
    """The pairs of one scan, each once, from ``[m, m]``, ``[m]`` and ``[m, 3]``."""
    first, second = torch.nonzero(weight.triu(1) > 0, as_tuple=True)
    low, high = torch.minimum(tissue[first], tissue[second]), torch.maximum(tissue[first], tissue[second])
    middle, apart = (places[first] + places[second]) / 2, (places[first] - places[second]).abs()
    values, true, weights = (matrix[first, second].double().numpy() for matrix in (predicted, target, weight))
    along = (torch.cat([middle, apart], dim=1) / 100).double().numpy()
    return Pairs(values, true, weights, (low * 10 + high).numpy(), along)


def correlation_test(fitted: Sequence[Pairs], scored: Sequence[Pairs], resamples: int = 1000) -> dict[str, Any]:
    """R2 of the correlations by the model, by the mean of a pair of tissue classes, and by positions alone.

    The two controls are fitted on the validation scans. The mean of a pair reads the true tissue of both patches, also
    of hidden ones, which the model does not see. Passed if the model explains more than both, by intervals over scans.

    Args:
        fitted: Pairs of the validation scans.
        scored: Pairs of the test scans.
        resamples: Bootstrap resamples.
    """
    target = np.concatenate([each.target for each in fitted])
    weight = np.concatenate([each.weight for each in fitted])
    classes = np.concatenate([each.classes for each in fitted])
    mean = np.average(target, weights=weight)
    sums, counts = (np.bincount(classes, values, 100) for values in (weight * target, weight))
    of_pair = np.where(counts > 0, sums / np.maximum(counts, 1e-12), mean)
    rng = np.random.default_rng(0)
    drawn = [(each, rng.permutation(len(each.target))[:FITTED_PAIRS]) for each in fitted]
    of_places = MLPRegressor(hidden_layer_sizes=(64, 64), early_stopping=True, max_iter=60, random_state=0).fit(
        np.concatenate([each.places[at] for each, at in drawn]), np.concatenate([each.target[at] for each, at in drawn])
    )
    errors = np.array(
        [
            [
                np.sum(each.weight * (each.target - predicted) ** 2)
                for predicted in (mean, each.predicted, of_pair[each.classes], of_places.predict(each.places))
            ]
            for each in scored
            if len(each.target)
        ]
    )

    def explained(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        model, of_class, of_place = 1 - rows[:, 1:].sum(0) / rows[:, 0].sum()
        return np.array([model, of_class, of_place, model - of_class, model - of_place])

    interval = Bootstrap([str(scan) for scan in range(len(errors))], resamples).row_interval(explained, [errors])
    names = ("model", "pair_of_classes", "positions", "model_minus_pair_of_classes", "model_minus_positions")
    entries = {name: interval.entry(column) for column, name in enumerate(names)}
    return {**entries, "scans": len(errors), "passed": bool(interval.low[3] > 0 and interval.low[4] > 0)}


def lesion_size_test(losses: Sequence[Sequence[float]], volumes: Sequence[float]) -> dict[str, Any]:
    """The gap of the correlations over pairs with a patch of a lesion, by thirds of the scans by volume of lesions.

    Passed if the gap of the largest third is above that of the smallest one, by an interval over scans.
    """
    order = np.argsort(volumes, kind="stable")
    thirds = [np.array(losses)[part] for part in np.array_split(order, 3)]
    found = [
        {"scans": len(part), "largest_ml": float(np.array(volumes)[at].max()), **correlation_gap(part)}
        for part, at in zip(thirds, np.array_split(order, 3), strict=True)
    ]
    rng = np.random.default_rng(0)
    drawn = [
        [_gap(part[rng.integers(0, len(part), len(part))]) for _ in range(1000)] for part in (thirds[0], thirds[2])
    ]
    low, high = np.percentile(np.subtract(drawn[1], drawn[0]), [2.5, 97.5])
    growth = {"value": _gap(thirds[2]) - _gap(thirds[0]), "interval": [float(low), float(high)]}
    return {"thirds": found, "largest_minus_smallest": growth, "passed": bool(low > 0)}


def _gap(losses: NDArray[np.float64]) -> float:
    own, shuffled, without = losses.mean(axis=0)
    return float((shuffled - own) / without)


@torch.no_grad()
def shuffled_words_test(observer: Observer, read: Read, seed: int = 0) -> dict[str, Any]:
    """R@10 of the own report by the score ``set``, with the sentences as written and with their words in random order.

    Passed if shuffling lowers it, by an interval over scans; otherwise the texts are bags of words to the model.
    """
    rng = np.random.default_rng(seed)
    shuffled = [" ".join(rng.permutation(text.rstrip(".").split())) + "." * text.endswith(".") for text in read.texts]
    distinct = list(dict.fromkeys(shuffled))
    encoded = torch.cat(
        [observer.network.encode_text(distinct[at : at + 64], "sentence") for at in range(0, len(distinct), 64)]
    )
    place = {text: row for row, text in enumerate(distinct)}
    other = read.rows._replace(sentence=encoded[[place[text] for text in shuffled]])
    written, without_order = (found_reports(rows) for rows in (read.rows, other))
    scans = range(len(written))
    return {
        "written": float(np.mean(written)),
        "shuffled": float(np.mean(without_order)),
        "cosine_of_a_sentence_with_its_shuffled_words": float((read.rows.sentence * other.sentence).sum(1).mean()),
        **(verdict([float(a) - float(b) for a, b in zip(written, without_order, strict=True)], scans, 0.0) or {}),
    }


def found_reports(rows: Observations) -> list[bool]:
    """Whether the own report of each scan is among the first ``FOUND`` by the score ``set``; scans with a report."""
    weight = torch.where(rows.normal, NORMAL_WEIGHT, 1.0)
    of_report = torch.zeros(len(rows.pathology), len(rows.sentence))
    of_report[rows.owner, torch.arange(len(rows.sentence))] = weight
    given = of_report.any(dim=1)
    of_report = of_report[given] / of_report[given].sum(dim=1, keepdim=True)
    scores = (similarity(rows)[given] @ of_report.T).double().numpy()
    return [bool(rank <= FOUND) for rank in rank_of_own(scores)]
