"""Clinical-aware augmentation of captions: shuffles and omits sentences."""

import zlib
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from monai.transforms import RandomizableTransform
from numpy.random import RandomState

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.reports.sentences import split_sentences
from bundle.ctfindings.reports.statements import Kind, read_statement


class RandCaptionsd(RandomizableTransform):
    """Shuffles the sentences of each caption and omits some of them, without changing whether the caption is normal.

    The clinical-aware text augmentation of CA-GCL (https://arxiv.org/abs/2605.13544). Its two ideas are published, its
    settings are our reading: *permutation invariance* (the order of the sentences carries no meaning) and *partial
    completeness* (a report that omits findings still describes the scan). A caption that is flagged abnormal keeps at
    least one sentence that states an abnormality of its anatomy; if no sentence is recognised as one, the caption keeps
    all sentences. Flags and identities (``caption_normal``, ``caption_id``) remain those of the original caption.

    Args:
        shuffle_prob, drop_prob: probabilities that sentences are shuffled and omitted, drawn for each anatomy.
        min_keep: lower limit of the share of sentences that remain, drawn uniformly from ``[min_keep, 1]``; one
            sentence always remains.
        prob: probability that a study is augmented.
        versions: number of versions of each caption, the same in every process and run, of which one is drawn: a text
            encoder with a cache reads each version once. 0 makes a new version every time.

    Raises:
        ValueError: when a probability or ``min_keep`` lies outside [0, 1], or ``versions`` is below 0.
    """

    keys = ("captions",)
    """What it changes: ``cached_dataset`` refuses random steps that change an image whose tokens are cached."""

    def __init__(
        self,
        shuffle_prob: float = 0.5,
        drop_prob: float = 0.5,
        min_keep: float = 0.5,
        prob: float = 1.0,
        versions: int = 0,
    ) -> None:
        shares = {"shuffle_prob": shuffle_prob, "drop_prob": drop_prob, "min_keep": min_keep, "prob": prob}
        for name, value in shares.items():
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name}: expected a number between 0 and 1, got {value}")
        if versions < 0:
            raise ValueError(f"versions: expected 0 (a new version every time) or more, got {versions}")
        RandomizableTransform.__init__(self, prob)
        self.shuffle_prob = shuffle_prob
        self.drop_prob = drop_prob
        self.min_keep = min_keep
        self.versions = versions

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """A copy of the study with augmented ``captions``, by anatomy, if it has some.

        The flags ``caption_normal`` ``[K]`` are in anatomy-table order; without them every caption counts as abnormal.
        """
        study = dict(data)
        self.randomize(None)
        if not self._do_transform or "captions" not in study:
            return study
        normal, captions = study.get("caption_normal"), {}
        for name, text in study["captions"].items():
            flag = normal is not None and bool(normal[ANATOMY_NAMES.index(name)])
            if self.versions:
                captions[name] = self.version(text, name, flag, int(self.R.randint(self.versions)))
            else:
                captions[name] = self._augmented(text, name, flag, self.R)
        study["captions"] = captions
        return study

    def version(self, text: str, anatomy: str, normal: bool, number: int) -> str:
        """Version ``number`` of a caption, counted from 0."""
        return self._augmented(text, anatomy, normal, RandomState([zlib.crc32(text.encode()), number]))

    def _augmented(self, text: str, anatomy: str, normal: bool, state: RandomState) -> str:
        sentences, abnormal = sentences_with_flags(text, anatomy)
        kept = list(range(len(sentences)))
        if state.random() < self.drop_prob and (normal or any(abnormal)):
            kept = _subset(abnormal, state.uniform(self.min_keep, 1.0), not normal, state)
        if state.random() < self.shuffle_prob:
            kept = [kept[i] for i in state.permutation(len(kept))]
        return " ".join(sentences[i] for i in kept) if kept != list(range(len(sentences))) else text


def _subset(abnormal: Sequence[bool], share: float, keeps_abnormal: bool, state: RandomState) -> list[int]:
    """Sorted indices of a random share of the sentences, at least one; with ``keeps_abnormal`` one is abnormal."""
    count = max(1, round(share * len(abnormal)))
    kept = sorted(int(i) for i in state.permutation(len(abnormal))[:count])
    if keeps_abnormal and not any(abnormal[i] for i in kept):
        candidates = [i for i, flag in enumerate(abnormal) if flag]
        kept[int(state.randint(len(kept)))] = candidates[int(state.randint(len(candidates)))]
    return sorted(kept)


@lru_cache(maxsize=1 << 16)
def sentences_with_flags(caption: str, anatomy: str) -> tuple[tuple[str, ...], tuple[bool, ...]]:
    """Sentences of a caption, and which of them state an abnormality of its anatomy.

    If the rules of ``statements`` find none, the sentences that state an abnormality of any anatomy are flagged, and
    without such sentences those of kind ``OTHER``, which are the likeliest to be abnormal.
    """
    sentences = tuple(sentence.text for sentence in split_sentences(caption))
    statements = [read_statement(sentence) for sentence in sentences]
    for chosen in (
        [s.kind is Kind.ABNORMAL and (anatomy == "thorax" or anatomy in s.abnormal) for s in statements],
        [s.kind is Kind.ABNORMAL for s in statements],
        [s.kind is Kind.OTHER for s in statements],
    ):
        if any(chosen):
            return sentences, tuple(chosen)
    return sentences, (False,) * len(sentences)
