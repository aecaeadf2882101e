"""The prototype objective: image and caption rows are closest to the prototype of their anatomy."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss

from bundle.ctfindings.losses.gathering import gather_rows
from bundle.ctfindings.losses.pairs import anatomies_left


class AnatomyPrototypeLoss(_Loss):
    """Cross-entropy of image and text rows against one prototype per anatomy, over the joined batch of all ranks.

    For each valid (scan, anatomy) pair a, ``CE(softmax_k(t_a . mu_k / tau), anatomy of a)`` plus the same of its image
    row; the mean over pairs. Only the direction towards prototypes counts; the orthogonal space is free for disease.
    An alternative to `CrossAnatomyLoss`, whose negatives are the rows of the batch; our reading of CA-GCL's abstract
    (https://arxiv.org/abs/2605.13544), whose equations were not available.

    With "ema", a prototype starts as the mean direction of the first batch with its anatomy, then follows the mean of
    image and text rows, without gradient. With "learnable", prototypes start orthogonal and are parameters of this
    loss; give them to the optimizer. Both are part of the state dictionary. Every rank sees the joined batch, so
    prototypes stay equal on all ranks.

    Args:
        anatomies: Number of prototypes K.
        embedding: Size E of the shared space.
        kind: "ema" or "learnable".
        decay: Decay of the moving average, in [0, 1).
        temperature: Divides the cosine similarities.
        excluded: Anatomies without a prototype, such as the thorax, whose caption has the sentences of the others.
    """

    inputs: tuple[str, ...] = ("anatomy", "anatomy_valid", "caption", "caption_valid")
    gathers = True
    seen: Tensor

    def __init__(
        self,
        anatomies: int,
        embedding: int,
        kind: Literal["ema", "learnable"] = "ema",
        decay: float = 0.99,
        temperature: float = 0.1,
        excluded: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if kind not in ("ema", "learnable"):
            raise ValueError(f"kind: expected 'ema' or 'learnable', got {kind!r}")
        if not 0 <= decay < 1:
            raise ValueError(f"decay: expected a number from 0 to below 1, got {decay}")
        if temperature <= 0:
            raise ValueError(f"temperature: expected a positive number, got {temperature}")
        if embedding < anatomies:
            raise ValueError(
                f"{anatomies} orthogonal prototypes do not fit into {embedding} dimensions; raise the embedding size"
            )
        self.kind = kind
        self.decay = decay
        self.temperature = temperature
        # Not drawn at random: ranks must start equal whatever their seeds.
        start = torch.eye(anatomies, embedding)
        if kind == "learnable":
            self.prototypes: Tensor = nn.Parameter(start)
        else:
            self.register_buffer("prototypes", start)
        self.excluded = tuple(excluded)
        every = torch.full((1, anatomies), kind == "learnable")
        self.register_buffer("seen", anatomies_left(every, self.excluded)[0])

    def forward(self, anatomy: Tensor, anatomy_valid: Tensor, caption: Tensor, caption_valid: Tensor) -> Tensor:
        """The mean over pairs; zero, without gradient, without a pair or while fewer than two prototypes exist."""
        anatomy, caption, valid = gather_rows(anatomy, caption, anatomy_valid & caption_valid)
        valid = anatomies_left(valid, self.excluded)
        organ = valid.nonzero()[:, 1]
        if organ.numel() == 0:
            return anatomy.new_zeros(())
        image, text = anatomy[valid], caption[valid]
        if self.kind == "ema" and torch.is_grad_enabled():
            self._follow(image.detach(), text.detach(), organ)
        # The trainer moves the network to its device, not the loss.
        seen = self.seen.to(text.device)
        if int(seen.sum()) < 2 or not bool(seen[organ].all()):
            # A prototype that training has not seen cannot be compared with.
            return anatomy.new_zeros(())
        prototypes = F.normalize(self.prototypes, dim=-1).to(text)
        logits = torch.cat([text, image]) @ prototypes.T / self.temperature
        # Twice the mean over both modalities is the sum of their means.
        return 2 * F.cross_entropy(logits.masked_fill(~seen, -torch.inf), organ.repeat(2))

    @torch.no_grad()
    def _follow(self, image: Tensor, text: Tensor, organ: Tensor) -> None:
        """Moves the prototypes of the anatomies in the batch towards the mean direction of their rows."""
        belongs = F.one_hot(organ, len(self.seen)).to(text.dtype)
        mean = F.normalize(belongs.T @ (image + text), dim=-1).to(self.prototypes)
        present = belongs.any(dim=0).to(self.seen.device)
        moved = F.normalize(self.decay * self.prototypes + (1 - self.decay) * mean, dim=-1)
        updated = torch.where(self.seen[:, None], moved, mean)
        self.prototypes.copy_(torch.where(present[:, None], updated, self.prototypes))
        self.seen |= present
