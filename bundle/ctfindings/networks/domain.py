"""How far a scan is from the training scans: features of its anatomies, and their distance to the training scans'.

Shapes: B scans, K anatomies, N tokens, E embedding, F features, X Y Z voxels.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.ctfindings.anatomy import ANATOMIES
from bundle.ctfindings.networks.checkpoint import read_checkpoint
from bundle.ctfindings.networks.image.image_encoder import ImageEmbedding

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of the texture over the tokens of an anatomy."""


class DomainScore(NamedTuple):
    """Distance of a scan to the training scans; 1 is that of a typical scan that was held out."""

    score: Tensor  # root mean square over the anatomies that the scan shows
    anatomy: Tensor  # [K]; NaN for an anatomy that the scan does not show, or that no training scan shows


def domain_features(image: Tensor, encoded: ImageEmbedding, stride: Sequence[int], body: Tensor) -> Tensor:
    """Features of each anatomy: quantiles of its texture, the logarithm of its tokens, and its mean embedding.

    The anatomies are those of the anatomy head, without margin. Embeddings that were trained for findings ignore much
    of what tells one scanner, or a drawn scan, from another; texture does not.

    Args:
        image: ``[B, 1, X, Y, Z]`` in [0, 1].
        encoded: The same scans, with a token field ``[B, N, E]``.
        stride: Voxels of a token along X, Y, Z.
        body: Tokens inside the body, bool ``[B, N]``.

    Returns:
        ``[B, K, F]``, NaN for an anatomy without tokens.
    """
    found = texture(image, stride)
    levels = torch.tensor(QUANTILES, dtype=found.dtype, device=found.device)
    features = found.shape[2] * len(QUANTILES) + 1 + encoded.field.shape[2]
    result = found.new_full((found.shape[0], len(ANATOMIES), features), torch.nan)
    members = (encoded.anatomy_logits > 0) & body.unsqueeze(-1)
    for scan, row in members.any(dim=1).nonzero().tolist():
        own = members[scan, :, row]
        quantiles = found[scan, own].quantile(levels, dim=0).flatten()
        size = own.sum().to(found.dtype).log().unsqueeze(0)
        result[scan, row] = torch.cat([quantiles, size, encoded.field[scan, own].mean(dim=0)])
    return result


def texture(image: Tensor, stride: Sequence[int]) -> Tensor:
    """Mean, standard deviation, and mean absolute differences of neighbours along X, Y, Z, of each token's voxels.

    Args:
        image: ``[B, 1, X, Y, Z]`` in [0, 1]; extents are multiples of ``stride``.
        stride: Voxels of a token along X, Y, Z.

    Returns:
        ``[B, N, 5]``, tokens in C order; all but the mean as logarithms.
    """
    size = [int(step) for step in stride]
    mean = F.avg_pool3d(image, size)
    spread = [(F.avg_pool3d(image * image, size) - mean * mean).clamp(min=0).sqrt()]
    for axis in (2, 3, 4):
        last = image.narrow(axis, image.shape[axis] - 1, 1)
        spread.append(F.avg_pool3d(image.diff(dim=axis, append=last).abs(), size))
    # One thousandth of the HU window is below the noise of any scan.
    return torch.cat([mean, *((part + 1e-3).log() for part in spread)], dim=1).flatten(2).transpose(1, 2)


class Domain(nn.Module):
    """The distribution of the training scans, one Gaussian for each anatomy; kept in the checkpoint.

    Empty until it is loaded or fitted (``evaluation.domain.fit_domain``): a checkpoint without it has no domain.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mean: Tensor  # [K, F]
        self.precision: Tensor  # [K, F, F]: inverse of the shrunk covariance, scaled so that a typical distance is 1
        self.threshold: Tensor  # score above which a scan is outside
        self.anatomy_threshold: Tensor  # [K]: the same for one anatomy; NaN if the training scans do not show it
        self.scans: Tensor  # number of scans that it was fitted on
        for name in ("mean", "precision", "threshold", "anatomy_threshold", "scans"):
            self.register_buffer(name, torch.zeros(0))

    @property
    def fitted(self) -> bool:
        """Whether there is a domain."""
        return self.mean.numel() > 0

    def score(self, features: Tensor) -> DomainScore:
        """The distance of one scan with the features ``[K, F]`` of ``domain_features``."""
        away = (features - self.mean).to(self.precision.dtype)
        squared = torch.einsum("kf,kfg,kg->k", away, self.precision, away)
        return DomainScore(squared.nanmean().sqrt(), squared.sqrt())

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Takes the tensors of a checkpoint in their own shape, and is empty again without any."""
        for name, buffer in list(self._buffers.items()):
            found = state_dict.get(f"{prefix}{name}")
            self._buffers[name] = torch.zeros(0) if found is None else found.detach().clone().to(buffer)


def load_domain(ckpt_path: str | Path) -> Domain:
    """The domain of a checkpoint, on the CPU; empty if the checkpoint has none."""
    domain = Domain()
    state = read_checkpoint(Path(ckpt_path))
    domain.load_state_dict({key[7:]: part for key, part in state.items() if key.startswith("domain.")})
    return domain
