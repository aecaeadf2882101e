"""Grammar of slice references in English and German: "series 3, image 45", "Se 3 Im 38-41", "(3/45)"."""

import re
from typing import Literal, NamedTuple

from bundle.ctfindings.reports.word_lists import ignoring_case

Form = Literal["series_image", "image_series", "series_number", "word_pair", "image_slash", "bare", "image_only"]


class Span(NamedTuple):
    """One image (``first == last``) or a range."""

    first: int
    last: int

    @property
    def middle(self) -> int:
        """The middle image; the lower of two."""
        return (self.first + self.last) // 2


class Reference(NamedTuple):
    """A part of a text that names images of a series, or a series alone.

    Attributes:
        start, end: offsets of its first character and after its last one.
        series: None when only images are named.
        images: empty when only a series is named, as in "all images refer to series 3".
        rule: its form. ``image_slash`` and ``bare`` ("Bild 4/86", "3/45") may mean something else: see
            ``reference_filters``.
        colon: whether a colon, not a slash, separates the numbers of a ``bare`` reference.
    """

    start: int
    end: int
    series: int | None
    images: tuple[Span, ...]
    rule: Form
    colon: bool = False


_SERIES = r"(?:series|serial|serien?|srs|sers?|se)"
_IMAGE = (
    r"(?:images?|imgs?|ima|(?:bild|schicht|schnitt)(?:er|ern|es|en|e)?|(?:bild|schicht)nummern?|(?:bild|schicht)nr|"
    r"slices?)"
)
_SECTION = r"(?:sections?|cuts?|frames?)"
# Too short or too common to be read without a series: German "im" is a preposition.
_AFTER_SERIES = rf"(?:{_IMAGE}|{_SECTION}|ims?|sl|i|b)"
_TO_NUMBER = r"\s*[-.]?\s*(?:(?:no|nos|nr|nrn|num|number|nummer)\b\.?)?\s*[.:=#]*\s*"
_NUMBER = r"\d{1,4}(?!\d)"
_WORD_START = r"(?<![^\W_])"

# These make a number a size, a dose or part of a decimal.
_TIME = r"(?:days?|weeks?|months?|years?|tagen?|wochen?|monaten?|jahren?)"
_MEASURE = r"(?:mm|cm|m|µm|ml|cc|hu|he|gy|mgy|kv|kvp|mas|ma|mmhg|ms|s|sec|sek|min|g|kg|l|%|°|[x×]\s*\d|[x×])"
_UNIT = rf"(?:{_TIME}|{_MEASURE})(?![^\W_])"
_NO_QUANTITY = (
    rf"(?!\s?/\s?\d+(?:[.,]\d+)?\s*{_UNIT})(?!\d)(?!\.\d)(?!,\d(?!\d))(?!,\d+\s*{_UNIT})(?!\s*-?{_UNIT})(?!\s*[%°×])"
)

# Between a series and its image: "series 3, image 45", "Serie 3 im Bild 45", "series 3 (lung window), image 45",
# "series 3 - image 45".
_BETWEEN = (
    r"(?:\s*\([^()\d]{2,40}\)|\s*[,;]\s*[^\d,;().]{2,30}(?=[,;]))?"
    r"(?:\s|[,;:/()|–—-]|\.(?!\s+[A-ZÄÖÜ])|\b(?:on|at|in|im|auf|an|dem|den|der|the|axial\w*|key)\b){0,8}?"
)
# Between images and their series: "image 45 of series 3" always binds; in "image 45, series 3" the series may belong to
# the next image.
_LINK = ignoring_case(r"[\s,(]*\b(?:of|in|from|on|der|aus|auf|von)\b(?:\s+(?:the|der|den|dem))?\s*(?:axial\w*\s+)?")
_LOOSE_LINK = re.compile(r"(?:\s|[,;/(-])*")
_SERIES_SIGN = re.compile(r"\s?(?:[/:]\s?|,\s?)(?=\d)")
_SIGN_NUMBER = re.compile(r"\s?[/:]\s?\d")

_PLURAL = ignoring_case("images|imgs|ims|bilder|bildern|slices|sections|schichten|schnitte|schnitten|cuts|frames")
_SERIES_HEAD = ignoring_case(rf"{_WORD_START}{_SERIES}{_TO_NUMBER}(?P<series>{_NUMBER})")
_SHORT_HEAD = ignoring_case(
    rf"{_WORD_START}s\.?\s?(?P<series>{_NUMBER})[\s,;/.]{{0,3}}(?P<word>im|img|i|bild|b)\.?:?\s?(?=\d)"
)
_PAIR_HEAD = ignoring_case(
    rf"{_WORD_START}(?:{_SERIES}|s)\.?\s?[/&+,-]\s?(?:{_AFTER_SERIES}){_TO_NUMBER}"
    rf"(?P<series>{_NUMBER})\s?[/:,-]\s?(?=\d)"
)
_IMAGE_HEAD = ignoring_case(rf"{_WORD_START}(?P<word>{_IMAGE}|{_SECTION}|im){_TO_NUMBER}(?=\d)")
_NEAR_IMAGE = ignoring_case(rf"{_BETWEEN}{_WORD_START}(?P<word>{_AFTER_SERIES}){_TO_NUMBER}(?=\d)")
_GLUED_IMAGE = ignoring_case(rf"(?P<word>{_AFTER_SERIES})\.?:?(?=\d)")
_BARE_HEAD = re.compile(rf"(?<![\w.,/:+-])(?P<series>{_NUMBER})\s?(?P<sign>[/:])\s?(?=\d)")
_HEADS = ignoring_case(
    rf"{_WORD_START}(?:{_SERIES}|{_IMAGE}|{_SECTION}|im|s)(?![^\W\d_])|(?<![\w.,/:+-])\d{{1,4}}\s?[/:]\s?\d"
)

_ITEM = ignoring_case(rf"(?P<number>{_NUMBER})")
_RANGE = ignoring_case(
    rf"\s*(?:[-–—]|to|bis|through|thru)\s*(?:{_AFTER_SERIES}{_TO_NUMBER})?(?P<number>{_NUMBER}){_NO_QUANTITY}"
)
_FOLLOWING = re.compile(r"\s?ff?\.?(?![^\W_])")
_QUANTITY_FOLLOWS = ignoring_case(rf"(?!{_NO_QUANTITY})")
_SIZE_FOLLOWS = ignoring_case(r"(?=\d|\.\d|,\d(?!\d)|\s*(?:mm|cm|[x×]\s*\d))")
# Not a year: "image 41 of 2022".
_TOTAL = ignoring_case(rf"\s*(?:of|von|out of)\s*(?!(?:199|20[0-3])\d(?!\d)){_NUMBER}{_NO_QUANTITY}(?!\s*[/:])")
_SLASH_NUMBER = ignoring_case(rf"\s?/\s?(?P<number>{_NUMBER})(?!\s?/){_NO_QUANTITY}")
_COMMA_ITEM = re.compile(r"\s*[,;+]\s*(?=\d)")
_AND_ITEM = ignoring_case(r"\s*,?\s*(?:&|\b(?:and|und|u\.|or|oder)(?=\s))\s*(?=\d)")
_ITEM_ENDS = ignoring_case(
    r"\s*(?:$|[,;.)\]&]|-\s|[-–—]\s*\d|"
    r"\b(?:and|und|u\.|bis|to|through|of\s+(?:the\s+)?se|in\s+se|der\s+se|in\s+der\s+se|aus\s+se))"
)
_LIST_ENDS = ignoring_case(r"\s*(?:$|[,;.)\]]|\b(?:and|und)\b)")
_BETWEEN_TWO = ignoring_case(r"(?<![^\W_])(?:between|zwischen)(?:\s+(?:the|den))?\s*$")
_AND_IMAGE = ignoring_case(rf"\s+(?:and|und)\s+(?:{_IMAGE}|{_SECTION}){_TO_NUMBER}(?P<number>{_NUMBER})")
_COUNTED = ignoring_case(r"(?:number of|anzahl(?: der)?|total(?: of)?|gesamt\w*|\bof \d+)\s*$")
_OPENED = ignoring_case(r"[(\[]\s*(?:see|siehe|s\.|e\.g\.,?|z\.\s?b\.)?\s*$")
_CLOSED = re.compile(r"\s*[)\]]")


def find_references(text: str) -> list[Reference]:
    """All references of a text in order, without overlap, certain and ambiguous ones.

    Sizes, doses and decimals are not images. Only the syntax counts, not the scan, the sentence or the earlier text.
    """
    references: list[Reference] = []
    position = 0
    while head := _HEADS.search(text, position):
        at = head.start()
        reference = _word_pair(text, at) or _from_series(text, at) or _from_image(text, at) or _bare(text, at)
        if reference:
            references.append(reference)
        position = reference.end if reference else max(head.end(), at + 1)
    return references


def _word_pair(text: str, at: int) -> Reference | None:
    """ "series/image 3/45", "Se/Im: 3/45"."""
    head = _PAIR_HEAD.match(text, at)
    parsed = head and _images(text, head.end(), many=True)
    if not head or not parsed:
        return None
    images, end = parsed
    return Reference(at, end, int(head["series"]), images, "word_pair")


def _from_series(text: str, at: int) -> Reference | None:
    """ "series 3, image 45", "S3 I45", "Serie 4/58", "series 4: 45, 52", or a series alone."""
    short = _SHORT_HEAD.match(text, at)
    if short and (parsed := _images(text, short.end(), many=False, in_series=True)):
        return Reference(at, parsed[1], int(short["series"]), parsed[0], "series_image")
    head = _SERIES_HEAD.match(text, at)
    if not head or _QUANTITY_FOLLOWS.match(text, head.end()):
        return None
    series, end = int(head["series"]), head.end()
    near = _near_image(text, end)
    if near:
        return Reference(at, near[1], series, near[0], "series_image")
    sign = _SERIES_SIGN.match(text, end)
    if sign and (parsed := _images(text, sign.end(), many=True)) and _LIST_ENDS.match(text, parsed[1]):
        # "(series 4, 45)" names an image; "in series 4, 45 nodules" and "series 3, 5 and 7" do not.
        alone = _CLOSED.match(text, parsed[1]) and _OPENED.search(text, max(0, at - 12), at)
        if alone or "," not in sign[0]:
            return Reference(at, parsed[1], series, parsed[0], "series_number")
    return Reference(at, end, series, (), "series_image")


def _near_image(text: str, end: int) -> tuple[tuple[Span, ...], int] | None:
    """The images directly behind a series that ends at ``end``."""
    head = _GLUED_IMAGE.match(text, end) or _NEAR_IMAGE.match(text, end)
    if not head or (head["word"].lower() in ("i", "b") and head.start("word") - end > 3):
        return None
    return _images(text, head.end(), _PLURAL.fullmatch(head["word"]) is not None, in_series=True)


def _from_image(text: str, at: int) -> Reference | None:
    """ "image 45 of series 3", "Bild 4/86", "images 38 and 42"."""
    head = _IMAGE_HEAD.match(text, at)
    if not head or _COUNTED.search(text, max(0, at - 24), at):
        return None
    word, many = head["word"].lower(), _PLURAL.fullmatch(head["word"]) is not None
    parsed = _images(text, head.end(), many, totals=True)
    if not parsed:
        return None
    images, end = parsed
    if _BETWEEN_TWO.search(text, max(0, at - 24), at):
        if len(images) == 1 and (other := _AND_IMAGE.match(text, end)):
            images, end = (*images, Span(int(other["number"]), int(other["number"]))), other.end()
        images = (Span(images[0].first, images[-1].last),)
    linked, loose = _LINK.match(text, end), _LOOSE_LINK.match(text, end)
    for link in (linked, loose):
        series = link and _SERIES_HEAD.match(text, link.end())
        if not series or _QUANTITY_FOLLOWS.match(text, series.end()):
            continue
        if link is linked or not _near_image(text, series.end()):
            return Reference(at, series.end(), int(series["series"]), images, "image_series")
    enclosed = _OPENED.search(text, max(0, at - 12), at) is not None
    if word == "im" and not (":" in head[0] or (enclosed and _CLOSED.match(text, end))):
        return None
    if re.fullmatch(_SECTION, word) and not enclosed:
        return None
    if images[0].last < (over := _over(text, head.end())) and re.match("im|bild", word):
        return Reference(at, end, images[0].first, (Span(over, over),), "image_slash")
    return Reference(at, end, None, images, "image_only")


def _bare(text: str, at: int) -> Reference | None:
    """ "3/45", "13:141", "3/38-41", "(3/45, 52)"."""
    head = _BARE_HEAD.match(text, at)
    number = head and _ITEM.match(text, head.end())
    if not head or not number or _SIGN_NUMBER.match(text, number.end()):
        return None
    parsed = _images(text, head.end(), many=True, slashes=False)
    if not parsed:
        return None
    images, end = parsed
    return Reference(at, end, int(head["series"]), images, "bare", head["sign"] == ":")


def _images(
    text: str, at: int, many: bool, in_series: bool = False, totals: bool = False, slashes: bool = True
) -> tuple[tuple[Span, ...], int] | None:
    """The images that start at ``at``, and the offset after the last; None when the number is a quantity.

    Args:
        many: whether the word before is a plural: "and 42" then names an image even if a word follows.
        in_series: whether series and image are in words: then only a unit of length makes a number a quantity.
        totals: whether "86/232" may be image 86 of 232.
        slashes: whether "66/67" may be two images.
    """
    first = _item(text, at, _SIZE_FOLLOWS if in_series else _QUANTITY_FOLLOWS)
    if first is None:
        return None
    spans, end = [first[0]], first[1]
    if slashes and (slashed := _SLASH_NUMBER.match(text, end)) and (in_series or totals or many):
        number = int(slashed["number"])
        if many or number < spans[0].first:
            spans.append(Span(number, number))
        end = slashed.end()
    elif total := _TOTAL.match(text, end):
        end = total.end()
    while True:
        comma, conjunction = _COMMA_ITEM.match(text, end), _AND_ITEM.match(text, end)
        separator = conjunction or comma
        following = separator and _item(text, separator.end())
        if not following or _SIGN_NUMBER.match(text, following[1]):
            break
        if not _ITEM_ENDS.match(text, following[1]) and not (many and conjunction):
            break
        spans.append(following[0])
        end = following[1]
    return tuple(spans), end


def _item(text: str, at: int, quantity: re.Pattern[str] = _QUANTITY_FOLLOWS) -> tuple[Span, int] | None:
    """One image or one range at ``at``, and the offset after it; None for a quantity and for 0."""
    number = _ITEM.match(text, at)
    if not number:
        return None
    first = last = int(number["number"])
    end = number.end()
    if found := _RANGE.match(text, end):
        last, end = int(found["number"]), found.end()
    elif quantity.match(text, end):
        return None
    if after := _FOLLOWING.match(text, end):
        end = after.end()
    if first == 0 or last == 0:
        return None
    return Span(min(first, last), max(first, last)), end


def _over(text: str, at: int) -> int:
    """The number behind the slash of "86/232" at ``at``; 0 without a slash."""
    number = _ITEM.match(text, at)
    slashed = number and _SLASH_NUMBER.match(text, number.end())
    return int(slashed["number"]) if slashed else 0
