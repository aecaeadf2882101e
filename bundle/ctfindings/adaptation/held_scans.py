"""Tokens of a frozen tower inside the anatomies of each scan, held in memory.

Shapes: S scans, B scans of a batch, N tokens, K anatomies, d width of a token.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor, nn

from bundle.ctfindings.adaptation.frozen_tower import frozen_levels
from bundle.ctfindings.adaptation.last_stage import LastStage
from bundle.ctfindings.data.scan_cache import CachedStudies
from bundle.ctfindings.files.progress import progress_bar
from bundle.ctfindings.inference.encoding import scan_body
from bundle.ctfindings.networks.image.image_encoder import ImageEncoder
from bundle.ctfindings.networks.image.resnet_tower import joined_tokens
from bundle.ctfindings.networks.image.standardization import RunningStandardization

PCA_TOKENS = 20_000
"""Tokens of all scans together on which the principal components are fitted."""


class HeldBatch(NamedTuple):
    """The scans of a step; tokens are padded by such of no anatomy."""

    pooled: Tensor  # Standardised features of the anatomies, [B, K, 3 d]
    valid: Tensor  # bool [B, K]
    tokens: Tensor  # Without the share of the trained blocks, if there are any, [B, N, d]
    members: Tensor  # bool [B, N, K]
    # Of trained blocks, see ``LastStage``
    stage_inputs: Tensor | None  # [B, C, ...]
    places: Tensor | None  # Index of the tokens in the grid, [B, N]
    grid: list[int]


@dataclass
class HeldScans:
    """What the head reads of each scan; scans differ in the number of tokens."""

    pooled: Tensor  # Standardised features of the anatomies, [S, K, 3 d]
    valid: Tensor  # bool [S, K]
    tokens: list[Tensor]  # Finest tokens that some anatomy has, half, [n, d]
    memberships: list[Tensor]  # bool [n, K]
    # Of trained blocks, see ``LastStage``; the tokens are then without their share.
    stage_inputs: list[Tensor] = field(default_factory=list)  # half [C, ...]
    places: list[Tensor] = field(default_factory=list)  # Index of the tokens in the grid, [n]
    grid: list[int] = field(default_factory=list)

    def of(self, scans: NDArray[np.int64]) -> Self:
        """Some of the scans, by index."""
        rows = torch.from_numpy(scans)
        names = ("tokens", "memberships", "stage_inputs", "places")
        lists = {name: getattr(self, name) for name in names}
        chosen = {name: [part[scan] for scan in scans] if part else [] for name, part in lists.items()}
        return replace(self, pooled=self.pooled[rows], valid=self.valid[rows], **chosen)

    def batch(self, scans: NDArray[np.int64], with_tokens: bool = True) -> HeldBatch:
        """Some of the scans, by index; without tokens, only the first one of each scan is given."""
        rows, last = torch.from_numpy(scans), None if with_tokens else 1
        tokens, members = (
            nn.utils.rnn.pad_sequence([part[scan][:last] for scan in scans], batch_first=True)
            for part in (self.tokens, self.memberships)
        )
        inputs = places = None
        if self.stage_inputs:
            inputs = torch.stack([self.stage_inputs[scan] for scan in scans]).float()
            places = nn.utils.rnn.pad_sequence([self.places[scan] for scan in scans], batch_first=True)
        return HeldBatch(self.pooled[rows], self.valid[rows], tokens.float(), members, inputs, places, self.grid)


def hold_scans(image: ImageEncoder, dataset: CachedStudies, stage: LastStage | None = None) -> HeldScans:
    """The tokens of cached scans in the anatomies that inference would give them, without masks.

    Args:
        image: Image encoder.
        dataset: Studies from the cache.
        stage: Blocks of the tower that will be trained.
    """
    rows, tokens, inside = [], [], []
    inputs, places, grid = [], [], []
    for index in progress_bar(range(len(dataset)), "tokens", unit="scan"):
        study = dataset[index]
        with torch.no_grad():
            levels, grids = frozen_levels(image.tower, study)
            members = image.anatomy_logits(study["image"][None].float(), levels[0]) > 0
            members = members & scan_body(study, image.stride).unsqueeze(-1)
            memberships = image.memberships(members, grids)
            rows.append(image.anatomy_pooling.features(levels, memberships))
            finest = levels[0]
            if stage is not None:
                third = study["third_stage"][None].float()
                finest, grid = stage.fixed_part(third), grids[0]
                inputs.append(stage.inputs(third)[0].half())
        used = memberships[0][0].any(dim=1)
        tokens.append(finest[0][used].half())
        inside.append(memberships[0][0][used])
        if stage is not None:
            places.append(used.nonzero()[:, 0])
    pooled, valid = (torch.cat(parts) for parts in zip(*rows, strict=True))
    pooled = _standardized(image.anatomy_pooling.standardize, pooled, valid)
    return HeldScans(pooled, valid, tokens, inside, inputs, places, grid)


def _standardized(standardize: RunningStandardization, pooled: Tensor, valid: Tensor) -> Tensor:
    """The features after the statistics were set to those of the scans; these use no label."""
    counted = valid.unsqueeze(-1).to(pooled.dtype)
    known = counted.sum(0).clamp(min=1)
    standardize.mean.copy_((pooled * counted).sum(0) / known)
    standardize.variance.copy_(((pooled - standardize.mean) ** 2 * counted).sum(0) / known)
    standardize.batches.fill_(1)
    with torch.no_grad():
        standardized: Tensor = standardize.eval()(pooled, valid)
    return standardized


def fit_reduction(tower: nn.Module, dataset: CachedStudies, stride: Sequence[int], seed: int) -> float:
    """Fits the linear map of a ``ResNetTower`` to whitened principal components of body tokens; uses no label.

    Returns:
        The share of the variance of the tokens that the components explain.
    """
    random, rows = np.random.default_rng(seed), []
    for index in progress_bar(range(len(dataset)), "principal components", unit="scan"):
        study = dataset[index]
        tokens, _ = joined_tokens(*(study[f"{which}_stage"][None].float() for which in ("third", "fourth")))
        inside = np.flatnonzero(scan_body(study, stride)[0].numpy())
        drawn = random.permutation(inside)[: PCA_TOKENS // len(dataset)]
        rows.append(tokens[0, torch.from_numpy(drawn)].numpy())
    reduce: nn.Linear = tower.reduce  # type: ignore[assignment]
    fitted = PCA(reduce.out_features, svd_solver="randomized", random_state=seed).fit(np.concatenate(rows))
    weight = torch.from_numpy(fitted.components_ / np.sqrt(fitted.explained_variance_)[:, None])
    with torch.no_grad():
        reduce.weight.copy_(weight)
        reduce.bias.copy_(-weight @ torch.from_numpy(fitted.mean_).to(weight.dtype))
    return float(fitted.explained_variance_ratio_.sum())
