"""Reports of synthetic scans: true of the case, varied, and apart from the scoring templates."""

import re
from collections import Counter

import numpy as np
import pytest

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.findings import FINDING_NAMES, FINDINGS, TEMPLATES, fill_template
from bundle.ctfindings.phantom.case import Case, Site
from bundle.ctfindings.phantom.report.write_report import Report, write_report

ANATOMY_OF = {finding.name: finding.anatomy for finding in FINDINGS}
PARTS = {  # the places the renderer may give
    "Medical material": ("pacemaker", "central venous catheter", "sternal wires", "chest tube", "surgical clips"),
    "Arterial wall calcification": ("aortic arch", "descending aorta", "ascending aorta", None),
    "Coronary artery wall calcification": (
        "left anterior descending artery",
        "circumflex artery",
        "right coronary artery",
    ),
    "Lymphadenopathy": ("paratracheal", "subcarinal", "hilar", "prevascular"),
}
LOBES = ("upper lobe", "middle lobe", "lingula", "lower lobe", "apex", "base", None)
SIZED = ("Lung nodule", "Consolidation", "Lymphadenopathy", "Hiatal hernia", "Pleural effusion")
REFERENCE = re.compile(
    r"ser?i?e?s? (\d+), im(?:age)? (\d+)|image (\d+) of series (\d+)|image (\d+), series (\d+)", re.IGNORECASE
)


def _words(text: str) -> str:
    return " ".join("".join(c for c in text.lower() if c.isalnum() or c == " ").split())


def _site(name: str, rng: np.random.Generator) -> Site:
    lung = ANATOMY_OF[name] == "lung" and name != "Pleural effusion"
    places = PARTS.get(name, LOBES if lung else (None,))
    return Site(
        finding=name,
        severity=float(rng.random()),
        side=(None, "left", "right", "bilateral")[rng.integers(4)],
        location=places[rng.integers(len(places))],
        kind=(None, "solid", "ground-glass", "calcified")[rng.integers(4)] if name == "Lung nodule" else None,
        size_mm=float(rng.uniform(3, 60)) if name in SIZED else None,
        count=int(rng.integers(1, 6)) if lung else 1,
        center_mm=(0.0, 0.0, float(rng.uniform(-150, 150))) if rng.random() < 0.9 else None,
    )


def _case(seed: int, rate: float = 0.25) -> Case:
    rng = np.random.default_rng(seed)
    labels = tuple(int(rng.random() < rate) for _ in FINDING_NAMES)
    sites = [
        _site(name, rng)
        for name, label in zip(FINDING_NAMES, labels, strict=True)
        if label
        for _ in range(rng.integers(1, 5))
    ]
    return Case(
        seed,
        f"phantom_{seed:06d}",
        labels,
        sites,
        image_count=120,
        z_bottom_mm=-180.0,
        spacing=(2.0, 2.0, 3.0),
        series=3,
    )


def _single(name: str, site: Site) -> Case:
    labels = tuple(int(known == name) for known in FINDING_NAMES)
    return Case(0, "phantom_000000", labels, [site], image_count=100, z_bottom_mm=0.0, series=3)


@pytest.fixture(scope="module")
def written() -> list[tuple[Case, Report]]:
    cases = [_case(seed, rate=0.05 + 0.5 * (seed % 7) / 6) for seed in range(300)]
    return [(case, write_report(case, np.random.default_rng(case.seed))) for case in cases]


def test_the_same_seed_gives_the_same_report_and_another_seed_another():
    case = _case(5)
    first, again, other = (write_report(case, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == again
    assert first.findings != other.findings


def test_slice_references_name_the_image_of_a_site_of_the_stated_finding(written):
    seen = 0
    for case, report in written:
        for sentence in report.sentences:
            match = REFERENCE.search(sentence.text)
            assert (match is None) == (sentence.snippet is None), sentence.text
            if match is None:
                continue
            seen += 1
            a, b, c, d, e, f = match.groups()
            series, image = (int(a), int(b)) if a else (int(d), int(c)) if d else (int(f), int(e))
            heights = [site.center_mm[2] for site in case.sites if site.finding in sentence.findings and site.center_mm]
            assert series == case.series
            assert min(abs(z - case.z_of_image(image)) for z in heights) <= case.spacing[2] / 2 + 1e-6
            assert (sentence.snippet.image, sentence.snippet.z_mm) == (image, case.z_of_image(image))
    assert seen > 100


def test_snippets_are_the_sentences_without_their_reference(written):
    for _, report in written:
        assert report.snippets == [sentence.snippet for sentence in report.sentences if sentence.snippet]
        for snippet in report.snippets:
            assert not re.search(r"series|image|\bse \d|\bim \d", snippet.text, re.IGNORECASE)
            assert snippet.text.endswith(".") and "  " not in snippet.text


def test_about_half_of_the_localised_sites_are_referenced():
    sites = references = 0
    for seed in range(600):
        case = _single("Lung nodule", Site("Lung nodule", 0.8, "left", "lower lobe", "solid", 8.0, 1, (0.0, 0.0, 90.0)))
        sites += 1
        references += len(write_report(case, np.random.default_rng(seed)).snippets)
    assert 0.4 < references / sites < 0.75


def test_what_is_stated_is_present_and_grave_findings_are_never_left_out(written):
    for case, report in written:
        present = {name for name, label in zip(FINDING_NAMES, case.labels, strict=True) if label}
        stated = {name for sentence in report.sentences for name in sentence.findings}
        grave = {site.finding for site in case.sites if site.severity >= 0.4}
        assert grave <= stated <= present


POSITIVE_STEMS = {
    "Cardiomegaly": "cardiomegaly|enlarged heart|heart is .*enlarged",
    "Hiatal hernia": "hernia",
    "Emphysema": "emphysem",
    "Atelectasis": "atelecta",
    "Pleural effusion": "pleural (effusion|fluid)",
    "Pericardial effusion": "pericardial (effusion|fluid)",
    "Bronchiectasis": "bronchiecta",
    "Consolidation": "consolidat",
    "Mosaic attenuation pattern": "mosaic",
    "Lymphadenopathy": "adenopathy|lymph node",
    "Coronary artery wall calcification": "coronary",
}
DENIAL = re.compile(r"\b(no|not|without|negative|excluded|free|neither|normal|zero|dry|lacking)\b", re.IGNORECASE)


def test_a_sentence_that_names_an_absent_finding_denies_it(written):
    for case, report in written:
        for sentence in report.sentences:
            for name, stem in POSITIVE_STEMS.items():
                if case.labels[FINDING_NAMES.index(name)] == 0 and re.search(stem, sentence.plain, re.IGNORECASE):
                    assert DENIAL.search(sentence.plain), (name, sentence.plain)
            if not sentence.findings:
                continue
            assert not re.match(r"No |Without |Negative ", sentence.plain), sentence.plain


def test_a_present_finding_is_never_denied(written):
    denials = 0
    for case, report in written:
        for sentence in report.sentences:
            denials += len(sentence.denied)
            assert not {name for name in sentence.denied if case.labels[FINDING_NAMES.index(name)]}, sentence.plain
    assert (
        0.1 < denials / sum(case.labels.count(0) for case, _ in written) < 0.5
    )  # most of the absent ones are not mentioned


@pytest.mark.parametrize("name", FINDING_NAMES)
def test_a_finding_has_many_wordings_that_differ_beyond_their_slots(name):
    frames = set()
    for seed in range(300):
        case = _single(name, Site(name, 0.9, "left" if ANATOMY_OF[name] == "lung" else None, None, None, None, 1, None))
        report = write_report(case, np.random.default_rng(seed))
        frames |= {_words(sentence.plain) for sentence in report.sentences if name in sentence.findings}
    assert len(frames) >= 20  # at least six are asked for


def test_an_absent_finding_is_denied_in_at_least_four_wordings():
    texts: dict[str, set[str]] = {name: set() for name in FINDING_NAMES}
    for seed in range(300):
        for sentence in write_report(Case(0, "p", (0,) * 18), np.random.default_rng(seed)).sentences:
            for name in sentence.denied:
                texts[name].add(sentence.plain)
    assert min(map(len, texts.values())) >= 4


def test_no_sentence_equals_a_filled_scoring_template(written):
    scoring = {
        _words(fill_template(text, name))
        for name in FINDING_NAMES
        for pair in TEMPLATES
        for text in (pair.positive, pair.negative)
    }
    for _, report in written:
        assert not scoring & {_words(sentence.plain) for sentence in report.sentences}
        for text in (report.findings, report.impression, *(caption.text for caption in report.captions.values())):
            assert not scoring & {_words(part) for part in re.split(r"(?<=[.])\s|\n", text)}


def test_a_scan_without_findings_has_only_normal_captions():
    for seed in range(50):
        report = write_report(Case(seed, "p", (0,) * 18), np.random.default_rng(seed))
        assert report.captions["thorax"].normal and all(caption.normal for caption in report.captions.values())
        assert not report.snippets


def test_a_caption_is_normal_exactly_when_no_finding_of_its_anatomy_is_stated(written):
    for _, report in written:
        stated = {ANATOMY_OF[name] for sentence in report.sentences for name in sentence.findings}
        for anatomy, caption in report.captions.items():
            assert caption.normal == (not stated if anatomy == "thorax" else anatomy not in stated)
        assert stated <= set(report.captions)


def test_an_anatomy_that_is_not_mentioned_has_no_caption(written):
    missing = Counter()
    for _, report in written:
        named = {anatomy for sentence in report.sentences for anatomy in sentence.anatomies} | {"thorax"}
        assert set(report.captions) == named
        missing.update(set(ANATOMY_NAMES) - named)
    assert missing["esophagus"] > 0


def test_mild_findings_are_left_out_now_and_then():
    case = _single("Emphysema", Site("Emphysema", 0.1, "bilateral", None))
    silent = sum(
        not any(s.findings for s in write_report(case, np.random.default_rng(seed)).sentences) for seed in range(1000)
    )
    assert 90 < silent < 160  # 12.5 % of 1000, more than three standard deviations either side


def test_normal_statements_are_shared_over_anatomies_and_some_name_no_organ(written):
    plain = {sentence.plain for _, report in written for sentence in report.sentences if not sentence.findings}
    for organ in ("heart", "aorta", "oesophagus", "mediastinum"):
        assert f"No abnormality in the {organ}." in plain
    anatomies_of = {
        anatomy
        for _, r in written
        for s in r.sentences
        if s.plain == "Nothing abnormal to report."
        for anatomy in s.anatomies
    }
    assert len(anatomies_of) >= 3


def test_sentences_are_well_formed(written):
    for _, report in written:
        for sentence in report.sentences:
            assert re.fullmatch(r"[A-Z0-9].*[^ .,]\.", sentence.text), sentence.text
            assert not re.search(
                r"  | [.,;:]|\(\)|\bNone\b|[{}+\x01]|,,|\b[Aa] [aeio]|\b[Aa]n [bcdfgjklmpqrstvwz]", sentence.text
            ), sentence.text
            assert sentence.text in report.findings + "\n" + report.impression
