"""The parts of ``configs/inference.json`` around the service: request, reader, inferer and writer."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.data import Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.inferers import Inferer

from bundle.ctfindings.files.errors import ScanError, scan_error_in
from bundle.ctfindings.files.folders import check_outside, check_writable
from bundle.ctfindings.files.progress import progress_bar, say
from bundle.ctfindings.inference.batch.scan_list import paths_of
from bundle.ctfindings.inference.encoding import EncodedScan
from bundle.ctfindings.inference.findings_record import Answer, FindingAnswer
from bundle.ctfindings.inference.output.console_table import format_findings
from bundle.ctfindings.inference.output.dicom.scan_answers import DICOM_REFUSED
from bundle.ctfindings.inference.output.summary_table import SUMMARY_FILE, write_summary
from bundle.ctfindings.inference.output.write_files import EVIDENCE_FILE, RECORD_FILE, REPORT_FILE, write_findings
from bundle.ctfindings.inference.service import AnsweredScan, FindingsService
from bundle.ctfindings.reports.queries import check_queries

EVIDENCE_CHOICES = ("present", "all", "none")


def check_request(
    image: str | Sequence[str] | None,
    scans: Sequence[Mapping[str, Any]],
    queries: Sequence[str] | str,
    evidence: str,
    output_dir: str | Path,
    dicom_dir: str | Path | None = None,
) -> None:
    """Raises a ValueError with what is wrong in a request for ``scans``, the records of ``image``."""
    if not scans:
        given = "a scan file, a folder or zip of DICOM, a folder of scans, a glob, a CSV table, or a list of these"
        raise ValueError(f"image: no scan given; add --image SCAN, {given}")
    check_queries(queries)
    if evidence not in EVIDENCE_CHOICES:
        raise ValueError(f"evidence: expected one of {', '.join(EVIDENCE_CHOICES)}, got {evidence!r}")
    for option, folder in (("output_dir", output_dir), ("dicom_dir", dicom_dir)):
        if folder is not None:
            check_writable(folder, option)
            check_outside(folder, option, [*paths_of(image), *(scan["image"] for scan in scans)])


class ReadAhead:
    """Preprocessed studies, one at a time: the next one is read while the one before is answered and written.

    A scan that cannot be used comes as its record with a ``problem``, the error that says why.

    Args:
        dataset: study records with ``TimedPreprocessing``.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[Mapping[Any, Any]]:
        reader = ThreadPoolExecutor(1)
        try:
            ahead = reader.submit(self._read, 0)
            for index in range(len(self)):
                study = ahead.result()
                if index + 1 < len(self):
                    ahead = reader.submit(self._read, index + 1)
                yield study
        finally:
            # After Ctrl-C nobody waits for a scan that is still being read.
            reader.shutdown(wait=False, cancel_futures=True)

    def _read(self, index: int) -> Mapping[Any, Any]:
        if "problem" in self.dataset.data[index]:
            return dict(self.dataset.data[index])
        try:
            study: Mapping[Any, Any] = self.dataset[index]
        except Exception as error:
            if (problem := scan_error_in(error)) is None:
                raise
            return {**self.dataset.data[index], "problem": problem}
        return study


def prepare_study(study: dict[str, Any], *_: Any, **__: Any) -> tuple[Any, None, tuple, dict[str, Any]]:
    """A study for MONAI's evaluator: its image as input, all of it as an argument of the inferer."""
    return study["image"], None, (), {"study": study}


class FindingsInferer(Inferer):
    """Answers the findings and ``queries`` for one study with the service; None for a scan that cannot be used."""

    def __init__(self, service: FindingsService, queries: Sequence[str] | str = ()) -> None:
        super().__init__()
        self.service = service
        self.queries = queries

    def __call__(  # type: ignore[override]
        self, inputs: Any, network: Any, study: Mapping[str, Any]
    ) -> AnsweredScan | None:
        return None if "problem" in study else self.service.answer(study, self.queries)


class FindingsWriter:
    """Writes record, evidence and report of each scan into its folder below ``output_dir``, and prints the table.

    Files are written while the next scan is answered. At the end ``findings.csv`` has one row per scan. A scan that
    cannot be used stops no other; it is an error at the end.

    Args:
        output_dir: folder of the results.
        evidence: one of ``EVIDENCE_CHOICES``, whose maps are written; queries are included unless it is ``none``.
        draft_report: whether a draft report is written too.
        dicom_dir: folder for DICOM objects of DICOM scans.
        anonymous: leaves the patient and study attributes out of them.
    """

    def __init__(
        self,
        output_dir: str | Path,
        evidence: str = "present",
        draft_report: bool = False,
        dicom_dir: str | Path | None = None,
        anonymous: bool = False,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.evidence = evidence
        self.draft_report = draft_report
        self.dicom_dir = Path(dicom_dir) if dicom_dir else None
        self.anonymous = anonymous
        self._thread = ThreadPoolExecutor(1)

    def attach(self, engine: Engine) -> None:
        """Registers the handler."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self._finish)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._stop)

    def _start(self, engine: Engine) -> None:
        total = engine.state.epoch_length or 0
        self._bar = progress_bar(label="inference" if total > 1 else "", total=total, unit="scan")
        self._records: dict[str, Path] = {}
        self._problems: dict[str, ValueError] = {}
        self._writing: tuple[str, Future[None]] | None = None

    def __call__(self, engine: SupervisedEvaluator) -> None:
        study, answered = engine.state.batch, engine.state.output["pred"]
        self._wait()
        path = str(study["image"] if answered is None else study["scan"].meta["filename_or_obj"])
        self._records[path] = self.output_dir / study["folder"] / RECORD_FILE
        if answered is None:
            self._problems[path] = study["problem"]
            self._bar.update()
        else:
            self._writing = path, self._thread.submit(self._write, study["scan"], answered, study["folder"])

    def _wait(self) -> None:
        if self._writing is not None:
            path, writing = self._writing
            try:
                writing.result()
            except ScanError as error:
                self._problems[path] = error
            # Not before: Ctrl-C ends the waiting, and ``_stop`` waits again.
            self._writing = None

    def _finish(self, engine: Engine) -> None:
        self._wait()
        self._bar.close()
        problems = self._problems
        if problems and len(self._records) == 1:
            raise next(iter(problems.values()))
        summary = self._write_summary()
        if problems:
            counts = f"{len(problems)} of {len(self._records)} scans could not be used"
            raise ValueError(f"{counts}; {summary} gives the reasons")

    def _stop(self, engine: Engine, error: BaseException) -> None:
        """After Ctrl-C, the table has the scans that were done."""
        if isinstance(error, KeyboardInterrupt) and self._records:
            self._wait()
            self._bar.close()
            self._write_summary()
        raise error

    def _write_summary(self) -> Path:
        lines = {path: str(problem) for path, problem in self._problems.items()}
        summary = write_summary(self.output_dir / SUMMARY_FILE, self._records, lines)
        say("\n".join([*lines.values(), f"Table: {summary}"]))
        return summary

    def _write(self, scan: MetaTensor, answered: AnsweredScan, folder: str) -> None:
        """Writes one scan and counts it: the bar is full when the last table is printed."""
        try:
            self.write(scan, answered, folder)
        finally:
            self._bar.update()

    def write(self, scan: MetaTensor, answered: AnsweredScan, folder: str) -> None:
        """Writes and prints the answers of one scan; ValueError if they cannot be written."""
        shown = {key: each for key, each in answered.placed.items() if self._is_shown(each.answer)}
        maps = {key: answered.encoded.evidence_map(each) for key, each in shown.items()}
        target = self.output_dir / folder
        try:
            hu, grid = scan.as_tensor()[0], answered.encoded.regions.affine
            record = write_findings(target, answered.record, hu, scan.affine, maps, grid, self.draft_report)
        except OSError as error:
            problem = f"results cannot be written there ({error.strerror or error})"
            raise ValueError(f"{self.output_dir}: {problem}; free some space, or choose another folder") from error
        lines = ["", format_findings(record), f"Report: {target / REPORT_FILE}"]
        if not maps and self.evidence != "none":
            lines.append(f"Evidence: no {EVIDENCE_FILE}, because no present finding and no query has a place")
        say("\n".join(lines))
        if self.dicom_dir is not None:
            say("DICOM: writing ...")
            source = scan.meta["filename_or_obj"]
            try:
                say(write_dicom_of(answered, source, self.dicom_dir / folder, maps, self.anonymous))
            except ScanError as error:
                if error.code != DICOM_REFUSED:
                    raise
                say(f"DICOM: none; {error}")

    def _is_shown(self, answer: Answer) -> bool:
        if self.evidence == "none":
            return False
        placed = answer.evidence is not None
        return self.evidence == "all" or (placed and (not isinstance(answer, FindingAnswer) or bool(answer.present)))


def write_dicom_of(
    answered: AnsweredScan, path: str, folder: Path, maps: Mapping[str, Any], anonymous: bool = False
) -> str:
    """Writes the DICOM objects of a scan; returns one line that says where they are, or why there are none.

    For the arguments see ``write_dicom``. ScanError if the scan cannot be read again, ValueError if they cannot be
    written.
    """
    if reason := why_no_dicom(answered.encoded):
        return f"DICOM: none; {reason}"
    # highdicom takes a second to import.
    from bundle.ctfindings.inference.output.dicom.write_dicom import write_dicom

    try:
        files = write_dicom(folder, Path(path), answered.dicom_answers(maps), anonymous)
    except OSError as error:
        problem = f"DICOM results cannot be written there ({error.strerror or error})"
        raise ValueError(f"{folder}: {problem}; free some space, or choose another folder") from error
    return f"DICOM: {folder} ({len(files)} objects)"


def why_no_dicom(scan: EncodedScan) -> str | None:
    """Why the results of a scan cannot refer to a patient, study or image in DICOM; None if they can."""
    if scan.source is not None:
        return None
    reason = f"the scan is {scan.scan.format} without DICOM headers"
    if scan.scan.format == "DICOM":
        identifiers = "identifiers of their own (SeriesInstanceUID, SOPInstanceUID)"
        reason = f"its images have no {identifiers}, or the datalist gives it another geometry"
    return f"{reason}, so results cannot refer to a patient, study or image"
