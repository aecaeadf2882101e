"""Sections of an evaluation on reports: retrieval of scans, and localization of snippets along the body axis."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from bundle.ctfindings.anatomy import THORAX
from bundle.ctfindings.data.study_record import report_id, report_text
from bundle.ctfindings.evaluation.evaluated_model import SplitScores
from bundle.ctfindings.evaluation.evaluation_run import EvaluationRun
from bundle.ctfindings.evaluation.snippet_controls import (
    lobe_named,
    middle_of_lobe,
    shares_by_finding_and_side,
    shares_by_other_scan,
    shares_by_text,
)
from bundle.ctfindings.losses.snippet_localization import points_into_scan
from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.localization import at_share_of_height, depth_errors, depth_record, share_of_height
from bundle.ctfindings.metrics.retrieval import report_retrieval
from bundle.ctfindings.networks.image.depth import depth_logits, depth_profile

Studies = Sequence[Mapping[str, Any]]
Snippets = Sequence[Mapping[str, Any]]
Rewording = Callable[[Mapping[str, Any], Snippets], Snippets]


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
        """Localizes the snippets of the studies; the calibration split, where it is scored, teaches the controls."""
        studies, network, split = run.studies[run.split], run.own_model.network, run.calibration_split
        known = None if split is None else (run.own_scores_of(split), run.studies[split])
        record = localization_of(run.own_scores, studies, network, run.bootstrap, known=known)
        run.record["localization"] = record
        if record is None:
            return "Localization: skipped; it needs snippets with a z_mm of at least 2 patients."
        if not bool(network.text.snippet_head_trained):
            run.record["warnings"].append("localization: the checkpoint was not trained on slice references")
        return format_localization(record)


def retrieval_of(
    scores: SplitScores, studies: Studies, model: Any, bootstrap: Bootstrap, count: int | None = None
) -> dict[str, Any] | None:
    """`report_retrieval` of the first `count` studies with a report, by thorax rows; None below two patients.

    The model has ``encode_text``, as ``VisionLanguageModel``.
    """
    texts = [report_text(study.get("report")) for study in studies]
    rows = [row for row, text in enumerate(texts) if text and scores.anatomy_valid[row, THORAX]][:count]
    if len({scores.patients[row] for row in rows}) < 2:
        return None
    used = [texts[row] for row in rows]
    with torch.no_grad():
        reports = model.encode_text(used, "report").double().cpu().numpy()
    ids = [report_id(studies[row]) for row in rows]
    return report_retrieval(scores.anatomy[rows, THORAX], reports, ids, scores.labels[rows], bootstrap.of(rows))


@dataclass(frozen=True)
class _Asked:
    """The snippets of a split that have a place in their scan, n."""

    scans: list[int]  # Row of the scan of each
    texts: list[str]
    target_mm: NDArray[np.float64]
    left_out: int  # Snippets without a place

    def depth_mm(self, scores: SplitScores) -> NDArray[np.float64]:
        """World z of the depth rows of the scans, [n, D], NaN for padding."""
        rows = [scores.depth_mm[row] for row in self.scans]
        return pad_sequence(rows, batch_first=True, padding_value=torch.nan).numpy()

    def lobes_mm(self, scores: SplitScores) -> NDArray[np.float64]:
        """World z of the middle of the lobe that each names, [n]; NaN if it does not name one, or without lungs."""
        middles = np.full(len(self.texts), np.nan)
        for place, (row, text) in enumerate(zip(self.scans, self.texts, strict=True)):
            lobe = lobe_named(text)
            if lobe is not None and scores.lung_mm is not None:
                middles[place] = middle_of_lobe(lobe, scores.lung_mm[row])
        return middles


def localization_of(
    scores: SplitScores,
    studies: Studies,
    model: Any,
    bootstrap: Bootstrap,
    reword: Rewording | None = None,
    known: tuple[SplitScores, Studies] | None = None,
) -> dict[str, Any] | None:
    """`depth_record` of the snippets of a split.

    Beside the estimates of `depth_errors`, ``other_scan`` is where the next scan of another patient has the snippet.
    From the snippets of other patients, ``text_only`` is what its words say to a regression, and ``finding_and_side``
    the mean of those that state the same. For snippets that name one lobe, ``lobe`` is the middle of the third of the
    lungs of the scan that stands for it.

    Args:
        scores: Scores of the split.
        studies: Studies of the split.
        model: Encodes the snippets.
        bootstrap: Bootstrap of the split; its seed also draws the random estimate.
        reword: Returns the snippets that replace those of a study; their ``z_mm`` is the truth.
        known: Scores and studies of other patients, for ``text_only`` and ``finding_and_side``, which are left out if
            it is None, or has less than two snippets.

    Returns:
        ``all``, ``one_lobe`` (snippets that name one lobe, if two patients have some), and
        ``left_out``, the number of snippets without a ``z_mm`` in their scan. None without snippets of at least two
        patients.
    """
    asked = _asked(scores, studies, reword)
    patients = [scores.patients[row] for row in asked.scans]
    if len(set(patients)) < 2:
        return None
    with torch.no_grad():
        embedded = model.encode_text(asked.texts, "snippet").cpu()
    rows = [scores.depth[row] for row in asked.scans]
    depth_mm = asked.depth_mm(scores)
    logits = depth_logits(pad_sequence(rows, batch_first=True), embedded[:, None])[:, 0]
    profile = depth_profile(logits, torch.from_numpy(depth_mm)).numpy()
    other = shares_by_other_scan(embedded, patients, rows, [scores.depth_mm[row] for row in asked.scans])
    shares = {"other_scan": other}
    taught = None if known is None else _asked(*known)
    if known is not None and taught is not None and len(taught.texts) > 1:
        heights = share_of_height(taught.target_mm, taught.depth_mm(known[0]))
        shares["text_only"] = shares_by_text(taught.texts, heights, asked.texts)
        shares["finding_and_side"] = shares_by_finding_and_side(taught.texts, heights, asked.texts)
    controls = {name: np.abs(at_share_of_height(share, depth_mm) - asked.target_mm) for name, share in shares.items()}
    lobe = np.abs(asked.lobes_mm(scores) - asked.target_mm)
    in_lobe = np.flatnonzero(np.isfinite(lobe))
    record: dict[str, Any] = {"left_out": asked.left_out}
    parts = {"all": np.arange(len(patients)), "one_lobe": in_lobe}
    for name, chosen in parts.items():
        if len({patients[place] for place in chosen}) < 2:
            continue
        errors = depth_errors(profile[chosen], depth_mm[chosen], asked.target_mm[chosen], bootstrap.seed)
        guesses = {**controls, "lobe": lobe} if name == "one_lobe" else controls
        errors |= {guess: error[chosen] for guess, error in guesses.items()}
        record[name] = depth_record(errors, bootstrap.of([asked.scans[place] for place in chosen]))
    return record


def _asked(scores: SplitScores, studies: Studies, reword: Rewording | None = None) -> _Asked:
    asked, left_out = [], 0
    for row, study in enumerate(studies):
        snippets = study.get("snippets") or ()
        given = list(snippets if reword is None else reword(study, snippets))
        placed = [snippet for snippet in given if snippet.get("z_mm") is not None]
        target_mm = torch.tensor([float(snippet["z_mm"]) for snippet in placed])
        inside = points_into_scan(scores.depth_mm[row].expand(len(placed), -1), target_mm).tolist()
        asked += [(row, snippet) for snippet, kept in zip(placed, inside, strict=True) if kept]
        left_out += len(given) - sum(inside)
    target = np.asarray([float(snippet["z_mm"]) for _, snippet in asked])
    return _Asked([row for row, _ in asked], [str(snippet["text"]) for _, snippet in asked], target, left_out)


def format_localization(record: dict[str, Any]) -> str:
    """A record of `localization_of` as one line."""
    errors = {
        guess: found.get("mae_mm", {}).get("value") for guess, found in record["all"].items() if isinstance(found, dict)
    }
    words = "".join(
        f", {label} {errors[key]:.1f}"
        for key, label in (("text_only", "words alone"), ("finding_and_side", "mean of the finding and side"))
        if key in errors
    )
    return (
        f"Localization of {record['all']['snippets']} snippets: mean error {errors['model']:.1f} mm "
        f"({errors['profile']:.1f} by the median of the profile), middle slice {errors['middle']:.1f}, "
        f"random {errors['random']:.1f}, another scan {errors['other_scan']:.1f}{words}; {record['left_out']} left out."
        + _within_lobes(record.get("one_lobe"))
    )


def _within_lobes(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    model, lobe = (found[guess]["mae_mm"]["value"] for guess in ("model", "lobe"))
    return (
        f" Of the {found['snippets']} that name one lobe: {model:.1f} mm, middle of that third of the lungs {lobe:.1f}."
    )
