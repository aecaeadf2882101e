"""A data set of hybrid scans: findings drawn into scans of a user's own, each beside its unaltered twin."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.data.study_record import PATH_KEYS, SPLITS
from bundle.ctfindings.files.atomic_write import write_text
from bundle.ctfindings.files.csv_table import write_table
from bundle.ctfindings.files.fingerprint import file_signature, input_signature
from bundle.ctfindings.files.journal import resume
from bundle.ctfindings.findings import FINDING_NAMES, finding_index
from bundle.ctfindings.phantom.dataset import write_nifti
from bundle.ctfindings.phantom.hybrid import HYBRID_FINDINGS, ORGAN_FINDINGS, HybridBase, upright
from bundle.ctfindings.phantom.image.canvas import LUNG
from bundle.ctfindings.scan.anatomy_mask import load_anatomy_mask
from bundle.ctfindings.scan.load_scan import load_scan
from bundle.ctfindings.scan.lung_mask import lung_mask
from bundle.ctfindings.sources.preparation.splits import check_fractions, draw_split, pseudonym

BASES, DATALIST, JOURNAL = "bases.csv", "datalist.json", "journal.jsonl"


class HybridSettings(NamedTuple):
    """What is drawn into every scan."""

    findings: Sequence[str] = HYBRID_FINDINGS
    per_finding: int = 1  # hybrids of each scan and finding
    normal: bool = False  # whether the scans are known to show none of the 18 findings
    anatomy_mapping: Mapping[str, str] | str = "ctfindings"  # ids of the masks, see ``load_anatomy_mask``
    seed: int = 0
    fractions: Sequence[float] = (0.6, 0.2, 0.2)  # of the patients: training, validation, test


class _Task(NamedTuple):
    image: str
    anatomy: str | None
    stored: Mapping[str, Any] | None
    name: str
    number: int
    folder: str
    settings: HybridSettings


def make_hybrids(
    studies: Mapping[str, Mapping[str, Any]], folder: Path, settings: HybridSettings, workers: int = 1
) -> tuple[Path, dict[str, str]]:
    """Writes the hybrids of every scan and returns the path of ``datalist.json`` and the reason of each failed scan.

    Files are numbered and do not show the names of the scans, which stand in ``bases.csv``. All scans made of the bases
    of one patient are in one split. A stopped run resumes; a scan that has another number now is done again. A label is
    1 for what was drawn, 0 for the same finding in the unaltered twin, and -1 otherwise; if the scans are known to be
    normal, 0 otherwise.

    Args:
        studies: ``image`` by id, and optionally ``anatomy`` (a mask), ``stored`` and ``patient``; without it, each scan
            is of its own patient.

    Raises:
        ValueError: if a setting cannot be used or no scan can.
    """
    check_fractions(settings.fractions)
    known = (*HYBRID_FINDINGS, *ORGAN_FINDINGS)
    if unknown := [name for name in settings.findings if name not in known]:
        raise ValueError(f"findings: {', '.join(unknown)} cannot be drawn into a scan; choose from {', '.join(known)}")
    if settings.per_finding < 1:
        raise ValueError(f"per_finding: expected at least 1, got {settings.per_finding}")
    # The split of a patient does not change what is drawn.
    drawn = list(settings._replace(fractions=()))
    tasks = {}
    for number, (key, study) in enumerate(studies.items()):
        name, anatomy = f"base_{number:05d}", study.get("anatomy")
        task = _Task(study["image"], anatomy, study.get("stored"), name, number, str(folder), settings)
        signature = input_signature([study["image"], anatomy], [study.get("stored"), drawn, number])
        tasks[key] = (signature, task)
    records: dict[str, list[dict[str, Any]]] = {}
    problems: dict[str, str] = {}
    for outcome in resume(
        _make,
        tasks,
        folder / JOURNAL,
        workers,
        # A scan that had the number in another run may have written over the files.
        holds=lambda key, result: _files(folder, result["studies"]) == result["files"],
        progress="hybrid scans",
    ):
        if outcome.problem:
            problems[outcome.key] = outcome.problem
        else:
            records[outcome.key] = outcome.result["studies"]
    if not records:
        raise ValueError(f"no scan could be used; the first: {next(iter(problems.values()), 'none given')}")
    content: dict[str, Any] = {
        "name": "Hybrid scans",
        "description": "findings drawn into scans by bundle.ctfindings.phantom; the scans are those of their owner",
        **{split: [] for split in SPLITS},
    }
    for key, study in studies.items():
        patient = pseudonym(study.get("patient", key), settings.seed)
        for record in records.get(key, ()):
            content[draw_split(patient, settings.fractions, settings.seed)].append({**record, "patient": patient})
    rows = ((task.name, key, problems.get(key, "")) for key, (_, task) in tasks.items())
    write_table(folder / BASES, ["name", "scan", "problem"], rows)
    write_text(folder / DATALIST, json.dumps(content, indent=1) + "\n")
    return folder / DATALIST, problems


def summary(datalist: Path, findings: Sequence[str]) -> Iterator[str]:
    """Studies and drawn findings by split, as lines for a terminal.

    With a warning for each empty split, and for each finding whose organ no mask shows.
    """
    content = json.loads(datalist.read_text(encoding="utf-8"))
    drawn = {
        split: Counter(FINDING_NAMES[study["labels"].index(1)] for study in content[split] if "twin" in study)
        for split in SPLITS
    }
    yield f"{'':<36}" + "".join(f"{split:>12}" for split in SPLITS)
    yield f"{'studies':<36}" + "".join(f"{len(content[split]):>12}" for split in SPLITS)
    for name in FINDING_NAMES:
        if any(drawn[split][name] for split in SPLITS):
            yield f"{name:<36}" + "".join(f"{drawn[split][name]:>12}" for split in SPLITS)
    for name in findings:
        if name in ORGAN_FINDINGS and not any(drawn[split][name] for split in SPLITS):
            yield f"warning: {name} was drawn into no scan; no anatomy mask shows its organ"
    for split in SPLITS:
        if not content[split]:
            yield f"warning: {split} has no study; give more scans, other shares as --split, or another --seed"


def _files(folder: Path, studies: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """State of the files of study records, see ``FileSignature``, as the journal keeps it."""
    return [list(file_signature(folder / study[key])) for study in studies for key in PATH_KEYS if key in study]


def _make(task: _Task) -> dict[str, Any]:
    """Writes the unaltered twin and the hybrids of a scan; returns their study records, and the state of the files."""
    settings, folder = task.settings, Path(task.folder)
    scan = load_scan(task.image, task.stored)
    hu, affine = upright(np.asarray(scan[0]), np.asarray(scan.affine))
    anatomy = np.zeros(hu.shape, np.uint8)
    named: tuple[str, ...] = ()
    if task.anatomy is not None:
        mask, named = load_anatomy_mask(task.anatomy, settings.anatomy_mapping, scan)
        anatomy = upright(np.asarray(mask[0]), np.asarray(scan.affine))[0]
    if ANATOMY_NAMES[0] not in named:
        anatomy = np.where((anatomy == 0) & lung_mask(hu, affine), LUNG, anatomy)
    # Without the mask of its organ, a finding is left out.
    drawn = [
        name for name in settings.findings if name not in ORGAN_FINDINGS or (anatomy == ORGAN_FINDINGS[name]).any()
    ]
    if not drawn:
        raise ValueError(f"no mask shows an organ of {', '.join(settings.findings)}; give anatomy masks of your scans")
    base = HybridBase(hu, affine, anatomy)
    unknown = 0 if settings.normal else -1
    twin = [unknown] * len(FINDING_NAMES)
    write_nifti(folder / "images" / f"{task.name}.nii.gz", base.hu, affine)
    hybrids = []
    for finding in drawn:
        index = finding_index(finding)
        twin[index] = 0
        for copy in range(settings.per_finding):
            seed = (settings.seed, task.number, index, copy)
            severity = float(np.random.default_rng(seed).beta(1.15, 1.75))
            made = base.insert(finding, seed, severity)
            name = f"{task.name}_{finding.lower().replace(' ', '_')}_{copy}"
            write_nifti(folder / "images" / f"{name}.nii.gz", made.hu, affine)
            bits = (made.mask * np.int32(1 << index)).astype(np.int32)
            write_nifti(folder / "finding_masks" / f"{name}.nii.gz", bits, affine)
            labels = [unknown] * len(FINDING_NAMES)
            labels[index] = 1
            hybrids.append(
                {
                    "id": name,
                    "image": f"images/{name}.nii.gz",
                    "finding_masks": f"finding_masks/{name}.nii.gz",
                    "labels": labels,
                    "twin": task.name,
                    "sites": [asdict(site) for site in made.sites],
                }
            )
    studies = [{"id": task.name, "image": f"images/{task.name}.nii.gz", "labels": twin}, *hybrids]
    return {"studies": studies, "files": _files(folder, studies)}
