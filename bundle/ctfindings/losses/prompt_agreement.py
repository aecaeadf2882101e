"""The prompt agreement objective: all wordings of a statement agree, and differ from its denial."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.modules.loss import _Loss

from bundle.ctfindings.findings import FINDING_NAMES


class PromptAgreementLoss(_Loss):
    """Supervised contrast of the drawn wordings of all findings; a statement and its denial are two classes.

    For each wording ``-mean over wordings p of its class of log(exp(s_p) / sum over all other wordings a of exp(s_a))``
    with ``s = cosine / temperature``; the mean over wordings. The form is that of Khosla et al., "Supervised
    Contrastive Learning" (https://arxiv.org/abs/2004.11362); its use on prompts is ours. It makes zero-shot answers
    less sensitive to the wording, and teaches the text head findings that the scans of a batch do not show. Each rank
    takes its own draw.

    Args:
        temperature: Divides the cosine similarity.
        excluded: Names of findings whose wordings take no part.
    """

    inputs: tuple[str, ...] = ("prompt_drawn",)

    def __init__(self, temperature: float = 0.1, excluded: Sequence[str] = ()) -> None:
        super().__init__()
        if unknown := sorted(set(excluded) - set(FINDING_NAMES)):
            raise ValueError(f"excluded: expected names of findings, got {unknown[0]!r}")
        self.kept = [index for index, name in enumerate(FINDING_NAMES) if name not in excluded]
        self.excludes = bool(excluded)
        if temperature <= 0:
            raise ValueError(f"temperature: expected a positive number, got {temperature}")
        self.temperature = temperature

    def forward(self, prompt_drawn: Tensor) -> Tensor:
        """The mean over wordings; zero, without gradient, for a single scan."""
        if self.excludes:
            prompt_drawn = prompt_drawn[:, :, self.kept]
        polarities, draws, findings, _ = prompt_drawn.shape
        if draws < 2:
            return prompt_drawn.new_zeros(())
        # Draws first, so that the class of a wording is its place in a block.
        wordings = prompt_drawn.transpose(0, 1).flatten(0, 2)
        place = torch.arange(polarities * findings, device=wordings.device).repeat(draws)
        itself = torch.eye(len(wordings), dtype=torch.bool, device=wordings.device)
        similarity = (wordings @ wordings.T / self.temperature).masked_fill(itself, float("-inf"))
        log_share = similarity - similarity.logsumexp(dim=1, keepdim=True)
        same = (place[:, None] == place) & ~itself
        return -log_share.masked_fill(~same, 0.0).sum(1).mean() / (draws - 1)
