"""What the pathology queries of a scan observe: for each that fires, a statement and the place of its attention."""

from typing import Any

import torch

from bundle.ctfindings.findings import FINDING_NAMES, TEMPLATES, fill_template
from bundle.ctfindings.inference.evidence import locate
from bundle.ctfindings.inference.findings_record import ObservedStatement
from bundle.ctfindings.networks.classifier import ZeroShotClassifier
from bundle.ctfindings.networks.image.image_encoder import ImageEmbedding
from bundle.ctfindings.networks.text.prompts import mean_over_templates


@torch.inference_mode()
def observed_statements(
    classifier: ZeroShotClassifier, encoded: ImageEmbedding, *grids: Any
) -> list[ObservedStatement]:
    """The observations of one scan, by falling support; empty for a model without pathology queries.

    A query fires if its row is nearer to the statement of some finding than to the denial of that finding. Of these
    findings, the one with the nearest statement is its observation.

    Args:
        classifier: classifier with its prompt bank.
        encoded: the scan, on the device of the classifier.
        grids: map affine, scan affine, shape and midline, as ``locate`` takes them.
    """
    if encoded.pathology.shape[1] == 0:
        return []
    prompts = mean_over_templates(classifier.bank.prompts)
    similarity, denied = (encoded.pathology[0] @ prompts[:, polarity].T for polarity in (0, 1))
    scored = torch.tensor(classifier.scored, device=similarity.device) & encoded.pathology_valid[0].unsqueeze(1)
    fires = (similarity > denied) & scored
    found = []
    for query in torch.nonzero(fires.any(dim=1)).flatten().tolist():
        column = int(similarity[query].masked_fill(~fires[query], -torch.inf).argmax())
        attention = encoded.pathology_attention[0, query]
        name = FINDING_NAMES[column]
        found.append(
            ObservedStatement(
                query=query,
                statement=fill_template(TEMPLATES[0].positive, name),
                finding=name,
                similarity=float(similarity[query, column]),
                support=float(similarity[query, column] - denied[query, column]),
                evidence=locate((attention / attention.max()).reshape(encoded.grid), *grids),
            )
        )
    return sorted(found, key=lambda observed: -observed.support)
