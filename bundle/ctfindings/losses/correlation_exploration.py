"""The correlation objective: are the correlations among patches of a scan those that its report lets expect?"""

from torch import Tensor
from torch.nn import functional as F

from bundle.ctfindings.losses.means import MeanLoss, with_counts


class CorrelationExplorationLoss(MeanLoss):
    """Smooth L1 distance of predicted and true correlations among the patches of a scan, and a floor of variance.

    The cross-modal correlation exploration of PLACE (Wang et al., https://arxiv.org/abs/2506.10573), our reading of its
    abstract, since its equations were not available. ``CorrelationExplorer`` predicts the correlations and has the
    targets. Patches are compared within a scan only, so nothing is gathered over ranks. If a teacher gives the targets,
    one that is constant would be a solution; the variance hinge of the token field, which the teacher follows, is then
    part of the loss.

    Args:
        beta: Difference at which the loss turns from quadratic to linear.
        variance_weight: Weight of the variance hinge.
    """

    inputs: tuple[str, ...] = ("correlation", "correlation_target", "correlation_weight", "variance_hinge")

    def __init__(self, beta: float = 0.1, variance_weight: float = 1.0) -> None:
        super().__init__()
        if not beta > 0:
            raise ValueError(f"beta: expected a positive number, got {beta}")
        if not variance_weight >= 0:
            raise ValueError(f"variance_weight: expected a number of at least 0, got {variance_weight}")
        self.beta, self.variance_weight = beta, variance_weight

    def means(
        self, correlation: Tensor, correlation_target: Tensor, correlation_weight: Tensor, variance_hinge: Tensor
    ) -> Tensor:
        """The loss and its count of scans, ``[1, 2]``."""
        counted = correlation_weight.sum(dim=(1, 2)) > 0
        if not counted.any():
            return correlation.new_zeros(1, 2)
        losses = self.of_scans(correlation[counted], correlation_target[counted], correlation_weight[counted])
        losses = losses + self.variance_weight * variance_hinge[counted]
        return with_counts([losses.mean()], [counted.sum()])

    def of_scans(self, correlation: Tensor, correlation_target: Tensor, correlation_weight: Tensor) -> Tensor:
        """The distance in each scan, (B,); NaN without a pair."""
        distance = F.smooth_l1_loss(correlation, correlation_target, reduction="none", beta=self.beta)
        return (distance * correlation_weight).sum(dim=(1, 2)) / correlation_weight.sum(dim=(1, 2))
