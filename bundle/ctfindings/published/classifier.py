"""A published model as a classifier, with its own prompts and its own anatomy for each finding it scores."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import nn

from bundle.ctfindings.anatomy import THORAX, anatomy_index
from bundle.ctfindings.findings import FINDING_NAMES, finding_index
from bundle.ctfindings.networks.classifier import PromptBank, ZeroShotClassifier, anatomy_warnings
from bundle.ctfindings.networks.image.image_encoder import ImageEncoder
from bundle.ctfindings.networks.scoring import FindingScorer
from bundle.ctfindings.networks.text.prompts import TextEncoder


class PublishedClassifier(ZeroShotClassifier):
    """Scores the findings with another group's weights, the way that group does.

    Args:
        image: Image encoder with ``encode_scan``.
        scorer: Turns rows and prompts into logits, like ``FindingScorer``.
        templates: A positive and a negative template by id. ``{a}`` stands for the finding and is filled in verbatim.
        finding_anatomy: Anatomy on which each finding is scored; other findings are not scored.
        phrases: Text for ``{a}`` where it differs from the name of the finding.

    Raises:
        ValueError: A finding or anatomy is unknown, or there are no templates.
    """

    def __init__(
        self,
        image: nn.Module,
        scorer: nn.Module,
        templates: Mapping[str, Sequence[str]],
        finding_anatomy: Mapping[str, str],
        phrases: Mapping[str, str] | None = None,
    ) -> None:
        encoder = cast(ImageEncoder, image)
        super().__init__(encoder, cast(FindingScorer, scorer))
        if not templates:
            raise ValueError("templates: expected at least one pair of a positive and a negative template, found none")
        self.templates = {name: (str(pair[0]), str(pair[1])) for name, pair in templates.items()}
        self.template_ids = tuple(self.templates)
        self.phrases = {FINDING_NAMES[finding_index(name)]: phrase for name, phrase in (phrases or {}).items()}
        self.bank = PromptBank(encoder.embedding, templates=len(self.templates))
        rows = {finding_index(name): anatomy_index(anatomy) for name, anatomy in finding_anatomy.items()}
        self.scored = tuple(column in rows for column in range(len(FINDING_NAMES)))
        self.finding_anatomy = torch.tensor([rows.get(column, THORAX) for column in range(len(FINDING_NAMES))])

    def prompt_texts(self) -> list[str]:
        """The prompts in the order of ``bank.prompts``: C findings, positive before negative, T templates."""
        return [
            self.templates[name][polarity].format(a=self.phrases.get(finding, finding))
            for finding in FINDING_NAMES
            for polarity in (0, 1)
            for name in self.template_ids
        ]

    @torch.no_grad()
    def fill_prompts(self, text: TextEncoder) -> None:
        """Encodes the prompts with the text tower of the same checkpoint."""
        self.bank.prompts.copy_(text(self.prompt_texts(), "prompt").view(self.bank.prompts.shape))

    def warnings(self, found: Sequence[bool]) -> list[str]:
        """A line for each missing anatomy, one for the findings that are not scored, and one for the thresholds."""
        rows = [row if scored else -1 for row, scored in zip(self.finding_anatomy.tolist(), self.scored, strict=True)]
        not_scored = [name for name, scored in zip(FINDING_NAMES, self.scored, strict=True) if not scored]
        lines = anatomy_warnings(found, rows, "given the probability 0, as in the published evaluation")
        lines += [f"This model does not score {', '.join(not_scored)}"] if not_scored else []
        if bool((self.bank.threshold == 0.5).all()):
            lines.append(
                "Probabilities follow the published protocol and are not calibrated; "
                "the threshold 0.5 was not chosen on any data"
            )
        return lines
