"""Sections of an evaluation on reports: retrieval of scans, and localization of snippets along the body axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from bundle.ctfindings.anatomy import THORAX
from bundle.ctfindings.data.datalist import report_text
from bundle.ctfindings.evaluation.evaluated_model import SplitScores
from bundle.ctfindings.evaluation.evaluation_run import EvaluationRun
from bundle.ctfindings.losses.snippet_localization import points_into_scan
from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.localization import depth_errors, depth_record
from bundle.ctfindings.metrics.report_retrieval import first_of_each, report_retrieval
from bundle.ctfindings.networks.image.depth import depth_logits, depth_profile

Studies = Sequence[Mapping[str, Any]]
Snippets = Sequence[Mapping[str, Any]]
Rewording = Callable[[Mapping[str, Any], Snippets], Snippets]


class ReadsText(Protocol):
    """A model with a text tower."""

    def encode_text(self, texts: Sequence[str], role: str) -> Tensor:
        """Unit embeddings of texts, ``[n, E]``."""


class ReportRetrieval:
    """Adds ``report_retrieval`` to the record, see `retrieval_of`."""

    needs_labels = False
    needs_calibration = False

    def __call__(self, run: EvaluationRun) -> str:
        """Ranks scans by reports and reports by scans."""
        studies, network = run.studies[run.split], run.own_model.network
        record = retrieval_of(run.own_scores, studies, network, run.bootstrap)
        run.record["report_retrieval"] = record
        if record is None:
            return "Report retrieval: skipped; it needs the reports of at least 2 patients."
        lines = []
        for pool, directions in record["pools"].items():
            for direction, found in directions.items():
                recalls = ", ".join(f"R@{k} {100 * entry['value']:.1f} %" for k, entry in found["recall"].items())
                lines.append(
                    f"Report retrieval, {direction.replace('_', ' ')}, {pool} ({found['pool']}): {recalls}, "
                    f"median rank {found['median_rank']:g}."
                )
        return "\n".join(lines)


class SnippetLocalization:
    """Adds ``localization`` to the record, see `localization_of`."""

    needs_labels = False
    needs_calibration = False

    def __call__(self, run: EvaluationRun) -> str:
        """Localizes the snippets of the studies."""
        studies, network = run.studies[run.split], run.own_model.network
        record = localization_of(run.own_scores, studies, network, run.bootstrap)
        run.record["localization"] = record
        if record is None:
            return "Localization: skipped; it needs snippets with a z_mm of at least 2 patients."
        if not bool(network.text.snippet_head_trained):
            run.record["warnings"].append("localization: the checkpoint was not trained on slice references")
        return format_localization(record)


def retrieval_of(
    scores: SplitScores, studies: Studies, model: ReadsText, bootstrap: Bootstrap, count: int | None = None
) -> dict[str, Any] | None:
    """`report_retrieval` of the first `count` studies with a report, by thorax rows; None below two patients."""
    texts = [report_text(study.get("report")) for study in studies]
    rows = [row for row, text in enumerate(texts) if text and scores.anatomy_valid[row, THORAX]][:count]
    if len({scores.patients[row] for row in rows}) < 2:
        return None
    used = [texts[row] for row in rows]
    with torch.no_grad():
        reports = model.encode_text(used, "report").double().cpu().numpy()
    return report_retrieval(scores.anatomy[rows, THORAX], reports, used, scores.labels[rows], bootstrap.of(rows))


def localization_of(
    scores: SplitScores, studies: Studies, model: ReadsText, bootstrap: Bootstrap, reword: Rewording | None = None
) -> dict[str, Any] | None:
    """`depth_record` of the snippets of a split: of all, and of the first of each scan (RadFinder's count).

    The seed of the bootstrap also draws the random estimate. `reword` returns the snippets that replace those of a
    study; their ``z_mm`` is the truth. None without snippets of at least two patients.

    Returns:
        ``all``, ``first_of_scan``, and ``left_out``, the number of snippets without a ``z_mm`` in their scan.
    """
    asked, left_out = [], 0
    for row, study in enumerate(studies):
        snippets = study.get("snippets") or ()
        given = list(snippets if reword is None else reword(study, snippets))
        placed = [snippet for snippet in given if snippet.get("z_mm") is not None]
        target_mm = torch.tensor([float(snippet["z_mm"]) for snippet in placed])
        inside = points_into_scan(scores.depth_mm[row].expand(len(placed), -1), target_mm).tolist()
        asked += [(row, snippet) for snippet, kept in zip(placed, inside, strict=True) if kept]
        left_out += len(given) - sum(inside)
    scans = [row for row, _ in asked]
    if len({scores.patients[row] for row in scans}) < 2:
        return None
    with torch.no_grad():
        embedded = model.encode_text([str(snippet["text"]) for _, snippet in asked], "snippet").cpu()
    depth = pad_sequence([scores.depth[row] for row in scans], batch_first=True)
    depth_mm = pad_sequence([scores.depth_mm[row] for row in scans], batch_first=True, padding_value=torch.nan)
    profile = depth_profile(depth_logits(depth, embedded[:, None])[:, 0], depth_mm).numpy()
    target = np.asarray([float(snippet["z_mm"]) for _, snippet in asked])
    record: dict[str, Any] = {"left_out": left_out}
    for name, chosen in (("all", np.arange(len(asked))), ("first_of_scan", first_of_each(scans))):
        errors = depth_errors(profile[chosen], depth_mm.numpy()[chosen], target[chosen], bootstrap.seed)
        record[name] = depth_record(errors, bootstrap.of([scans[place] for place in chosen]))
    return record


def format_localization(record: dict[str, Any]) -> str:
    """A record of `localization_of` as one line."""
    errors = {guess: record["all"][guess]["mae_mm"]["value"] for guess in ("model", "profile", "middle", "random")}
    return (
        f"Localization of {record['all']['snippets']} snippets: mean error {errors['model']:.1f} mm "
        f"({errors['profile']:.1f} by the median of the profile), middle slice {errors['middle']:.1f}, "
        f"random {errors['random']:.1f}; {record['left_out']} left out."
    )
