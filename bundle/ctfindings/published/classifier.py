"""A published model as a classifier: its own prompts, its own anatomy for each finding, and nothing for a finding it
does not score.

Shapes: T templates, C findings, E embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from bundle.ctfindings.anatomy import THORAX, anatomy_index
from bundle.ctfindings.findings import FINDING_NAMES, finding_index
from bundle.ctfindings.networks.checkpoint import read_checkpoint
from bundle.ctfindings.networks.classifier import PromptBank, ZeroShotClassifier, anatomy_warnings
from bundle.ctfindings.networks.image.image_encoder import ImageEncoder
from bundle.ctfindings.networks.image.vit_tower import VisionTransformerTower
from bundle.ctfindings.networks.scoring import FindingScorer
from bundle.ctfindings.networks.text.prompts import TextEncoder
from bundle.ctfindings.published.fvlm.image_encoder import FvlmImageEncoder
from bundle.ctfindings.published.fvlm.tensor_map import turn_to_ras
from bundle.ctfindings.published.radfinder.image_encoder import RadFinderImageEncoder, ScanCombiner, WindowEncoder


class PublishedClassifier(ZeroShotClassifier):
    """Scores the findings of the table with another group's weights, the way that group does.

    Args:
        image: the image encoder; its ``encode_scan`` is what inference calls.
        scorer: turns rows and prompts into logits, as ``FindingScorer``.
        templates: id to a pair of a positive and a negative template; ``{a}`` stands for the finding. Filled as they
            are, without changes of capitals.
        finding_anatomy: anatomy on which a finding is scored, by finding; findings that are left out are not scored.
        phrases: what stands in the templates for a finding, where it is not its name.

    Raises:
        ValueError: for an unknown finding or anatomy, or without templates.
    """

    def __init__(
        self,
        image: nn.Module,
        scorer: nn.Module,
        templates: Mapping[str, Sequence[str]],
        finding_anatomy: Mapping[str, str],
        phrases: Mapping[str, str] | None = None,
    ) -> None:
        encoder: ImageEncoder = image  # type: ignore[assignment]
        scoring: FindingScorer = scorer  # type: ignore[assignment]
        super().__init__(encoder, scoring)
        if not templates:
            raise ValueError("templates: at least one pair of a positive and a negative template is needed")
        self.templates = {name: (str(pair[0]), str(pair[1])) for name, pair in templates.items()}
        self.template_ids = tuple(self.templates)
        self.phrases = {FINDING_NAMES[finding_index(name)]: phrase for name, phrase in (phrases or {}).items()}
        self.bank = PromptBank(encoder.embedding, templates=len(self.templates))
        rows = {finding_index(name): anatomy_index(anatomy) for name, anatomy in finding_anatomy.items()}
        self.scored = tuple(column in rows for column in range(len(FINDING_NAMES)))
        self.finding_anatomy = torch.tensor([rows.get(column, THORAX) for column in range(len(FINDING_NAMES))])

    def prompt_texts(self) -> list[str]:
        """The prompts in the order of ``bank.prompts`` ``[C, 2, T]``; positive before negative."""
        return [
            self.templates[name][polarity].format(a=self.phrases.get(finding, finding))
            for finding in FINDING_NAMES
            for polarity in (0, 1)
            for name in self.template_ids
        ]

    @torch.no_grad()
    def fill_prompts(self, text: TextEncoder) -> None:
        """Encodes the prompts with the text tower of the same checkpoint."""
        prompts: Tensor = text(self.prompt_texts(), "prompt")
        self.bank.prompts.copy_(prompts.view(self.bank.prompts.shape))

    def warnings(self, found: Sequence[bool]) -> list[str]:
        """One line for each anatomy that is missing, one for the findings that this model does not score, and one on
        the thresholds.
        """
        rows = [row if scored else -1 for row, scored in zip(self.finding_anatomy.tolist(), self.scored, strict=True)]
        left_out = [name for name, scored in zip(FINDING_NAMES, self.scored, strict=True) if not scored]
        lines = anatomy_warnings(found, rows, "given the probability 0, as in the published evaluation")
        lines += [f"this model does not score {', '.join(left_out)}"] if left_out else []
        if bool((self.bank.threshold == 0.5).all()):
            lines.append(
                "probabilities are those of the published protocol, not calibrated; the threshold 0.5 was not chosen on any data"
            )
        return lines


def fvlm_image_encoder(window: Sequence[int] = (352, 288, 112)) -> FvlmImageEncoder:
    """fVLM's image side, whose weights a checkpoint has to bring; ``window`` as of ``FvlmImageEncoder``."""
    with no_init_weights():
        return FvlmImageEncoder(VisionTransformerTower(), window=window)


def radfinder_image_encoder(windows_at_once: int = 1, progress: bool = True) -> RadFinderImageEncoder:
    """RadFinder's image side, whose weights a checkpoint has to bring; arguments as of ``RadFinderImageEncoder``."""
    with no_init_weights():
        return RadFinderImageEncoder(
            WindowEncoder(), ScanCombiner(), windows_at_once=windows_at_once, progress=progress
        )


def warm_started_fvlm_tower(ckpt_path: str | Path, dropout: float = 0.1) -> VisionTransformerTower:
    """fVLM's image tower with the weights of a converted checkpoint, turned to scans in RAS+, to go on training from.

    Args:
        ckpt_path: what ``scripts/convert_checkpoint.py fvlm`` wrote.
        dropout: dropout probability.

    Raises:
        ValueError: when the checkpoint is missing or is not that of fVLM.
    """
    prefix = "image.tower."
    state = {
        key.removeprefix(prefix): value
        for key, value in read_checkpoint(Path(ckpt_path)).items()
        if key.startswith(prefix)
    }
    if "position" not in state:
        raise ValueError(
            f"{ckpt_path}: holds no image tower of fVLM; convert its checkpoint with scripts/convert_checkpoint.py"
        )
    tower = VisionTransformerTower(dropout=dropout)
    tower.load_state_dict(turn_to_ras(state))
    return tower
