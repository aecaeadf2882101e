"""Clinical-aware augmentation of captions: another order of the sentences, and fewer of them."""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from numpy.random import RandomState

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.reports.sentences import split_sentences
from bundle.ctfindings.reports.statements import Kind, read_statement


class RandCaptionsd(RandomizableTransform, MapTransform):
    """Shuffles the sentences of each anatomy's caption, and leaves some out, without changing what the caption says of
    health and disease.

    The clinical-aware text augmentation of CA-GCL (https://arxiv.org/abs/2605.13544), whose two ideas are published and
    whose settings are our reading: *permutation invariance* (what a report says does not depend on the order of its
    sentences) and *partial completeness* (a report that leaves out findings still describes the scan). Two constraints
    hold. A caption that is flagged abnormal keeps at least one sentence that states an abnormality of its anatomy;
    where no sentence is recognised as one, the caption is shuffled and keeps all. Flags and identities
    (``caption_normal``, ``caption_id``) are those of the original caption: they are never read from the text
    afterwards.

    Args:
        keys: key of the captions, a mapping of anatomy names to texts; other keys of the study stay as they are.
        shuffle_prob: probability that the sentences of a caption are shuffled, drawn for each anatomy.
        drop_prob: probability that a caption loses sentences, drawn for each anatomy.
        min_keep: least share of the sentences that stays, drawn uniformly from ``[min_keep, 1]``; at least one sentence
            stays.
        prob: probability that a study is augmented at all.
        versions: how many versions of a caption there are in all, the same in every process and run, from which one is
            drawn; an encoder that keeps what it has read then reads each once. 0 makes a new one every time.
        normal_key: key of the flags ``[K]`` in the order of the anatomy table; without it every caption counts as
            abnormal.
        allow_missing_keys: studies without captions pass.

    Raises:
        ValueError: when a probability or ``min_keep`` lies outside [0, 1], or ``versions`` is below 0.

    Example:
        >>> transform = RandCaptionsd(shuffle_prob=1.0, drop_prob=0.0).set_random_state(seed=0)
        >>> text = "Heart size is normal. Pericardial effusion is seen."
        >>> sorted(transform({"captions": {"heart": text}})["captions"]["heart"].split(". "))
        ['Heart size is normal.', 'Pericardial effusion is seen']
    """

    def __init__(
        self,
        keys: KeysCollection = "captions",
        shuffle_prob: float = 0.5,
        drop_prob: float = 0.5,
        min_keep: float = 0.5,
        prob: float = 1.0,
        versions: int = 0,
        normal_key: str = "caption_normal",
        allow_missing_keys: bool = True,
    ) -> None:
        for name, value in (
            ("shuffle_prob", shuffle_prob),
            ("drop_prob", drop_prob),
            ("min_keep", min_keep),
            ("prob", prob),
        ):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} is {value}; it must lie between 0 and 1")
        if versions < 0:
            raise ValueError(f"versions is {versions}; it must be 0, for a new one every time, or more")
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.shuffle_prob = shuffle_prob
        self.drop_prob = drop_prob
        self.min_keep = min_keep
        self.versions = versions
        self.normal_key = normal_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """A study with augmented captions; the given one is not changed."""
        study = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return study
        normal = study.get(self.normal_key)
        for key in self.key_iterator(study):
            study[key] = {
                name: self._drawn(text, name, normal is not None and bool(normal[ANATOMY_NAMES.index(name)]))
                for name, text in study[key].items()
            }
        return study

    def _drawn(self, text: str, anatomy: str, normal: bool) -> str:
        if self.versions == 0:
            return self._augmented(text, anatomy, normal, self.R)
        return self.version(text, anatomy, normal, int(self.R.randint(self.versions)))

    def version(self, text: str, anatomy: str, normal: bool, number: int) -> str:
        """One of the versions of a caption.

        Args:
            text: the caption.
            anatomy: its anatomy.
            normal: its flag.
            number: below ``versions``.
        """
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
    """Indices, in order, of a random share of the sentences, at least one; with an abnormal one among them when that is
    asked for.
    """
    count = max(1, round(share * len(abnormal)))
    kept = sorted(int(i) for i in state.permutation(len(abnormal))[:count])
    if keeps_abnormal and not any(abnormal[i] for i in kept):
        candidates = [i for i, flag in enumerate(abnormal) if flag]
        kept[int(state.randint(len(kept)))] = candidates[int(state.randint(len(candidates)))]
    return sorted(kept)


@lru_cache(maxsize=1 << 16)
def sentences_with_flags(caption: str, anatomy: str) -> tuple[tuple[str, ...], tuple[bool, ...]]:
    """Sentences of a caption, and which of them state an abnormality of its anatomy.

    Where none does by the rules of ``report_statements``, sentences that state any abnormality are taken, and then
    those that neither deny nor call normal nor remark on the examination: captions in other words than the rules know
    still keep what is likeliest abnormal.
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
