"""Synthetic scans as a data set: NIfTI images, masks, reports and the datalist."""

import gzip
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from joblib import cpu_count
from numpy.typing import NDArray

from bundle.ctfindings.data.study_record import SPLITS
from bundle.ctfindings.files.atomic_write import atomic_path, write_text
from bundle.ctfindings.files.journal import resume
from bundle.ctfindings.findings import FINDING_NAMES, finding_index
from bundle.ctfindings.phantom.case import Case
from bundle.ctfindings.phantom.image.acquisition import acquire
from bundle.ctfindings.phantom.image.draw_findings import draw_findings
from bundle.ctfindings.phantom.image.healthy_chest import draw_chest
from bundle.ctfindings.phantom.image.outside_body import draw_surroundings
from bundle.ctfindings.phantom.patient import sample_patient
from bundle.ctfindings.phantom.prevalence import sample_labels
from bundle.ctfindings.phantom.report.write_report import write_report
from bundle.ctfindings.phantom.write_dicom import write_series

# Raised whenever the same seed gives other images, so that an old folder is not taken for a new one.
RENDERER_VERSION = 2
RECORDS = "records.jsonl"


def make_case(
    seed: int,
    index: int,
    labels: Sequence[int] | None = None,
    severity: float | None = None,
    without: int | None = None,
) -> tuple[Case, NDArray[np.int16], NDArray[np.uint8], NDArray[np.int32], NDArray[np.float64]]:
    """Renders one scan of a data set; the same seed, index and labels give the same scan.

    ``labels`` (18, in the order of ``FINDINGS``) are exactly what is rendered; drawn at CT-RATE's rates when None.
    Scans of the same seed and index with other labels are of the same patient with the same noise. ``severity``, 0 to
    1, is that of all findings but the size of the heart; drawn when None. ``without`` is the index of a finding that is
    left out while all others stay as they are; with its label 0 instead, those drawn after it would be others.

    Returns:
        The record, the image in HU (X, Y, Z), the anatomy mask (X, Y, Z), the finding bits (X, Y, Z; bit i is finding
        i) and the affine (4, 4), voxel index to world RAS mm.

    Raises:
        ValueError: when ``labels`` is not 18 times 0 or 1, or the heart would have to shrink for ``without``.
    """
    heart = finding_index("Cardiomegaly")
    if without == heart:
        raise ValueError("without: the heart is drawn with the chest; give Cardiomegaly the label 0")
    rng = np.random.default_rng([seed, index])
    drawn, latent_age = sample_labels(rng)
    if labels is not None:
        drawn = tuple(int(label) for label in labels)
        if len(drawn) != len(FINDING_NAMES) or not set(drawn) <= {0, 1}:
            raise ValueError(f"labels: {len(FINDING_NAMES)} values of 0 or 1 are expected, got {list(labels)}")
    patient = sample_patient(rng, latent_age, bool(drawn[heart]))
    chest = draw_chest(rng, patient)
    left_out = None if without is None else FINDING_NAMES[without]
    sites = draw_findings(rng, chest, drawn, severity, left_out)
    canvas = chest.canvas
    scanner = np.random.default_rng([seed, index, 2])
    draw_surroundings(scanner, canvas, patient)
    acquire(scanner, canvas, patient)
    np.clip(canvas.hu, -1024, 3071, out=canvas.hu)
    image = np.rint(canvas.hu, out=canvas.hu).astype(np.int16)
    case = Case(
        seed=seed,
        id=f"phantom_{index:06d}",
        labels=tuple(0 if finding == without else label for finding, label in enumerate(drawn)),
        sites=sites,
        sex=patient.sex,
        age=patient.age,
        contrast=patient.contrast,
        noise_hu=patient.noise_hu,
        table=patient.table,
        arms_up=patient.arms_up,
        spacing=tuple(float(step) for step in canvas.spacing),  # type: ignore[arg-type]
        image_count=canvas.shape[2],
        z_bottom_mm=float(canvas.affine[2, 3]),
        series=int(scanner.integers(2, 6)),
    )
    return case, image, canvas.anatomy, canvas.bits, canvas.affine


def write_nifti(path: Path, volume: NDArray, affine: NDArray[np.float64]) -> None:
    """Writes a ``.nii.gz`` file atomically, lightly compressed (speed counts more than size here)."""
    image = nib.Nifti1Image(volume, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    with atomic_path(path) as temporary:
        temporary.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))


def write_volumes(
    folder: Path,
    name: str,
    image: NDArray[np.int16],
    anatomy: NDArray[np.uint8],
    bits: NDArray[np.int32],
    affine: NDArray[np.float64],
) -> dict[str, str]:
    """Writes what ``make_case`` rendered to a folder for each kind; returns the relative paths of the study record."""
    files = {"image": f"images/{name}.nii.gz", "anatomy": f"anatomy/{name}.nii.gz"}
    write_nifti(folder / files["image"], image, affine)
    write_nifti(folder / files["anatomy"], anatomy, affine)
    if bits.any():
        files["finding_masks"] = f"finding_masks/{name}.nii.gz"
        write_nifti(folder / files["finding_masks"], bits, affine)
    return files


def _write_case(task: tuple[Path, int, int, bool]) -> dict[str, Any]:
    """Renders and writes one scan and returns its study record."""
    folder, seed, index, dicom = task
    case, image, anatomy, bits, affine = make_case(seed, index)
    files = write_volumes(folder, case.id, image, anatomy, bits, affine)
    if dicom:
        files["dicom"] = f"dicom/{case.id}"
        write_series(folder / files["dicom"], case, image, affine)
    report = write_report(case, np.random.default_rng([seed, index, 1]))
    return {
        "id": case.id,
        "patient": f"p{index:06d}",
        **files,
        "sex": case.sex,
        "age": case.age,
        "contrast": case.contrast,
        "noise_hu": round(case.noise_hu, 1),
        "slice_mm": round(case.spacing[2], 2),
        "table": case.table,
        "arms_up": case.arms_up,
        "report": {"findings": report.findings, "impression": report.impression},
        "captions": {region: asdict(caption) for region, caption in report.captions.items()},
        "labels": list(case.labels),
        "sites": [
            {**asdict(site), "severity": round(site.severity, 3), "volume_ml": round(site.volume_ml, 3)}
            for site in case.sites
        ],
        "lesions": _lesions(case),
        "snippets": [asdict(snippet) for snippet in report.snippets],
    }


def _lesions(case: Case) -> dict[str, dict[str, float]]:
    """By finding: the severity of its gravest site, and the diameter of a ball of the volume of its largest one."""
    found: dict[str, dict[str, float]] = {}
    for site in case.sites:
        entry = found.setdefault(site.finding, {"severity": 0.0, "lesion_mm": 0.0})
        entry["severity"] = max(entry["severity"], round(site.severity, 3))
        entry["lesion_mm"] = max(entry["lesion_mm"], round(float(np.cbrt(6000 * site.volume_ml / np.pi)), 1))
    return found


def render_all(
    render: Callable[[Any], dict[str, Any]], tasks: Mapping[str, Any], journal: Path, workers: int | None = None
) -> list[dict[str, Any]]:
    """Renders the scans that the journal lacks, in several processes, and returns all study records in task order.

    ``render`` writes the scan of a task and returns its study record; ``tasks`` has its argument by scan name. There is
    one process per core by default. ValueError if a worker process is killed.
    """
    records: dict[str, dict[str, Any]] = {}
    signed = {name: ("", task) for name, task in tasks.items()}
    for outcome in resume(render, signed, journal, workers or cpu_count(), fatal=Exception, progress="synthetic scans"):
        if outcome.problem:
            raise ValueError(f"{journal.parent}: {outcome.key}: {outcome.problem}")
        records[outcome.key] = outcome.result
    return [records[name] for name in tasks]


def make_dataset(
    folder: Path, training: int, validation: int, test: int, seed: int, workers: int | None = None, dicom: bool = False
) -> Path:
    """Writes synthetic scans and returns the path of their ``datalist.json``.

    A folder that was finished with the same settings is used as it is; one that was begun is completed. The three
    splits are separate ranges of scan indices, and every scan is another patient. Scan ``index`` is a function of
    ``(seed, index)`` alone.

    Args:
        training, validation, test: number of scans of each split.
        workers: number of processes; one per core by default.
        dicom: whether each scan is also written as a DICOM series.

    Raises:
        ValueError: when the folder holds scans of other settings, a number is negative, or the scans cannot be written.
    """
    counts = dict(zip(SPLITS, (training, validation, test), strict=True))
    if min(counts.values()) < 0:
        raise ValueError(f"{folder}: cannot hold {counts}; give numbers of scans from 0 on")
    settings = {"seed": seed, **counts, "dicom": dicom, "renderer": RENDERER_VERSION}
    datalist, begun = folder / "datalist.json", folder / "parameters.json"
    for path in (datalist, begun):
        if path.exists():
            content = json.loads(path.read_text(encoding="utf-8"))
            found = content.get("parameters", content)
            if found != settings:
                raise ValueError(
                    f"{folder}: expected synthetic scans made with {settings}, found {found}; "
                    "choose another folder or delete it"
                )
    if datalist.exists():
        return datalist
    try:
        write_text(begun, json.dumps(settings))
        numbers = range(sum(counts.values()))
        tasks = {f"phantom_{index:06d}": (folder, seed, index, dicom) for index in numbers}
        records = iter(render_all(_write_case, tasks, folder / RECORDS, workers))
        content = {
            "name": "CT Findings synthetic scans",
            "description": "synthetic chest CT, made by bundle.ctfindings.phantom; not patients",
            "parameters": settings,
            **{split: list(islice(records, count)) for split, count in counts.items()},
        }
        write_text(datalist, json.dumps(content, indent=1))
    except OSError as error:
        raise ValueError(
            f"{folder}: synthetic scans cannot be written there ({error.strerror or error}); finished scans are kept: "
            "free disk space or check the permissions and run the same command again, or name another folder"
        ) from error
    return datalist


def datalist_or_synthetic(
    datalist: str | Path | None, folder: str | Path, counts: Sequence[int], seed: int, rank: int
) -> Path:
    """The path of a datalist; without one, rank 0 makes synthetic scans while the other ranks wait for them.

    All ranks share ``folder``. ``counts`` are the numbers of training, validation and test scans.

    Raises:
        ValueError: see ``make_dataset``.
    """
    if datalist:
        return Path(datalist)
    while rank and not (Path(folder) / "datalist.json").is_file():
        time.sleep(0.5)
    training, validation, test = counts
    return make_dataset(Path(folder), training, validation, test, seed)
