"""The keys of a training step: every entry that passes between batch, network, losses and gradient cache.

    prepare_batch  -> NetworkInputs  -> VisionLanguageModel.forward -> NetworkOutputs -> CompositeLoss
                   -> Targets ------------------------------------------------------> CompositeLoss

A loss names what it reads in its attribute ``inputs``. The gradient cache joins and splits micro-batches along the
batch axis, which the type of an entry names. Rows are unit vectors.
Shapes: B scans, S snippets, O observations of all reports, Q pathology queries, K anatomies, C findings, N tokens,
D depth rows, E embedding, X Y Z voxels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict, get_type_hints

from torch import Tensor


@dataclass(frozen=True)
class BatchAxis:
    """The axis along which an entry grows with the batch."""

    axis: int = 0
    per_scan: bool = True  # one row for each scan; otherwise a part of a batch may have no row at all


PerScan = Annotated[Tensor, BatchAxis()]  # Losses that gather rows of all ranks gather along this axis.
PerScanSecond = Annotated[Tensor, BatchAxis(axis=1)]
PerSnippet = Annotated[Tensor, BatchAxis(per_scan=False)]  # The snippets of all scans follow each other.
PerObservation = PerSnippet  # So do the observations; Targets.sentence_count tells how many belong to each scan.
Scalar = Annotated[Tensor, None]  # One value for the whole batch, the same in every part of it.


class NetworkInputs(TypedDict, total=False):
    """What the network reads beside the image ``[B, 1, X, Y, Z]``; written by ``data.prepare_batch``."""

    anatomy: PerScan  # integer [B, 1, X, Y, Z]: anatomy mask
    anatomy_known: PerScan  # bool [B, K]: anatomies that the mask covers
    finding_masks: PerScan  # int32 [B, 1, X, Y, Z]: bit i for finding i
    captions: Sequence[Mapping[str, str]]  # B mappings: caption by the name of its anatomy
    reports: Sequence[str]  # B texts, "" without a report; written by data.prepare_report_batch
    snippets: Sequence[Sequence[Mapping[str, Any]]]  # B lists of sentences that name a slice: text, z_mm
    observations: Sequence[Sequence[Mapping[str, Any]]]  # B lists of observations: text, anatomy, normal, findings
    affine: PerScan  # float [B, 4, 4]: voxel index of the image to RAS mm; needed with snippets
    third_stage: PerScan  # float [B, C3, ...]: cached output of a frozen tower, instead of its forward; with the next
    fourth_stage: PerScan  # float [B, C4, ...]


class Targets(TypedDict, total=False):
    """What the losses compare the outputs with; written by ``data.prepare_batch``."""

    labels: PerScan  # integer [B, C]: 1 present, 0 absent, -1 unknown. Read by disease_prompts, grounding, MacroAuc
    anatomy_known: PerScan  # bool [B, K]: anatomies that the mask covers. Read by anatomy_head
    caption_id: PerScan  # integer [B, K]: equal for captions of equal text. Read by local_anatomy, cross_anatomy
    # integer [B, K, M]: identities of the sentences of a caption, 0 where fewer. Read by cross_anatomy, text_separation
    caption_sentences: PerScan
    caption_normal: PerScan  # bool [B, K]: the caption reports nothing abnormal. Read by local_anatomy, cross_anatomy
    report_id: PerScan  # integer [B]: equal for reports of equal text; from data.prepare_report_batch. Read by siglip

    # Observations of the reports. Read by pathology_alignment.
    sentence_count: PerScan  # integer [B]: observations of each scan
    sentence_id: PerObservation  # integer [O]: equal for observations of equal text but for case, blanks and full stop
    sentence_normal: PerObservation  # bool [O]: denies an abnormality, or calls an anatomy normal
    sentence_anatomy: PerObservation  # integer [O]: row of the anatomy table, -1 for none or several
    sentence_findings: PerObservation  # bool [O, C]: findings that it states or, if normal, denies


class NetworkOutputs(TypedDict, total=False):
    """What ``VisionLanguageModel.forward`` writes. An entry without its input is absent or None."""

    # Read by local_anatomy, cross_anatomy, anatomy_prototypes; the captions also by text_separation.
    anatomy: PerScan  # float [B, K, E]: image rows of the anatomies, zero where not valid
    anatomy_valid: PerScan  # bool [B, K]: anatomies in the field of view
    caption: PerScan  # float [B, K, E]: text rows of the captions, zero where not valid
    caption_valid: PerScan  # bool [B, K]: anatomies with a caption
    temperature: Scalar  # float: of the contrast within one anatomy. Read by local_anatomy
    temperature_global: Scalar  # float: of the contrast over all anatomies. Read by cross_anatomy

    # Read by siglip.
    scan: PerScan  # float [B, E]: image rows of the thorax
    scan_valid: PerScan  # bool [B]
    report: PerScan  # float [B, E]: text rows of the reports, zero where not valid
    report_valid: PerScan  # bool [B]: scans with a report

    # Read by snippet_localization.
    snippet: PerSnippet  # float [S, E]: text rows of the snippets
    target_mm: PerSnippet  # float [S]: world z of the slice that a snippet names
    depth: PerSnippet  # float [S, D, E]: depth rows of the snippet's scan, inferior to superior
    depth_mm: PerSnippet  # float [S, D]: their world z, evenly spaced, NaN where padding

    # Read by pathology_alignment.
    pathology: PerScan  # float [B, Q, E]: image rows of the pathology queries, zero where not valid
    pathology_valid: PerScan  # bool [B, Q]: queries that see a token
    pathology_anatomy: PerScan  # integer [B, Q]: anatomy that a query is confined to, -1 for none
    sentence: PerObservation  # float [O, E]: text rows of the observations

    # Read by correlation_exploration, and in evaluation mode by ObservationMetrics. For m token positions of each scan.
    correlation: PerScan  # float [B, m, m]: as predicted with the report
    correlation_target: PerScan  # float [B, m, m]
    correlation_weight: PerScan  # float [B, m, m]: 0 for pairs that do not count
    variance_hinge: PerScan  # float [B]: how far the token field is below a floor of variance; 0 without a teacher
    correlation_shuffled: PerScan  # float [B, m, m]: as predicted with the report of another scan
    correlation_without_report: PerScan  # float [B, m, m]: as predicted without a report
    correlation_positions: PerScan  # integer [B, m]: the drawn tokens, in evaluation mode; in C order of the grid

    # Read by anatomy_head.
    anatomy_logits: PerScan  # float [B, N, K]: logit of each token to belong to an anatomy
    membership: PerScan | None  # bool, or share in [0, 1], [B, N, K]: anatomies of each token by the mask

    # In training mode, for wordings drawn for each scan and finding. Read by the losses on prompts and grounding.
    prompt_drawn: PerScanSecond  # float [2, B, C, E]: text rows of the drawn statements and denials
    finding_logits_drawn: PerScan  # float [B, C]: logit of the findings for the drawn wordings
    token_logits_drawn: PerScan  # float [B, N, C]: the same of each token
    anatomy_tokens: PerScan  # bool [B, N, C]: tokens of the anatomy of each finding
    finding_tokens: PerScan  # bool [B, N, C]: tokens that the mask of each finding touches, also outside its anatomy

    # In evaluation mode. Read by MacroAuc and the evaluation.
    logits: PerScan  # float [B, C]: logit of the findings for the mean over the scoring templates


MEANS_OF, WAS_GIVEN = "means_of_", "was_given_"
"""Prefixes of the entries that ``CompositeLoss.condense`` writes for each loss and ``CompositeLoss.forward`` reads:
float [P, T, 2] and bool [P], for P parts of a batch and T means with their counts."""


def _axes(entries: type) -> dict[str, BatchAxis]:
    found = {}
    for name, hint in get_type_hints(entries, include_extras=True).items():
        # An entry that may be None is a union, whose first member is the annotated tensor.
        annotated = next(
            (part for part in (hint, *getattr(hint, "__args__", ())) if hasattr(part, "__metadata__")), None
        )
        if annotated is not None and annotated.__metadata__[0] is not None:
            found[name] = annotated.__metadata__[0]
    return found


_AXES = {**_axes(Targets), **_axes(NetworkOutputs)}


def batch_axis(name: str) -> BatchAxis:
    """The batch axis of an output or target. Scalars have none; ask only for tensors with axes."""
    return BatchAxis(per_scan=False) if name.startswith((MEANS_OF, WAS_GIVEN)) else _AXES.get(name, BatchAxis())
