"""The texts of a batch as embeddings, laid out like the rows of its scans: captions, reports, snippets,
observations."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.networks.text.text_tower import TextTower
from bundle.ctfindings.step_keys import NetworkOutputs


def caption_rows(text: TextTower, captions: Sequence[Mapping[str, str]], like: Tensor) -> tuple[Tensor, Tensor]:
    """Unit rows of the captions ``[B, K, E]``, zero without a caption, and their validity, bool ``[B, K]``.

    Args:
        text: Text tower.
        captions: For each scan, the captions by the name of their anatomy; at least one.
        like: Anatomy rows ``[B, K, E]``.
    """
    named = [(scan, row, name) for scan in range(len(captions)) for row, name in enumerate(ANATOMY_NAMES)]
    placed = [(scan, row, captions[scan][name]) for scan, row, name in named if captions[scan].get(name)]
    scans, rows, texts = zip(*placed, strict=True)
    return _placed(text(texts, "anatomy"), (scans, rows), like)


def report_rows(text: TextTower, reports: Sequence[str], like: Tensor) -> tuple[Tensor, Tensor]:
    """Unit rows of the reports ``[B, E]``, zero without a report, and their validity, bool ``[B]``.

    Args:
        text: Text tower.
        reports: Report of each scan, empty without one; at least one is not.
        like: Rows of the scans ``[B, E]``.
    """
    written = [index for index, report in enumerate(reports) if report]
    return _placed(text([reports[index] for index in written], "report"), (written,), like)


def _placed(embedded: Tensor, places: Sequence[Sequence[int]], like: Tensor) -> tuple[Tensor, Tensor]:
    index = tuple(torch.tensor(axis, device=like.device) for axis in places)
    valid = torch.zeros(like.shape[:-1], dtype=torch.bool, device=like.device)
    valid[index] = True
    return like.new_zeros(like.shape).index_put(index, embedded.to(like.dtype)), valid


def snippet_rows(
    text: TextTower, snippets: Sequence[Sequence[Mapping[str, Any]]], depth: Tensor, depth_mm: Tensor
) -> NetworkOutputs:
    """What ``SnippetLocalizationLoss`` reads: the snippets of the batch, each with the depth rows of its scan.

    Args:
        text: Text tower.
        snippets: For each scan, its snippets with ``text`` and world ``z_mm``; at least one.
        depth: Depth rows of the scans, ``[B, D, E]``.
        depth_mm: World z of the depth rows, NaN where padding, ``[B, D]``.
    """
    placed = [(scan, snippet) for scan, given in enumerate(snippets) for snippet in given]
    scans = torch.tensor([scan for scan, _ in placed], device=depth.device)
    return {
        "snippet": text([str(snippet["text"]) for _, snippet in placed], "snippet"),
        "target_mm": torch.tensor([float(snippet["z_mm"]) for _, snippet in placed], device=depth.device),
        "depth": depth[scans],
        "depth_mm": depth_mm[scans],
    }


def observation_rows(text: TextTower, observations: Sequence[Sequence[Mapping[str, Any]]]) -> Tensor:
    """Unit rows of the observations of all scans, one after the other, ``[O, E]``; there is at least one."""
    return text([str(observation["text"]) for given in observations for observation in given], "sentence")
