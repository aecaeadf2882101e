"""Whether an answer can be given: the scan has to be like the training scans and to show the anatomy."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bundle.ctfindings.inference.encoding import EncodedScan
from bundle.ctfindings.inference.findings_record import Answer, DomainAnswer, FindingAnswer
from bundle.ctfindings.networks.classifier import NO_THRESHOLD

OUTSIDE_DOMAIN_CHOICES = ("withhold", "warn")
NO_LUNG_LITRES = 0.3
"""With less air-filled lung, nothing of the lung is assessed."""
FEW_SCANS = 100
"""A domain that was fitted on fewer training scans is warned of."""


@dataclass(frozen=True)
class Assessment:
    """The rules of a service; for the arguments see ``FindingsService``."""

    min_lung_litres: float = 0.0
    outside_domain: str = "withhold"

    def __post_init__(self) -> None:
        if self.outside_domain not in OUTSIDE_DOMAIN_CHOICES:
            choices = " or ".join(OUTSIDE_DOMAIN_CHOICES)
            raise ValueError(f"outside_domain: expected {choices}, got {self.outside_domain!r}")

    def of(self, answer: Answer, scan: EncodedScan) -> Answer:
        """The answer; one that cannot be given says why, and a finding is then neither present nor absent."""
        if (reason := self._obstacle(answer, scan)) is None:
            return answer
        if isinstance(answer, FindingAnswer):
            return replace(answer, present=None, not_assessed=reason)
        return replace(answer, percentile=None, not_assessed=reason)

    def withholds(self, scan: EncodedScan) -> bool:
        """Whether nothing is said of a scan, because it is outside the domain of the weights."""
        return scan.domain is not None and not scan.domain.inside and self.outside_domain == "withhold"

    def _obstacle(self, answer: Answer, scan: EncodedScan) -> str | None:
        """A query is judged by its nearest finding, which says the anatomy too."""
        if self.withholds(scan):
            return "the scan is unlike the training scans"
        if isinstance(answer, FindingAnswer) and answer.threshold >= NO_THRESHOLD:
            return "no threshold could be fitted: too few scans with and without this finding, or an AUC at chance"
        name = answer.name if isinstance(answer, FindingAnswer) else answer.nearest_findings[0].name
        if name in scan.unseen:
            return "the values of the scan were clipped below the density of this finding"
        if not answer.anatomy_found:
            return f"{answer.anatomy} was not found in the scan"
        if answer.anatomy == "lung" and scan.regions.lung_litres < NO_LUNG_LITRES:
            return f"the scan shows {scan.regions.lung_litres:.1f} litres of air-filled lung"
        return None

    def notice(self, domain: DomainAnswer | None) -> str | None:
        """What a reader of a scan outside the domain has to know first; None for other scans."""
        if domain is None or domain.inside:
            return None
        scale = f"typical 1.00, limit {domain.threshold:.2f}"
        distance = "" if domain.score is None else f" (distance {domain.score:.2f}; {scale})"
        start = f"Outside the domain: this scan is unlike the scans that the model was trained on{distance}."
        if self.outside_domain == "withhold":
            return f"{start} No finding is assessed; the probabilities are not reliable."
        return f"{start} The findings are not reliable."

    def warnings(self, scan: EncodedScan) -> Sequence[str]:
        """A line if the scan shows no whole chest, if the body is cut at a side, if the scan is outside the domain, and
        if the domain is unknown or of few scans.
        """
        lines = []
        litres = scan.regions.lung_litres
        if litres < self.min_lung_litres:
            lines.append(
                f"{scan.scan.file}: shows {litres:.1f} litres of air-filled lung, less than the "
                f"{self.min_lung_litres:g} of a whole chest; findings outside the field of view cannot be seen"
            )
        if scan.midline_mm is None:
            lines.append(f"{scan.scan.file}: the field of view cuts the body on the left or right; places have no side")
        if scan.domain is None:
            lines.append("Domain: not available; these weights do not know whether a scan is like their training scans")
            return lines
        if not scan.domain.inside:
            lines.append(
                "For answers on scans like this one, adapt the model to scans of your own "
                "(docs/adapt_to_your_hospital.md)"
            )
        if scan.domain.scans is not None and scan.domain.scans < FEW_SCANS:
            lines.append(
                f"Domain: fitted on {scan.domain.scans} training scans; so few say little of whether another scan is "
                "like them"
            )
        return lines
