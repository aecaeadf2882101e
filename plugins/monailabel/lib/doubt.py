"""How unsure the model is of a scan, from its findings record alone."""

import math
from dataclasses import dataclass, field

from bundle.ctfindings.inference.findings_record import FindingsRecord

_CLOSEST = 1e-6
"""To 0 and 1, of a probability whose logit is taken."""


@dataclass(frozen=True, order=True)
class Doubt:
    """Ordered: every scan outside the domain is before those inside.

    Attributes:
        outside_domain: whether the scan is unlike those that the weights were trained on.
        entropy: of the decisions present or absent, mean over the findings with a threshold, in bits: 1 where each
            probability is its threshold, 0 where all are sure.
        present: number of present findings; not compared.
    """

    outside_domain: bool
    entropy: float
    present: int = field(default=0, compare=False)


def doubt_of(record: FindingsRecord) -> Doubt:
    """The uncertainty of Lewis and Gale (SIGIR 1994), with the threshold of each finding in place of one half."""
    domain = record.domain
    entropies = [
        _entropy(_logit(answer.probability) - _logit(answer.threshold))
        for answer in record.findings
        if answer.anatomy_found and 0 < answer.threshold < 1
    ]
    mean = sum(entropies) / len(entropies) if entropies else 0.0
    present = sum(bool(answer.present) for answer in record.findings)
    return Doubt(domain is not None and not domain.inside, mean, present)


def _logit(probability: float) -> float:
    clipped = min(max(float(probability), _CLOSEST), 1 - _CLOSEST)
    return math.log(clipped / (1 - clipped))


def _entropy(logit: float) -> float:
    """In bits, of a decision with that logit."""
    sure = 1 / (1 + math.exp(-abs(logit)))
    return -sum(share * math.log2(share) for share in (sure, 1 - sure) if share > 0)
