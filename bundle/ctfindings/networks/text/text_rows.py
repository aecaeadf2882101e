"""The texts of a batch as embeddings, laid out like the rows of its scans: captions, reports, snippets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.networks.text.text_tower import TextTower
from bundle.ctfindings.step_keys import NetworkOutputs


def caption_rows(text: TextTower, captions: Sequence[Mapping[str, str]], like: Tensor) -> tuple[Tensor, Tensor]:
    """Unit rows of the captions of each scan and their validity.

    Args:
        text: Text tower.
        captions: For each scan, the captions by the name of their anatomy; at least one.
        like: Anatomy rows ``[B, K, E]``.

    Returns:
        ``[B, K, E]``, zero without a caption, and bool ``[B, K]``.
    """
    placed = [
        (scan, row, given[name])
        for scan, given in enumerate(captions)
        for row, name in enumerate(ANATOMY_NAMES)
        if given.get(name)
    ]
    embedded = text([caption for _, _, caption in placed], "anatomy")
    scans = torch.tensor([scan for scan, _, _ in placed], device=like.device)
    rows = torch.tensor([row for _, row, _ in placed], device=like.device)
    return _placed(embedded, (scans, rows), like)


def report_rows(text: TextTower, reports: Sequence[str], like: Tensor) -> tuple[Tensor, Tensor]:
    """Unit rows of the reports and their validity.

    Args:
        text: Text tower.
        reports: Report of each scan, empty without one; at least one is not.
        like: Rows of the scans ``[B, E]``.

    Returns:
        ``[B, E]``, zero without a report, and bool ``[B]``.
    """
    written = torch.tensor([index for index, report in enumerate(reports) if report], device=like.device)
    return _placed(text([report for report in reports if report], "report"), (written,), like)


def _placed(embedded: Tensor, index: tuple[Tensor, ...], like: Tensor) -> tuple[Tensor, Tensor]:
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
