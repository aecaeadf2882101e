"""What the pathology queries of a scan observe: for each that fires, a statement and the place of its attention."""

from collections.abc import Collection

import torch

from bundle.ctfindings.anatomy import THORAX
from bundle.ctfindings.findings import FINDING_NAMES, TEMPLATES, fill_template
from bundle.ctfindings.inference.encoding import EncodedScan
from bundle.ctfindings.inference.evidence import locate
from bundle.ctfindings.inference.findings_record import ObservedStatement
from bundle.ctfindings.networks.classifier import ZeroShotClassifier
from bundle.ctfindings.networks.image.image_encoder import ImageEmbedding
from bundle.ctfindings.networks.text.prompts import mean_over_templates


@torch.inference_mode()
def observed_statements(
    classifier: ZeroShotClassifier,
    encoded: ImageEmbedding,
    scan: EncodedScan,
    findings: Collection[str] = FINDING_NAMES,
) -> list[ObservedStatement]:
    """The observations of one scan, by falling support; empty for a model without pathology queries.

    A query fires if its row is nearer to the statement of some finding than to the denial of that finding. Of these
    findings, the one with the nearest statement is its observation, and its place that of the attention in the body.

    Args:
        classifier: classifier with its prompt bank.
        encoded: the scan, on the device of the classifier.
        scan: the same, with its geometry.
        findings: nothing is stated of others.
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
        name = FINDING_NAMES[column]
        if name not in findings:
            continue
        attention = encoded.pathology_attention[0, query]
        attended = (attention / attention.max()).reshape(encoded.grid).cpu().numpy()
        evidence = locate(scan.regions.confine(attended, THORAX), *scan.grids, scan.midline_mm)
        found.append(
            ObservedStatement(
                query=query,
                statement=fill_template(TEMPLATES[0].positive, name),
                finding=name,
                similarity=float(similarity[query, column]),
                support=float(similarity[query, column] - denied[query, column]),
                evidence=scan.on_source(evidence),
            )
        )
    return sorted(found, key=lambda observed: -observed.support)
