"""Reads one CT series in HU from a folder or zip of DICOM: chooses the series that covers the chest best."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bundle.ctfindings.files.errors import ScanError, coded
from bundle.ctfindings.files.folders import files_below
from bundle.ctfindings.scan.coordinates import LPS_TO_RAS
from bundle.ctfindings.scan.dicom_headers import DicomFile, image_type, is_axial, orientation, unpacked
from bundle.ctfindings.scan.dicom_images import Image, Listing, depths, describe, list_images, position
from bundle.ctfindings.scan.dicom_pixels import read_pixels
from bundle.ctfindings.scan.slice_grid import SAME_PLACE_MM, even_slices, regular_step
from bundle.ctfindings.scan.storage import MAX_VOXELS, SourceImages, Volume

MIN_IMAGES = 5
CHEST_MM = 300.0
"""Length of a chest along the body. Of two series that are longer, neither covers it better."""

SAME_COVER = 0.9
"""A series that covers this share of what the longest one covers may be preferred to it."""

MAX_OVERLAP = 0.25
"""Share of the shorter of two passes that may lie within the other one, for the passes to be joined."""

_RESTORE = "check the permissions of the files, or export the series again"

_PROJECTIONS = {
    "MIP", "MINIP", "MAXIMUM", "MINIMUM", "PROJECTION IMAGE", "MEAN", "AVERAGE", "MAX_IP", "MIN_IP", "VOLUME_RENDER",
    "SURFACE_RENDER",
}  # fmt: skip


def read_dicom(source: Path, path: str | Path) -> Volume:
    """The axial CT series in a folder or a zip that covers the chest best; see ``read_dicom_files``."""
    if source.is_dir():
        return read_dicom_files(files_below(source), path)
    with unpacked([DicomFile(source)]) as files:
        return read_dicom_files(files, path)


def read_dicom_files(files: Sequence[Path], path: str | Path) -> Volume:
    """The axial CT series among files that covers the chest best; files that are not DICOM are ignored.

    The frames of an Enhanced CT are read as the images of a series are. ``path`` names the study in errors and
    warnings. ScanError if there is no such series, it is too large, an image cannot be decoded, or images are missing.
    """
    listing = list_images(files)
    series = [each for images in listing.series for each in _passes(images)]
    chosen = _choose_series(series, listing, path)
    warnings = _warnings(chosen, series, listing, path)
    header = chosen[0].header
    if len(chosen) * int(header.Rows) * int(header.Columns) > MAX_VOXELS:
        problem = f"has {header.Columns} x {header.Rows} x {len(chosen)} voxels; at most {MAX_VOXELS:,} are allowed"
        raise ScanError(path, f"{problem}. Export fewer images, or crop or resample it", "too-large")
    along_row, along_column = orientation(header)
    normal = np.cross(along_row, along_column)
    chosen = [chosen[index] for index in np.argsort(depths(chosen), kind="stable")]
    positions = np.stack([position(image.header) for image in chosen])
    slices, step, gaps = even_slices(read_pixels(chosen, path), positions, normal, path)
    rows, columns = (float(value) for value in header.PixelSpacing)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([along_row * columns, along_column * rows, step], axis=1)
    affine[:3, 3] = positions[0]
    depth = (positions - positions[0]) @ normal
    even = np.arange(len(slices)) * (step @ normal)
    nearest = [chosen[int(np.abs(depth - place).argmin())] for place in even]
    return Volume(slices.T, LPS_TO_RAS @ affine, "dicom", warnings + gaps, _source_images(nearest))


def _source_images(images: Sequence[Image]) -> SourceImages | None:
    """The images by their identifiers; None if the series or an image has none, or several images share one."""
    series = str(images[0].header.get("SeriesInstanceUID") or "")
    uids = tuple(str(image.header.get("SOPInstanceUID") or "") for image in images)
    frames = tuple(image.frame for image in images)
    distinct = len({id(image.header) for image in images})
    if not series or not all(uids) or len(set(zip(uids, frames, strict=True))) < distinct:
        return None
    numbers = (str(image.header.get("InstanceNumber") or "") for image in images)
    return SourceImages(series, uids, tuple(int(number) if number.isdecimal() else None for number in numbers), frames)


def _passes(images: list[Image]) -> list[list[Image]]:
    """Split a series by stack, and by acquisition where several images lie at one position (contrast phases, gating).

    Parts that tile the body, one beginning where another ends, are joined again.
    """
    joined: list[list[Image]] = []
    parts = [part for stack in _split(images, "StackID") for part in _phases(stack)]
    for one in sorted(parts, key=lambda part: float(depths(part).min())):
        if joined and (rest := _continuation(joined[-1], one)):
            joined[-1] = joined[-1] + rest
        else:
            joined.append(one)
    return joined


def _phases(images: list[Image]) -> list[list[Image]]:
    places = {tuple(np.round(position(image.header), 2)) for image in images}
    return [images] if len(places) == len(images) else _split(images, "AcquisitionNumber", "TemporalPositionIndex")


def _split(images: list[Image], *keywords: str) -> list[list[Image]]:
    """Images with equal values of some elements, in order of their first one."""
    parts: dict[tuple[str, ...], list[Image]] = defaultdict(list)
    for image in images:
        parts[tuple(str(image.header.get(keyword)) for keyword in keywords)].append(image)
    return list(parts.values())


def _continuation(lower: list[Image], upper: list[Image]) -> list[Image]:
    """The images of ``upper`` above ``lower``, if together they are one stack; otherwise none."""
    if min(len(lower), len(upper)) < 3:
        return []
    normal = np.cross(*orientation(lower[0].header))
    places = [np.stack([position(image.header) for image in each]) for each in (lower, upper)]
    below, above = (place @ normal for place in places)
    steps = [regular_step(np.diff(np.sort(depth))) for depth in (below, above)]
    aside = places[1][0] - places[0][0]
    if abs(steps[0] - steps[1]) > 0.05 * max(steps) or np.linalg.norm(aside - (aside @ normal) * normal) > 1.0:
        return []
    new = above > below.max() + max(0.5 * min(steps), SAME_PLACE_MM)
    shared = len(upper) - int(new.sum())
    if not new.any() or shared > MAX_OVERLAP * min(len(lower), len(upper)):
        return []
    gap = float(above[new].min() - below.max())
    return [image for image, is_new in zip(upper, new, strict=True) if is_new] if gap < 1.5 * max(steps) else []


def _choose_series(series: list[list[Image]], listing: Listing, path: str | Path) -> list[Image]:
    """Of the axial series that cover the chest best: an original one, then the one with most images."""
    if not series:
        raise _no_images(listing, path)
    axial = [images for images in series if len(images) >= MIN_IMAGES and is_axial(images[0].header)]
    if not axial and listing.frames:
        raise _multi_frame(path)
    if not axial and [images[0].file for images in series] == [Path(path)]:
        problem = "is a single DICOM file; give the folder or a zip of the whole series"
        raise ScanError(path, problem, "single-dicom-file")
    if not axial:
        found = ", ".join(describe(images) for images in series)
        problem = (
            f"contains no axial CT series of at least {MIN_IMAGES} images (found: {found}); give an axial chest CT"
        )
        raise ScanError(path, problem, "no-axial-series")
    usable = [images for images in axial if not _is_projection(images[0])] or axial
    cover = [min(float(np.ptp(depths(images))), CHEST_MM) for images in usable]
    best = [images for images, length in zip(usable, cover, strict=True) if length >= SAME_COVER * max(cover)]
    chosen = max(best, key=lambda images: (not _is_derived(images), len(images)))
    if listing.frames > len(chosen):
        raise _multi_frame(path)
    return chosen


def _no_images(listing: Listing, path: str | Path) -> ScanError:
    if listing.frames:
        return _multi_frame(path)
    if listing.damaged:
        problem = f"contains {_damaged(listing)} and no CT images; {_RESTORE}"
        return ScanError(path, problem, "no-ct-images")
    passed_over = f" that can be used ({_passed_over(listing)})" if listing.passed_over else " in DICOM"
    problem = f"contains no CT images{passed_over}; give the folder or zip of one CT series"
    return ScanError(path, problem, "no-ct-images")


def _multi_frame(path: str | Path) -> ScanError:
    problem = "contains a multi-frame image of another kind than Enhanced CT, whose frames have no known position"
    return ScanError(path, f"{problem}; export it as Enhanced CT or as single images", "multi-frame")


def _is_projection(image: Image) -> bool:
    kinds = image_type(image.header) | {str(image.header.get("VolumeBasedCalculationTechnique"))}
    return bool(kinds & _PROJECTIONS)


def _is_derived(images: Sequence[Image]) -> bool:
    return bool(image_type(images[0].header) & {"DERIVED", "SECONDARY"})


def _damaged(listing: Listing) -> str:
    kinds = ", ".join(listing.damaged)
    return f"{listing.damaged.total()} files that cannot be opened or have a damaged header ({kinds})"


def _passed_over(listing: Listing) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in listing.passed_over.items())


def _warnings(chosen: list[Image], series: list[list[Image]], listing: Listing, path: str | Path) -> list[str]:
    """What was not read of the files, and why."""
    warnings = []
    if listing.damaged:
        problem = f"contains {_damaged(listing)}, which are ignored; {_RESTORE}"
        warnings.append(coded(path, problem, "damaged-headers"))
    if others := [describe(images) for images in series if images is not chosen]:
        problem = f"contains {len(series)} CT series; {describe(chosen)} was read, not: {', '.join(others)}. "
        problem += "Give the folder of another one to read that"
        warnings.append(coded(path, problem, "several-series"))
    if listing.passed_over:
        problem = (
            f"contains images that were not read: {_passed_over(listing)}; convert them if they belong to the scan"
        )
        warnings.append(coded(path, problem, "images-not-read"))
    if _is_derived(chosen):
        problem = "contains no original series of this length; the processing of derived images may affect findings"
        warnings.append(coded(path, problem, "derived-images"))
    return warnings
