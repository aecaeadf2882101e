"""Section of an evaluation: scores by a published protocol."""

from bundle.ctfindings.evaluation.evaluation_run import EvaluationRun
from bundle.ctfindings.metrics.published_protocols import check_protocol, format_protocol, protocol_record


class PublishedProtocol:
    """Adds ``protocol`` to the record, see ``protocol_record``; `name` is one of ``PROTOCOLS``.

    ValueError if the protocol is unknown.
    """

    needs_labels = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.needs_calibration = check_protocol(name).thresholds_on == "calibration"

    def __call__(self, run: EvaluationRun) -> str:
        """Scores the split by the protocol."""
        model, calibration = run.model, run.scores.get(run.calibration_split or "")
        record = protocol_record(
            self.name, run.scores[run.split], calibration, model.template_ids, run.bootstrap, model.not_scored
        )
        run.record["protocol"] = record
        return format_protocol(record)
