"""A picture for any DICOM viewer: the table of findings, and the key image of each present finding and query."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from highdicom.sc import SCImage
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from bundle.ctfindings.inference.findings_record import Answer, Evidence, FindingsRecord
from bundle.ctfindings.inference.output.dicom.scan_answers import ScanAnswers
from bundle.ctfindings.inference.output.dicom.segmentation import evidence_planes
from bundle.ctfindings.inference.output.dicom.source_headers import derived_uid
from bundle.ctfindings.inference.output.dicom.structured_report import MANUFACTURER, series_description
from bundle.ctfindings.inference.output.report_pictures import display_window, window_grey
from bundle.ctfindings.scan.coordinates import as_affine
from bundle.ctfindings.scan.dicom_images import Image as SourceImage
from bundle.ctfindings.scan.dicom_pixels import read_pixels

WIDTH, ROW, MARGIN, CORNERS, TILE, TILES = 1240, 26, 24, 84, 286, 4
"""Pixels: of the picture, a row of the table, the margin at the sides, the margin above and below, where viewers write
into the corners, and a key image; and the number of key images in a row.
"""

_INK, _SOFT, _PRESENT, _OUTLINE, _NOTICE = "#e8edf2", "#93a1ae", "#ffb454", (255, 140, 26), "#ff7b72"
_COLUMNS = (MARGIN, 420, 560, 690, 860)


def secondary_capture(
    answers: ScanAnswers, headers: Sequence[pydicom.Dataset], settings: str, series_number: int
) -> SCImage:
    """The picture of one scan, RGB, without patient data in its pixels.

    Args:
        answers: the answers; the outlines of the evidence are drawn.
        headers: of the source images of the slices, by ``source_headers``; their files are read again.
        settings: text from which the UIDs are derived.
        series_number: of the new series.

    Raises:
        ScanError: if a key image cannot be decoded.
    """
    record = answers.record
    shown = [answer for answer in record.ordered() if answer.present] + list(record.queries)
    tiles = [
        (answer, _tile(answer, answer.evidence, answers, headers))
        for answer in shown
        if answer.evidence and answer.evidence.sop_instance_uid
    ]
    result = SCImage.from_ref_dataset(
        headers[0],
        np.asarray(_page(record, tiles)),
        "RGB",
        8,
        "PATIENT",
        derived_uid("capture series", settings),
        series_number,
        derived_uid("capture", settings),
        1,
        MANUFACTURER,
        patient_orientation=("L", "P"),
        series_description=series_description("table and key images"),
    )
    for name in ("PatientOrientation", "Laterality"):  # The page has none; each key image has its letters.
        setattr(result, name, None)
    result.BurnedInAnnotation = "NO"
    return result


def _page(record: FindingsRecord, tiles: Sequence[tuple[Answer, Image.Image]]) -> Image.Image:
    """The whole picture: notice, table, then the key images with their captions."""
    notes = [record.disclaimer, *([record.notice] if record.notice else [])]
    if record.warnings:
        notes.append(f"{len(record.warnings)} warnings about this scan and the weights: see the structured report.")
    font, bold = ImageFont.load_default(16), ImageFont.load_default(24)
    lines = [line for note in notes for line in _wrapped(note, font, WIDTH - 2 * MARGIN)]
    top = CORNERS + 54 + len(lines) * 22
    table = top + (len(record.findings) + len(record.queries) + 2) * ROW
    heights = [max(tile.height for _, tile in row) + 54 for row in _rows(tiles)]
    page = Image.new("RGB", (WIDTH, table + sum(heights) + CORNERS))
    draw = ImageDraw.Draw(page)
    model = record.model
    draw.text((MARGIN, CORNERS), f"CT Findings {model.version}: research only", _INK, bold)
    draw.text((WIDTH - MARGIN, CORNERS + 6), f"weights {model.weights_sha256[:16]}", _SOFT, font, anchor="ra")
    for number, line in enumerate(lines):
        draw.text((MARGIN, CORNERS + 36 + 22 * number), line, _NOTICE if line in (record.notice or "") else _INK, font)
    titles = ("Finding", "Probability", "Threshold", "Result", "Strongest evidence")
    rows: list[tuple[Sequence[str], str]] = [(titles, _SOFT)]
    for answer in record.ordered():
        probability, threshold = answer.numbers
        place = _place(answer.evidence) if answer.present else ""
        cells = (answer.name, probability, threshold, answer.result, place)
        rows.append((cells, _PRESENT if answer.present else _INK if answer.present is False else _SOFT))
    for query in record.queries:
        name = query.text if len(query.text) < 44 else query.text[:42] + "..."
        cells = (name, f"score {query.number}", "-", query.result, _place(query.evidence))
        rows.append((cells, _SOFT if query.not_assessed else _INK))
    for number, (texts, colour) in enumerate(rows):
        for x, text in zip(_COLUMNS, texts, strict=True):
            draw.text((x, top + ROW * number), text, colour, font)
    y = table
    for row, height in zip(_rows(tiles), heights, strict=True):
        for column, (answer, tile) in enumerate(row):
            x = MARGIN + column * (TILE + 16)
            page.paste(tile, (x, y))
            draw.text((x, y + tile.height + 4), answer.key[:34], _PRESENT, font)
            draw.text((x, y + tile.height + 24), _image_name(answer.evidence), _SOFT, font)
        y += height
    return page


def _rows(tiles: Sequence[Any]) -> list[Sequence[Any]]:
    return [tiles[start : start + TILES] for start in range(0, len(tiles), TILES)]


def _wrapped(text: str, font: Any, width: float) -> list[str]:
    """Lines of at most ``width`` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if font.getlength(longer) <= width else [*lines, word]
    return lines


def _place(evidence: Evidence | None) -> str:
    return "" if evidence is None else ", ".join(filter(None, [evidence.place, _image_name(evidence)]))


def _image_name(evidence: Evidence | None) -> str:
    return "" if evidence is None else f"{evidence.image_name}, z {evidence.z_mm:.0f} mm"


def _tile(answer: Answer, evidence: Evidence, answers: ScanAnswers, headers: Sequence[pydicom.Dataset]) -> Image.Image:
    """The source image of the peak in the window of its finding, ``TILE`` pixels wide, with an outline and letters."""
    header = headers[evidence.slice_index]
    file = Path(str(header.filename))
    (hu,) = read_pixels([SourceImage(file, header, evidence.frame_number)], file.name)
    grey = window_grey(hu, display_window(answer))
    rows, columns = (float(value) for value in header.PixelSpacing)
    size = TILE, max(round(TILE * grey.shape[0] * rows / (grey.shape[1] * columns)), 1)
    tile = Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR).convert("RGB")
    if (scores := answers.maps.get(answer.key)) is not None:
        scan = answers.record.scan
        planes = evidence_planes(scores, as_affine(answers.affine), as_affine(scan.affine), scan.shape)
        region = next(islice(planes, evidence.slice_index, None))
        tile = _outlined(tile, region)
    draw, font = ImageDraw.Draw(tile), ImageFont.load_default(14)
    left, right = _letters(header)
    draw.text((4, size[1] // 2), left, _INK, font, anchor="lm", stroke_width=1, stroke_fill="black")
    draw.text((size[0] - 4, size[1] // 2), right, _INK, font, anchor="rm", stroke_width=1, stroke_fill="black")
    return tile


def _letters(header: pydicom.Dataset) -> tuple[str, str]:
    """Where the rows of an image begin and end, in the patient."""
    row = np.array(header.ImageOrientationPatient[:3], float)
    axis = int(np.abs(row).argmax())
    begin, end = ("RL", "AP", "FH")[axis]
    return (begin, end) if row[axis] > 0 else (end, begin)


def _outlined(tile: Image.Image, region: NDArray[np.bool_]) -> Image.Image:
    """The tile with the border of a region ``[Y, X]`` of the source image."""
    scaled = np.asarray(Image.fromarray(region.astype(np.uint8) * 255).resize(tile.size, Image.Resampling.BILINEAR))
    inside = scaled > 127
    pixels = np.array(tile)
    pixels[inside & ~ndimage.binary_erosion(inside, iterations=2)] = _OUTLINE
    return Image.fromarray(pixels)
