"""Depths of snippets without their scan: what the words alone tell, and what any other scan would answer.

A localization that is no better than these has not looked at the scan. Shapes: n snippets, D depth rows, E embedding.
"""

import re
from collections.abc import Hashable, Sequence

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from torch import Tensor

from bundle.ctfindings.metrics.classification import FloatArray
from bundle.ctfindings.metrics.localization import share_of_height
from bundle.ctfindings.networks.image.depth import depth_logits
from bundle.ctfindings.reports.assertion import Assertion
from bundle.ctfindings.reports.finding_mentions import find_mentions

PENALTIES = tuple(10.0**power for power in range(-2, 4))

LOBES = ("lower", "middle", "upper")
"""Lobes by the third of the lungs that stands for them, from below. The lingula is read as the middle lobe."""

_SIDE = re.compile(r"\b(?:left|right|both|bilateral)")
# "upper and lower lobes" names two.
_LOBE = re.compile(
    r"\b(lower|middle|upper)\b(?=(?:[ ,/]+(?:and|or|lower|middle|upper)\b)*[ ]+lob(?:es?|ar)\b)|\b(lingul)"
)


def shares_by_text(known: Sequence[str], shares: FloatArray, texts: Sequence[str]) -> FloatArray:
    """Share of the height of its scan that each text speaks of, [n], by ridge regression on TF-IDF of the words.

    Fitted on texts of other patients and their shares; the penalty is chosen by leave-one-out cross-validation.
    """
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\b\w+\b"), RidgeCV(PENALTIES)
    )
    return model.fit(list(known), shares).predict(list(texts))


def shares_by_finding_and_side(known: Sequence[str], shares: FloatArray, texts: Sequence[str]) -> FloatArray:
    """Mean share of the texts of other patients that state the same findings on the same side, [n].

    The report reader says what a text states. Where no known text has the side, the mean of the findings counts, and
    where none has the findings, that of all texts.
    """
    groups: dict[Hashable, list[float]] = {}
    for text, share in zip(known, shares.tolist(), strict=True):
        for group in _groups(text):
            groups.setdefault(group, []).append(share)
    nearest = [next(groups[group] for group in _groups(text) if group in groups) for text in texts]
    return np.asarray([np.mean(group) for group in nearest])


def _groups(text: str) -> tuple[Hashable, ...]:
    """The groups that a text belongs to, the narrowest first."""
    findings = frozenset(name for name, said in find_mentions(text).items() if said is Assertion.PRESENT)
    sides = frozenset(_SIDE.findall(text.lower()))
    either = frozenset({"left", "right"}) if sides & {"both", "bilateral"} else sides
    return (findings, either), findings, None


def lobe_named(text: str) -> str | None:
    """The one of ``LOBES`` that a text names; None if it names several, or none."""
    named = {lobe or "middle" for lobe, _ in _LOBE.findall(text.lower())}
    return named.pop() if len(named) == 1 else None


def middle_of_lobe(lobe: str, lung_mm: FloatArray) -> float:
    """World z of the middle of the third of the lungs that stands for a lobe.

    No mask here knows the lobes. ``lung_mm`` is the world z of the lowest and highest point of both lungs, [2].
    """
    low, high = lung_mm.tolist()
    return float(low + (LOBES.index(lobe) + 0.5) / len(LOBES) * (high - low))


def shares_by_other_scan(
    snippets: Tensor, patients: Sequence[str], depth: Sequence[Tensor], depth_mm: Sequence[Tensor]
) -> FloatArray:
    """Share of the height at which each snippet is found in the next scan of another patient, [n].

    Args:
        snippets: Unit embeddings, [n, E].
        patients: Patient of each snippet.
        depth: Unit depth rows of the scan of each snippet, [D, E] each.
        depth_mm: World z of the rows in mm, NaN for padding, [D] each.

    Raises:
        ValueError: All snippets are of one patient.
    """
    shares = []
    for place, patient in enumerate(patients):
        following = [*range(place + 1, len(patients)), *range(place)]
        other = next((one for one in following if patients[one] != patient), None)
        if other is None:
            raise ValueError("all snippets are of one patient; another scan is needed as a control")
        z_mm = depth_mm[other]
        logits = depth_logits(depth[other], snippets[place : place + 1])[0].masked_fill(z_mm.isnan(), -torch.inf)
        shares.append(share_of_height(z_mm[logits.argmax()].numpy()[None], z_mm.numpy()[None])[0])
    return np.asarray(shares)
