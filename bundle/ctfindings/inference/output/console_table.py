"""The table of findings as plain text for a terminal."""

from textwrap import shorten, wrap

from bundle.ctfindings.inference.findings_record import Answer, FindingAnswer, FindingsRecord, where

WIDTH = 100
"""Longest line, in characters."""

_NAME, _PLACE = 36, 24
_VERDICTS = {True: "YES", False: "no", None: "not assessed"}


def format_findings(record: FindingsRecord) -> str:
    """Findings (present ones first), queries, warnings and times, in lines of at most ``WIDTH`` characters."""
    scan, model = record.scan, record.model
    size = " x ".join(str(count) for count in scan.shape)
    spacing = " x ".join(f"{step:.2f}" for step in scan.spacing_mm)
    lines = [
        f"Scan   {shorten(printable(scan.file), WIDTH - 7, placeholder='...')}",
        f"       {scan.format}, {size} voxels, {spacing} mm, {scan.orientation}",
        f"Model  {model.bundle} {model.version}, {model.network}, weights {model.weights_sha256[:12]}",
        *(wrap(record.notice, WIDTH) if record.notice else ()),
        "",
    ]
    if all(answer.present is None for answer in record.findings):
        lines.append(f"None of {len(record.findings)} findings was assessed; findings.json has their probabilities.")
    else:
        lines += [_row("Finding", "prob", "thresh", "present", "where", "z mm", "image"), "-" * WIDTH]
        lines += [_answer_row(answer) for answer in record.ordered()]
    lines += [part for line in record.unassessed() for part in wrap(line, WIDTH)]
    if record.queries:
        lines += ["", _row("Query", "score", "", "", "where", "z mm", "image"), "-" * WIDTH]
        for answer in record.queries:
            said = " ".join([answer.meaning, *answer.hints]).strip()
            lines += [_answer_row(answer), *wrap(printable(said), WIDTH, initial_indent="  ", subsequent_indent="  ")]
    if any(answer.borderline for answer in record.findings):
        lines += ["", "~ borderline: single prompt templates lie on both sides of the threshold"]
    lines.append("")
    for warning in record.warnings:
        lines += wrap(f"Warning: {printable(warning)}", WIDTH, subsequent_indent="         ")
    if record.seconds:
        stages = ", ".join(f"{stage} {value:.1f}" for stage, value in record.seconds.items())
        lines += wrap(f"Seconds: {stages}", WIDTH, subsequent_indent=" " * 9)
    lines += wrap(record.disclaimer, WIDTH)
    return "\n".join(line.rstrip() for line in lines)


def _answer_row(answer: Answer) -> str:
    if isinstance(answer, FindingAnswer):
        label, present = answer.name, _VERDICTS[answer.present] + " ~" * answer.borderline
        number, threshold = answer.numbers
        place = answer.evidence if answer.present else None
    else:
        label, number, threshold, place = answer.text, answer.number, "", answer.evidence
        present = _VERDICTS[None] if answer.not_assessed else ""
    return _row(
        shorten(printable(label), _NAME, placeholder="..."),
        number,
        threshold,
        present,
        where(answer),
        f"{place.z_mm:.0f}" if place else "",
        str(place.image) if place else "",
    )


def printable(text: str) -> str:
    """A text on one line, without control characters, which would steer a terminal."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def _row(name: str, probability: str, threshold: str, present: str, place: str, z_mm: str, image: str) -> str:
    return f"{name:<{_NAME}} {probability:>6} {threshold:>6} {present:<12} {place:<{_PLACE}} {z_mm:>5} {image:>5}"
