"""The text separation objective: captions of different anatomies must not collapse onto one point."""

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss

from bundle.ctfindings.losses.gathering import gather_rows
from bundle.ctfindings.losses.pairs import anatomies_left, other_anatomies


class TextSeparationLoss(_Loss):
    """Pushes text embeddings of different anatomies apart, over the joined batch of all ranks.

    For each caption, ``log(1 + mean over captions b of other anatomies of exp((cos - margin) / temperature))``; the
    mean over captions. Captions that share a sentence, and that of the thorax, are left out as in `CrossAnatomyLoss`.
    Our reading of CA-GCL's abstract (https://arxiv.org/abs/2605.13544), whose equations were not
    available. It only repels: pulling the captions of an anatomy together would erase what they say about disease.

    Args:
        margin: Cosine similarity below which the repulsion fades.
        temperature: Divides the cosine similarity minus the margin.
        excluded: Names of the anatomies that do not take part.
    """

    inputs: tuple[str, ...] = ("caption", "caption_valid", "caption_sentences")
    gathers = True

    def __init__(self, margin: float = 0.0, temperature: float = 0.1, excluded: Sequence[str] = ("thorax",)) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature: expected a positive number, got {temperature}")
        self.margin = margin
        self.temperature = temperature
        self.excluded = tuple(excluded)

    def forward(self, caption: Tensor, caption_valid: Tensor, caption_sentences: Tensor | None = None) -> Tensor:
        """The mean over captions with another to be apart from; zero, without gradient, if there is none.

        Without ``caption_sentences``, all captions of other anatomies count.
        """
        sentences = None if caption_sentences is None else gather_rows(caption_sentences)[0]
        caption, valid = gather_rows(caption, caption_valid)
        valid = anatomies_left(valid, self.excluded)
        other = other_anatomies(valid.nonzero()[:, 1], None if sentences is None else sentences[valid])
        rows = other.any(dim=1)
        if not rows.any():
            return caption.new_zeros(())
        text, other = caption[valid], other[rows]
        repulsion = ((text[rows] @ text.T - self.margin) / self.temperature).masked_fill(~other, -math.inf)
        mean = repulsion.logsumexp(dim=1) - other.sum(dim=1).to(text.dtype).log()
        return F.softplus(mean).mean()
