"""The report objective: which report belongs to which scan, one yes-or-no question for each pair of the batch."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss

from bundle.ctfindings.losses.gathering import gather_rows


class SigLIPLoss(_Loss):
    """Sigmoid contrast of scans and reports over the joined batch of all ranks, with a learned scale and bias.

    Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023, https://arxiv.org/abs/2303.15343, as used by
    Ging et al., "Learning to Read Where to Look" (RadFinder), MICCAI 2026, https://arxiv.org/abs/2603.02026. The logit
    of scan i and report j is ``exp(log_scale) cos(i, j) + bias``; the loss is the mean over scans of the sum over
    reports of ``-log sigmoid(+-logit)``, plus for its own report and minus for every other. A pair of scans with the
    same report text (two reconstructions of one examination) is left out; RadFinder draws one scan for each report.

    Scale and bias are parameters of this module: give them to the optimizer, without weight decay. Every rank sees the
    joined batch, so their gradient is the same on all ranks and needs no exchange.

    Args:
        scale: Initial factor on the cosine.
        bias: Initial bias; -10 starts with nearly all pairs negative.
    """

    inputs: tuple[str, ...] = ("scan", "scan_valid", "report", "report_valid", "report_id")
    gathers = True

    def __init__(self, scale: float = 10.0, bias: float = -10.0) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"scale: expected a positive number, got {scale}")
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def forward(
        self, scan: Tensor, scan_valid: Tensor, report: Tensor, report_valid: Tensor, report_id: Tensor
    ) -> Tensor:
        """The mean over scans with a report; zero, without gradient, if there is none."""
        valid = scan_valid & report_valid
        scan, report, valid, report_id = gather_rows(scan, report, valid, report_id)
        if not valid.any():
            return scan.new_zeros(())
        scan, report, report_id = scan[valid], report[valid], report_id[valid]
        logits = scan @ report.T * self.log_scale.exp() + self.bias
        own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        counted = own | (report_id[:, None] != report_id)
        # -log sigmoid(z) is softplus(-z).
        return (F.softplus(torch.where(own, -logits, logits)) * counted).sum(dim=1).mean()
