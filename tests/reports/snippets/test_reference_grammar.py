"""The grammar of slice references, without any guard."""

import time

import pytest

from bundle.ctfindings.reports.snippets.reference_grammar import Span, find_references


@pytest.mark.parametrize(
    ("text", "series", "images", "rule"),
    [
        ("series 3, image 45", 3, [(45, 45)], "series_image"),
        ("Serie 3 im Bild 45", 3, [(45, 45)], "series_image"),
        ("se3im45", 3, [(45, 45)], "series_image"),
        ("S2 I77", 2, [(77, 77)], "series_image"),
        ("Series: 8; Image: 15", 8, [(15, 15)], "series_image"),
        ("series 3 (portal venous phase), image 301", 3, [(301, 301)], "series_image"),
        ("Se: 3, Im: 86/232", 3, [(86, 86)], "series_image"),
        ("series 4, image 102 of 340", 4, [(102, 102)], "series_image"),
        ("series 3, images 12 and 20-24", 3, [(12, 12), (20, 24)], "series_image"),
        ("Se 4 Im 33 u. 35", 4, [(33, 33), (35, 35)], "series_image"),
        ("Bild 57 der Serie 3", 3, [(57, 57)], "image_series"),
        ("images 41 and 55 of series 3", 3, [(41, 41), (55, 55)], "image_series"),
        ("Serie 4/58", 4, [(58, 58)], "series_number"),
        ("(series 4: 45, 52)", 4, [(45, 45), (52, 52)], "series_number"),
        ("Se/Im: 3/45", 3, [(45, 45)], "word_pair"),
        ("Bild 4/86", 4, [(86, 86)], "image_slash"),
        ("(3/38-41)", 3, [(38, 41)], "bare"),
        ("(13:141)", 13, [(141, 141)], "bare"),
        ("IMA 99", None, [(99, 99)], "image_only"),
    ],
)
def test_forms_of_a_reference(text: str, series: int | None, images: list[tuple[int, int]], rule: str) -> None:
    (reference,) = find_references(text)
    assert (reference.series, list(reference.images), reference.rule) == (
        series,
        [Span(*ends) for ends in images],
        rule,
    )


@pytest.mark.parametrize(
    "text",
    [
        "slice thickness of 1.5 mm",
        "Schicht 5 mm",
        "image 11 mm in size",
        "Image 12 x 8 cm field of view",
        "im 3. ICR",
        "Im 6. Segment",
        "in the sections, 2 lesions",
        "Number of images: 320",
        "27/01/2017",
        "L4/5",
        "a series of 3 images",
    ],
)
def test_sizes_prepositions_counts_and_dates_are_no_images(text: str) -> None:
    assert [reference for reference in find_references(text) if reference.images] == []


def test_an_image_goes_with_the_series_it_stands_beside() -> None:
    text = "image 57 of series 3, image 60 of series 4, image 12, series 5 image 45"
    assert [(r.series, r.images[0].first) for r in find_references(text)] == [(3, 57), (4, 60), (None, 12), (5, 45)]


def test_a_series_alone_is_reported_without_images() -> None:
    (reference,) = find_references("All image numbers refer to series 3.")
    assert (reference.series, reference.images) == (3, ())


def test_offsets_enclose_the_reference() -> None:
    text = "Nodule (Se. 3, Im. 45) in the lingula."
    (reference,) = find_references(text)
    assert text[reference.start : reference.end] == "Se. 3, Im. 45"


@pytest.mark.parametrize(
    "text", ["series " * 4000, "3/" * 8000, "image 3, " * 4000, "(" * 8000, "series 1 " + "a " * 8000, "1:2 " * 5000]
)
def test_hostile_text_takes_no_longer_than_its_length(text: str) -> None:
    started = time.process_time()
    find_references(text)
    assert time.process_time() - started < 2.0
