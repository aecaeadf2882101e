"""Scans as heat maps of findings, from the prompts alone: each is made once, and kept on disk by the weights.

Shapes: C findings, N tokens, gx gy gz grid of tokens, X Y Z voxels of the network's grid.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.transforms import MapTransform
from torch import Tensor

from bundle.ctfindings.findings import FINDING_ANATOMY
from bundle.ctfindings.inference.encoding import scan_body, token_affine
from bundle.ctfindings.networks.image.image_encoder import ImageEmbedding
from bundle.ctfindings.networks.image.token_levels import weights_digest
from bundle.ctfindings.networks.observation_scoring import MATCH_TEMPERATURE, observation_answers
from bundle.ctfindings.networks.scoring import answering_rows
from bundle.ctfindings.networks.text.prompts import mean_over_templates, template_bank
from bundle.ctfindings.networks.vision_language import VisionLanguageModel

MAPS = ("field", "attention", "answer")


class EncodeHeatd(MapTransform):
    """Adds ``heat_MAP`` for each of ``MAPS`` that the model has, ``inside`` and ``token_affine`` to a study.

    - ``field`` [C, gx, gy, gz]: logit of each token for the prompts of the finding.
    - ``attention``: attention of the pathology queries, each with its share in the answer to the statement; the largest
      of a scan is the sigmoid of how much the answer supports the statement rather than its denial.
    - ``answer``: how much each token moves that answer towards the statement and away from its denial.
    - ``inside`` bool [C, gx, gy, gz]: tokens of the anatomy of the finding, as the encoder finds it, within the body.

    The two maps of the queries are our reading of PLACE (https://arxiv.org/abs/2506.10573).

    Args:
        network: model, on its device.
        findings: columns of the finding table.
        device: of the model.
    """

    not_in_cache_key = ("encoder", "scorer", "prompts", "rows")

    def __init__(self, network: VisionLanguageModel, findings: Sequence[int], device: torch.device) -> None:
        super().__init__("image")
        with torch.no_grad():
            self.prompts = mean_over_templates(template_bank(network.text)).to(device)[list(findings)]
        self.rows = torch.tensor(FINDING_ANATOMY, device=device)[list(findings)]
        self.encoder, self.scorer = network.image, network.scorer
        self.weights = weights_digest(self.encoder, self.scorer, self.prompts, self.rows)

    @torch.no_grad()
    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        device, stride = self.prompts.device, self.encoder.stride
        image = data["image"].as_tensor()[None].to(device).float()
        grid = [size // step for size, step in zip(image.shape[2:], stride, strict=True)]
        tokens = token_affine(data["image_affine"].numpy(), stride)
        body = scan_body(data, stride).to(device)  # type: ignore[arg-type]
        levels, grids = self.encoder.tower(image)
        encoded: ImageEmbedding = self.encoder.encode_levels(image, levels, grids, body=body)
        answering = answering_rows(encoded.anatomy_valid, self.rows)[0]
        inside = (encoded.membership[0, :, answering] & body.T).T
        delta = self.prompts[:, 0] - self.prompts[:, 1]
        maps = {"field": self.scorer.token_logits(encoded.field, delta[None])[0].T}
        if self.encoder.pathology is not None:
            maps["attention"], shares = attention_map(encoded, self.prompts)
            members = self.encoder.own_members(encoded.anatomy_logits, body=body)
            members = self.encoder.observed_members(encoded.membership, members)
            maps["answer"] = self.encoder.pathology.relevance(levels[0], members, grid, shares, delta)[0]
        heat: dict[Hashable, Any] = {
            f"heat_{name}": value.unflatten(1, grid).half().cpu() for name, value in maps.items()
        }
        kept: dict[Hashable, Any] = {
            key: data[key] for key in ("id", "image", "finding_masks", "image_affine", "labels") if key in data
        }
        return {**kept, **heat, "inside": inside.unflatten(1, grid).cpu(), "token_affine": torch.from_numpy(tokens)}


def attention_map(encoded: ImageEmbedding, prompts: Tensor) -> tuple[Tensor, Tensor]:
    """The map ``attention`` of one scan, ``[C, N]``, and the shares of the queries in each answer, ``[1, C, Q]``.

    ``prompts`` are unit rows of statements and denials, ``[C, 2, E]``.
    """
    answers, shares = observation_answers(encoded.pathology, encoded.pathology_valid, prompts[:, 0])
    attention = shares[0] @ encoded.pathology_attention[0].flatten(1)
    support = (answers[0] * (prompts[:, 0] - prompts[:, 1])).sum(dim=1, keepdim=True)
    relative = attention / attention.amax(dim=1, keepdim=True).clamp(min=1e-12)
    return relative * torch.sigmoid(support / MATCH_TEMPERATURE), shares
