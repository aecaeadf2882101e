"""The texts of a batch as embeddings, laid out beside the rows of its scans: captions, reports, and sentences that name
a slice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.networks.text.text_tower import TextTower


def caption_rows(text: TextTower, captions: Sequence[Mapping[str, str]], like: Tensor) -> tuple[Tensor, Tensor]:
    """Unit rows of the captions of each scan, laid out as the anatomy rows, and which there are.

    Args:
        text: the text tower.
        captions: for each scan the caption of each anatomy that its report speaks of; at least one.
        like: the anatomy rows ``[B, K, E]``.

    Returns:
        ``[B, K, E]``, zero where there is no caption, and bool ``[B, K]``.
    """
    places = [
        (scan, row, given[name])
        for scan, given in enumerate(captions)
        for row, name in enumerate(ANATOMY_NAMES)
        if given.get(name)
    ]
    embedded = text([caption for _, _, caption in places], "anatomy")
    scans = torch.tensor([scan for scan, _, _ in places], device=like.device)
    rows = torch.tensor([row for _, row, _ in places], device=like.device)
    caption = like.new_zeros(like.shape).index_put((scans, rows), embedded.to(like.dtype))
    valid = torch.zeros(like.shape[:2], dtype=torch.bool, device=like.device)
    valid[scans, rows] = True
    return caption, valid


def report_rows(text: TextTower, reports: Sequence[str], like: Tensor) -> tuple[Tensor, Tensor]:
    """Unit rows of the reports, and which scans have one.

    Args:
        text: the text tower.
        reports: of each scan, empty where it has none; at least one is not.
        like: rows of the scans ``[B, E]``.

    Returns:
        ``[B, E]``, zero where there is no report, and bool ``[B]``.
    """
    written = torch.tensor([index for index, report in enumerate(reports) if report], device=like.device)
    embedded = text([report for report in reports if report], "report")
    valid = torch.zeros(len(reports), dtype=torch.bool, device=like.device)
    valid[written] = True
    return like.new_zeros(like.shape).index_put((written,), embedded.to(like.dtype)), valid


def snippet_rows(
    text: TextTower, snippets: Sequence[Sequence[Mapping[str, Any]]], depth: Tensor, depth_mm: Tensor
) -> dict[str, Tensor]:
    """What ``SnippetLocalizationLoss`` reads: one row for each of the S snippets of the batch, with the depth rows of
    its scan.

    Args:
        text: the text tower.
        snippets: for each scan the sentences that name a slice, with their ``text`` and its world z, ``z_mm``; at least
            one.
        depth: depth rows of the scans, ``[B, D, E]``.
        depth_mm: their world z, ``[B, D]``; NaN where a row is padding.

    Returns:
        ``snippet`` ``[S, E]``, ``target_mm`` ``[S]``, ``depth`` ``[S, D, E]`` and ``depth_mm`` ``[S, D]``.
    """
    placed = [(scan, snippet) for scan, given in enumerate(snippets) for snippet in given]
    scans = torch.tensor([scan for scan, _ in placed], device=depth.device)
    target = torch.tensor([float(snippet["z_mm"]) for _, snippet in placed], device=depth.device)
    embedded = text([str(snippet["text"]) for _, snippet in placed], "snippet")
    return {"snippet": embedded, "target_mm": target, "depth": depth[scans], "depth_mm": depth_mm[scans]}
