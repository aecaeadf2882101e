"""Depths of snippets without their scan: what the words alone tell, and what any other scan would answer.

A localization that is no better than these has not looked at the scan. Shapes: n snippets, D depth rows, E embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from torch import Tensor

from bundle.ctfindings.metrics.classification import FloatArray
from bundle.ctfindings.metrics.localization import share_of_height
from bundle.ctfindings.networks.image.depth import depth_logits

PENALTIES = tuple(10.0**power for power in range(-2, 4))


def shares_by_text(known: Sequence[str], shares: FloatArray, texts: Sequence[str]) -> FloatArray:
    """Share of the height of its scan that each text speaks of, [n], by ridge regression on TF-IDF of the words.

    Fitted on texts of other patients and their shares; the penalty is chosen by leave-one-out cross-validation.
    """
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\b\w+\b"), RidgeCV(PENALTIES)
    )
    predicted: FloatArray = model.fit(list(known), shares).predict(list(texts))
    return predicted


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
