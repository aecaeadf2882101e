"""The proxy task of correlation exploration: which patches of a scan are alike, given its report?"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.ctfindings.anatomy import THORAX
from bundle.ctfindings.networks.correlation_targets import (
    TISSUE_LIMITS_HU,
    correlations,
    intensity_statistics,
    patch_voxels,
    standardised,
    variance_hinge,
)
from bundle.ctfindings.networks.image.hounsfield_windows import CHEST_WINDOWS, HounsfieldWindows
from bundle.ctfindings.networks.image.observation_extractor import (
    WAVELENGTHS_MM,
    CrossAttentionBlock,
    cell_centres,
    position_code,
)
from bundle.ctfindings.networks.image.standardization import RunningStandardization
from bundle.ctfindings.step_keys import NetworkOutputs

TARGETS = ("residual", "raw", "covariance", "classes", "teacher")

VALIDATION_SEED = 0
"""Seed of the patches that are compared in evaluation mode."""


class CorrelationExplorer(nn.Module):
    """Predicts the correlations among patches of a scan from a part of its tokens and the observations of its report.

    The cross-modal correlation exploration of PLACE (Wang et al., https://arxiv.org/abs/2506.10573), our reading of its
    abstract, whose equations were not available. Some token positions are drawn, half of them from organs of which the
    report states an abnormality, and half of all are hidden. The target is the correlation of intensity statistics of
    the patches: mean, standard deviation and maximum in each HU window, standardised over the positions. Most of it
    follows from the tissue of two patches alone, so by default the mean over pairs of the same tissue classes is
    subtracted, and the remainder needs the report or the context. A teacher, a slow copy of the image tower, may give
    the features of the patches instead; then the outputs tell how evenly the token field uses its channels, because a
    constant teacher would be a solution.

    Args:
        tower: Image tower, for the size of its tokens.
        embedding: Size E of the shared space.
        spacing: Voxel size in mm along X, Y, Z.
        hu_window: HU range that the pipeline maps to [0, 1].
        target: "residual" correlation; "raw" correlation; "covariance" without unit rows; "classes", whether two
            patches are of the same tissue class; or "teacher", the residual correlation of the teacher's tokens.
        positions: Number of positions m.
        hidden_share: Share of hidden positions.
        hidden_in: Where they are hidden. "tokens": a learned vector replaces their tokens; those of their neighbours
            saw their voxels. "input": the tower also runs on the image with their voxels at 0, and the prediction
            reads the tokens of that pass.
        drop: Probability that the report is hidden from the prediction, which so learns to do without.
        sees_image: Whether the prediction reads the tokens; otherwise it reads the report alone, as a control.
        width: Width of the decoder.
        layers: Transformer blocks of the decoder.
        heads: Attention heads.

    Raises:
        ValueError: The target or ``hidden_in`` is unknown.
    """

    limits_hu: Tensor

    def __init__(
        self,
        tower: nn.Module,
        embedding: int,
        spacing: Sequence[float],
        hu_window: Sequence[float],
        target: str = "residual",
        positions: int = 256,
        hidden_share: float = 0.5,
        hidden_in: str = "tokens",
        drop: float = 0.1,
        sees_image: bool = True,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
    ) -> None:
        super().__init__()
        if target not in TARGETS:
            raise ValueError(f"target: expected one of {', '.join(TARGETS)}, got {target!r}")
        if hidden_in not in ("tokens", "input"):
            raise ValueError(f"hidden_in: expected 'tokens' or 'input', got {hidden_in!r}")
        self.target, self.hidden_in = target, hidden_in
        self.positions, self.hidden_share, self.drop, self.sees_image = positions, hidden_share, drop, sees_image
        self.stride: tuple[int, int, int] = tower.stride  # type: ignore[assignment]
        self.step_mm = [float(edge * size) for edge, size in zip(self.stride, spacing, strict=True)]
        self.hu_window = (float(hu_window[0]), float(hu_window[1]))
        self.width = width
        self.windows = HounsfieldWindows(hu_window, CHEST_WINDOWS)
        classes = len(TISSUE_LIMITS_HU) + 1
        self.pair_means = RunningStandardization(classes * classes, 1, momentum=0.01)
        self.register_buffer("limits_hu", torch.tensor(TISSUE_LIMITS_HU), persistent=False)
        # Normalised as the texts are: the entries of a unit row are small beside the code of its position.
        self.see = nn.Sequential(nn.LayerNorm(embedding), nn.Linear(embedding, width))
        self.read = nn.Sequential(nn.LayerNorm(embedding), nn.Linear(embedding, width))
        self.hidden = nn.Parameter(torch.zeros(width))
        self.no_report = nn.Parameter(torch.randn(width) * 0.02)
        self.blocks = nn.ModuleList(CrossAttentionBlock(width, heads, mutual=False) for _ in range(layers))
        self.project = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))

    def forward(
        self,
        image: Tensor,
        field: Tensor,
        membership: Tensor,
        grid: list[int],
        sentence: Tensor,
        sentence_count: Tensor,
        abnormal: Tensor,
        encode: Callable[[Tensor], Tensor],
        taught: Tensor | None = None,
    ) -> NetworkOutputs:
        """What ``CorrelationExplorationLoss`` reads; in evaluation mode also the predictions of its controls.

        Args:
            image: ``[B, 1, X, Y, Z]`` in [0, 1].
            field: Token field ``[B, N, E]``.
            membership: Anatomies of the tokens, bool ``[B, N, K]``.
            grid: ``[gx, gy, gz]``.
            sentence: Text rows of the observations of all scans, ``[S, E]``; no gradient reaches them.
            sentence_count: Observations of each scan, ``[B]``.
            abnormal: Anatomies of which the report states an abnormality, bool ``[B, K]``.
            encode: Gives the token field of an image, for ``hidden_in`` "input".
            taught: Token field of the teacher, ``[B, N, E]``, for the target "teacher".
        """
        generator = None if self.training else torch.Generator().manual_seed(VALIDATION_SEED)
        body = membership[:, :, THORAX]
        index, counted = self._draw(body, membership, abnormal, generator)
        hidden = (torch.rand(index.shape, generator=generator) < self.hidden_share).to(index.device)
        members = _at(membership, index)
        places = _at(cell_centres(grid, self.step_mm, body), index)

        tokens = read = _at(field, index)
        if self.hidden_in == "input":
            read = _at(encode(_masked(image, index, hidden, grid)), index)
        seen = self.see(read)
        seen = torch.where(hidden.unsqueeze(2) | (not self.sees_image), self.hidden.to(seen.dtype), seen)
        query = seen + position_code(places, self.width, *WAVELENGTHS_MM).to(seen.dtype)
        texts, given = _by_scan(sentence.detach(), sentence_count)
        dropped = (torch.rand(len(image)) < self.drop).to(given.device) if self.training else None
        outputs: NetworkOutputs = {
            "correlation": self._predict(query, counted, texts, given, dropped),
            "correlation_target": self.targets(image, index, counted, taught),
            "correlation_weight": pair_weights(members, hidden, counted & (sentence_count > 0).unsqueeze(1)),
            "variance_hinge": field.new_zeros(len(field)) if taught is None else variance_hinge(tokens, counted),
        }
        if not self.training:
            outputs["correlation_positions"] = index
            outputs["correlation_without_report"] = self._predict(query, counted, texts, given & False)
            outputs["correlation_shuffled"] = self._predict(query, counted, texts.roll(1, 0), given.roll(1, 0))
        return outputs

    def _draw(
        self, body: Tensor, membership: Tensor, abnormal: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Indices of m tokens of each scan, ``[B, m]``, and which of them lie in the body."""
        key = torch.rand(body.shape, generator=generator).to(body.device)
        named = (membership & abnormal.unsqueeze(1)).any(dim=2) & body
        named = torch.where(named.any(dim=1, keepdim=True), named, body)
        count = min(self.positions, body.shape[1])
        first = key.masked_fill(~named, -1.0).topk(count // 2, dim=1).indices
        preferred = torch.zeros_like(body).scatter(1, first, True) & named
        # Tokens outside the body fill up a scan that has too few, and do not count.
        index = (key + preferred.float() - body.logical_not().float()).topk(count, dim=1).indices
        return index, body.gather(1, index)

    def _predict(
        self, query: Tensor, counted: Tensor, texts: Tensor, given: Tensor, dropped: Tensor | None = None
    ) -> Tensor:
        """Correlations ``[B, m, m]`` from queries and the observations of each scan, ``[B, s, E]`` where given."""
        if dropped is not None:
            given = given & ~dropped.unsqueeze(1)
        keys = torch.cat(
            [self.no_report.expand(len(texts), 1, -1).to(query.dtype), self.read(texts).to(query.dtype)], 1
        )
        seen = torch.cat([~given.any(dim=1, keepdim=True), given], dim=1).unsqueeze(1)
        for block in self.blocks:
            query = block(query, keys, seen)
        return correlations(self.project(query), counted)

    def targets(self, image: Tensor, index: Tensor, counted: Tensor, taught: Tensor | None = None) -> Tensor:
        """The correlations to predict, ``[B, m, m]``, of tokens ``[B, m]`` of which bool ``[B, m]`` count.

        ``taught`` are the tokens of the teacher, ``[B, N, E]``, for the target "teacher".
        """
        # In single precision, which counts the pairs of positions exactly.
        with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
            voxels = patch_voxels(image.float(), self.stride, index)
            low, high = self.hu_window
            tissue = torch.bucketize(voxels.mean(dim=2) * (high - low) + low, self.limits_hu)
            classes = F.one_hot(tissue, len(self.limits_hu) + 1).to(torch.float32)
            if self.target == "classes":
                return correlations(classes, counted)
            features = intensity_statistics(voxels, self.windows) if taught is None else _at(taught.float(), index)
            target = correlations(standardised(features, counted), counted, self.target != "covariance")
            if self.target in ("raw", "covariance"):
                return target
            pairs = classes * counted.unsqueeze(2)
            apart = 1 - torch.eye(index.shape[1], device=image.device)
            total = pairs.transpose(1, 2) @ (target * apart) @ pairs
            count = pairs.transpose(1, 2) @ apart @ pairs
            self.pair_means((total / count.clamp(min=1)).flatten(1).unsqueeze(2), count.flatten(1) > 0)
            mean = self.pair_means.mean.view(classes.shape[2], classes.shape[2])
            return target - classes @ mean @ classes.transpose(1, 2)


def pair_weights(members: Tensor, hidden: Tensor, counted: Tensor) -> Tensor:
    """Weight of each pair of positions, ``[B, m, m]``: 2 in one organ, otherwise 1; 0 for pairs that do not count.

    Args:
        members: Anatomies of the positions, bool ``[B, m, K]``; thorax is no organ.
        hidden: Hidden positions, bool ``[B, m]``; a pair has at least one.
        counted: Positions that count, bool ``[B, m]``.
    """
    organs = members.to(torch.float32)
    organs[:, :, THORAX] = 0
    weight = 1 + (organs @ organs.transpose(1, 2) > 0).to(torch.float32)
    pairs = (hidden.unsqueeze(2) | hidden.unsqueeze(1)) & counted.unsqueeze(2) & counted.unsqueeze(1)
    return weight * pairs * (1 - torch.eye(members.shape[1], device=members.device))


def _at(rows: Tensor, index: Tensor) -> Tensor:
    """The rows ``[B, N, F]`` of tokens ``[B, m]``, ``[B, m, F]``."""
    return rows.gather(1, index.unsqueeze(2).expand(-1, -1, rows.shape[2]))


def _masked(image: Tensor, index: Tensor, hidden: Tensor, grid: list[int]) -> Tensor:
    """The image with 0, air, in the voxels of the tokens ``[B, m]`` that are hidden, bool ``[B, m]``."""
    cells = hidden.new_zeros(len(image), math.prod(grid)).scatter(1, index, hidden).view(-1, 1, *grid)
    voxels = F.interpolate(cells.to(image.dtype), size=image.shape[2:], mode="nearest")
    return image.masked_fill(voxels > 0, 0.0)


def _by_scan(sentence: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Rows ``[S, E]`` of all scans by scan, ``[B, s, E]``, and which of them exist, bool ``[B, s]``."""
    given = torch.arange(int(count.max()), device=count.device) < count.unsqueeze(1)
    texts = sentence.new_zeros(*given.shape, sentence.shape[1])
    return texts.masked_scatter(given.unsqueeze(2), sentence), given
