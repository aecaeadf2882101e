"""Fine-tuning: training starts from the weights of a bundle, and ends in a file that the same bundle can serve."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from bundle.ctfindings.networks.checkpoint import load_checkpoint, save_bundle_weights
from bundle.ctfindings.networks.classifier import PromptBank
from bundle.ctfindings.networks.text.prompts import template_bank
from bundle.ctfindings.networks.vision_language import VisionLanguageModel

logger = logging.getLogger("ctfindings.run")


def start_from(network: VisionLanguageModel, ckpt_path: str | Path) -> None:
    """Loads the weights that training starts from; a resumed run overwrites them. ValueError if they do not fit."""
    load_checkpoint(network, ckpt_path)
    logger.info("fine-tuning starts from %s", ckpt_path)


def export_finetuned(
    network: VisionLanguageModel, run_dir: str | Path, base_path: str | Path, output: str | Path
) -> str:
    """Writes the best fine-tuned model as a bundle checkpoint, with the prompts as its text tower now embeds them.

    Calibration and thresholds are those of the base model, because the few studies of a fine-tuning rarely suffice to
    fit them; where they do, use ``configs/evaluate.json`` with ``export_path``. Returns the SHA-256 of the file.

    Args:
        network: Network of that geometry; its weights are replaced.
        run_dir: Run folder with ``best.pt`` or, without a validation, ``last.pt``; ValueError if it has neither.
        base_path: Bundle checkpoint that training started from.
        output: File to write, whole or not at all.
    """
    states = [path for name in ("best.pt", "last.pt") if (path := Path(run_dir) / name).is_file()]
    if not states:
        raise ValueError(f"{run_dir}: holds neither best.pt nor last.pt; train before exporting")
    bank = PromptBank(network.image.embedding, observes=network.image.pathology is not None)
    load_checkpoint({"bank": bank}, base_path)
    load_checkpoint(network, states[0])
    network.eval()
    with torch.no_grad():
        bank.prompts.copy_(template_bank(network.text))
    digest = save_bundle_weights(output, network, bank)
    logger.info("fine-tuned weights written to %s", output)
    return digest
