"""Fine-tuning: training starts from the weights of a bundle, and ends in a file that the same bundle can serve."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bundle.ctfindings.evaluation.domain import domain_of_studies
from bundle.ctfindings.evaluation.evaluated_model import EvaluatedModel
from bundle.ctfindings.networks.checkpoint import adapted_source, load_checkpoint, save_bundle_weights
from bundle.ctfindings.networks.classifier import PromptBank
from bundle.ctfindings.networks.image.resnet_tower import ResNetTower
from bundle.ctfindings.networks.text.prompts import template_bank
from bundle.ctfindings.networks.vision_language import VisionLanguageModel

logger = logging.getLogger("ctfindings.run")


def start_from(network: VisionLanguageModel, ckpt_path: str | Path) -> None:
    """Loads the weights that training starts from; a resumed run overwrites them.

    Raises:
        ValueError: They do not fit, or their frozen encoder is another one than that of the cached tokens.
    """
    encoder = _frozen_encoder(network)
    before = {} if encoder is None else {key: value.clone() for key, value in encoder.state_dict().items()}
    load_checkpoint(network, ckpt_path)
    after = {} if encoder is None else encoder.state_dict()
    if changed := next((key for key, value in before.items() if not torch.equal(value, after[key])), None):
        raise ValueError(
            f"{ckpt_path}: its frozen encoder is not that of frozen_weights ({changed} differs), which encodes the "
            "scans; give this checkpoint as frozen_weights too"
        )
    logger.info("fine-tuning starts from %s", ckpt_path)


def _frozen_encoder(network: VisionLanguageModel) -> nn.Module | None:
    """The network of a ``ResNetTower`` that has its weights already; None for other towers."""
    tower = network.image.tower
    return tower.network if isinstance(tower, ResNetTower) and tower.loaded else None


def export_finetuned(
    model: EvaluatedModel,
    run_dir: str | Path,
    base_path: str | Path,
    output: str | Path,
    training: Sequence[dict[str, Any]],
    held_out: Sequence[dict[str, Any]] = (),
    outside_share: float = 0.01,
    domain_scans: int = 300,
) -> str:
    """Writes the best fine-tuned model as a bundle checkpoint, with its prompts and the domain of its scans.

    Prompts are as its text tower now embeds them. The domain is fitted again, because that of the base model describes
    other scans in the features of another network. Too few scans give none, and a warning. Calibration and thresholds
    are those of the base model, because the few studies of a fine-tuning rarely suffice to fit them; where they do,
    use ``configs/evaluate.json`` with ``export_path``. Returns the SHA-256 of the file.

    Args:
        model: Network of that geometry, and how it sees whole scans; its weights are replaced.
        run_dir: Run folder with ``best.pt`` or, without a validation, ``last.pt``; ValueError if it has neither.
        base_path: Bundle checkpoint that training started from.
        output: File to write, whole or not at all.
        training: Studies that were trained on; the domain is fitted on the first of them.
        held_out: Studies that training did not fit; the first of them set the limit of the domain.
        outside_share: See ``fit_domain``.
        domain_scans: Most studies of each kind for the domain.
    """
    states = [path for name in ("best.pt", "last.pt") if (path := Path(run_dir) / name).is_file()]
    if not states:
        raise ValueError(f"{run_dir}: holds neither best.pt nor last.pt; train before exporting")
    network = model.network
    bank = PromptBank(network.image.embedding, observes=network.image.pathology is not None)
    load_checkpoint({"bank": bank}, base_path)
    load_checkpoint(network, states[0])
    network.eval()
    with torch.no_grad():
        bank.prompts.copy_(template_bank(network.text))
    apart = model.score(held_out[:domain_scans], "domain, limit").domain_features if held_out else None
    domain = domain_of_studies(model, training[:domain_scans], apart, outside_share)
    digest = save_bundle_weights(
        output,
        network,
        bank,
        domain if domain.fitted else None,
        adapted_source(base_path, [study["patient"] for study in training]),
    )
    logger.info("fine-tuned weights written to %s", output)
    if domain.fitted:
        logger.info("domain: %d training scans, limit %.2f", int(domain.scans), float(domain.threshold))
    else:
        logger.warning("domain: unknown; these weights give findings for scans unlike the training scans too")
    return digest
