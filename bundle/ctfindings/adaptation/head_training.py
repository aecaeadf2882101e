"""Training of the head on held tokens, and the choice of its regularisation by cross-validation.

Shapes: S scans, B scans of a batch, K anatomies, C findings, W wordings of a finding, E embedding.
"""

import copy
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold
from torch import Tensor, nn

from bundle.ctfindings.adaptation.held_scans import HeldBatch, HeldScans
from bundle.ctfindings.adaptation.last_stage import LastStage
from bundle.ctfindings.data.datalist import label_balance
from bundle.ctfindings.files.progress import progress_bar
from bundle.ctfindings.findings import FINDING_ANATOMY, FINDINGS, training_wordings
from bundle.ctfindings.losses.disease_prompts import DiseasePromptLoss
from bundle.ctfindings.networks.image.image_encoder import ImageEncoder
from bundle.ctfindings.networks.image.pooling import project_rows
from bundle.ctfindings.networks.scoring import TOKEN_SCALE, FindingScorer
from bundle.ctfindings.networks.text.prompts import mean_over_templates, template_bank
from bundle.ctfindings.networks.text.text_tower import TextTower
from bundle.ctfindings.training.parameter_groups import parameter_groups

TRAINED: dict[str, tuple[str, ...]] = {
    "linear_probe": ("projection", "bias"),
    "prompt_head": ("projection", "bias", "field.", "scorer."),
    "tuned_stage": ("projection", "bias", "field.", "scorer.", "stage.blocks."),
}
"""Parameters that each kind of head trains, by the start of their name."""


WORDINGS = 16
"""Training wordings of each finding, drawn from its list; to encode all takes longer than the training."""


class Head(nn.Module):
    """What is trained on the tokens of a frozen tower: the rows, the token field and the scorer.

    Args:
        image: Image encoder with the rows and the token field.
        scorer: Scorer of the findings.
        stage: Blocks of the tower that are trained too.
    """

    def __init__(self, image: ImageEncoder, scorer: FindingScorer, stage: LastStage | None = None) -> None:
        super().__init__()
        self.projection, self.bias = image.anatomy_pooling.projection, image.anatomy_pooling.bias
        self.field, self.scorer, self.stage = image.field, scorer, stage
        self.finding_anatomy: Tensor
        self.register_buffer("finding_anatomy", torch.tensor(FINDING_ANATOMY), persistent=False)

    @property
    def reads_tokens(self) -> bool:
        """Whether the logits have a token term."""
        return float(self.scorer.log_token_scale.detach().exp()) > 0

    def forward(self, batch: HeldBatch, deltas: Tensor) -> Tensor:
        """Logits ``[B, C]`` from scans and positive minus negative prompts ``[B, C, E]``."""
        pooled, tokens = batch.pooled, batch.tokens
        if self.stage is not None:
            tokens = tokens + self.stage(batch.stage_inputs, batch.places, batch.grid)
            pooled, _ = self.stage.pooling.pool([tokens], [batch.members])
        rows = project_rows(pooled, batch.valid, self.projection, self.bias)
        z = self.token_logits(tokens, deltas)
        return self.scorer.logits(rows, batch.valid, z, batch.members, deltas, self.finding_anatomy)

    def token_logits(self, tokens: Tensor, deltas: Tensor) -> Tensor:
        """``FindingScorer.token_logits`` of tokens ``[B, N, d]``, without their embeddings in the text space.

        Of a token u after its layer norm, product and length of W u + b are (delta W) u and (u W' W u)^(1/2): a step on
        scans of 9,000 tokens takes a third of the time.
        """
        norm: nn.LayerNorm = self.field[0]  # type: ignore[assignment]
        linear: nn.Linear = self.field[1]  # type: ignore[assignment]
        unit = F.pad(F.layer_norm(tokens, tokens.shape[-1:], eps=norm.eps), [0, 1], value=1.0)
        bias = linear.bias + linear.weight @ norm.bias
        weight = torch.cat([linear.weight * norm.weight, bias.unsqueeze(1)], dim=1)  # [E, d + 1]
        length = ((unit @ (weight.T @ weight)) * unit).sum(-1).clamp(min=1e-12).sqrt()
        products = torch.bmm(deltas @ weight, unit.transpose(1, 2)) / length.unsqueeze(1)
        return (products * self.scorer.log_token_scale.exp()).transpose(1, 2)


class Prompts:
    """Positive minus negative embeddings of a frozen text tower: of the training wordings, and of the templates."""

    def __init__(self, text: TextTower) -> None:
        self.wordings = []
        with torch.no_grad():
            for finding in FINDINGS:
                every = list(dict.fromkeys(training_wordings(finding)))
                # At random: the list repeats its templates, and steps through it would meet few of them.
                drawn = np.random.default_rng(0).permutation(len(every))[:WORDINGS]
                positive, negative = zip(*(every[index] for index in sorted(drawn)), strict=True)
                self.wordings.append(text(positive, "prompt") - text(negative, "prompt"))  # [W, E]
            bank = mean_over_templates(template_bank(text))
        self.templates = bank[:, 0] - bank[:, 1]  # [C, E]

    def drawn(self, batch: int, random: np.random.Generator) -> Tensor:
        """A training wording for each scan and finding, ``[B, C, E]``."""
        return torch.stack([given[random.integers(len(given), size=batch)] for given in self.wordings], dim=1)


@dataclass(frozen=True)
class Choice:
    """What cross-validation chose."""

    weight_decay: float
    learning_rate: float
    steps: int
    logits: NDArray[np.float64]  # Of each scan, by the head that did not see its patient, [S, C]
    # Mean held-out loss at each validation, by weight decay and learning rate
    losses: dict[tuple[float, float], list[float]]


class HeadTraining:
    """Trains a head with ``DiseasePromptLoss`` and AdamW.

    Weight decay, learning rate and number of steps come from cross-validation.

    The folds are by patient. Attention and statistics of the pooled features are those of all scans and use no label.

    Args:
        kind: ``linear_probe`` trains a linear map of the pooled features of each anatomy into the text space, without
            the token term, so it has no evidence; ``prompt_head`` trains the token field and the scales too;
            ``tuned_stage`` also the last blocks of a ``ResNetTower``.
        weight_decays: Values of which cross-validation chooses one.
        steps: Largest number of steps; early stopping chooses fewer.
        validate_every: Steps between two validations on the held-out patients.
        patience: Validations without a lower loss after which a setting is trained no further.
        batch_size: Scans of a step.
        learning_rates: Values of which cross-validation chooses one.
        folds: Number of folds; fewer if there are fewer patients.
        pos_weight_cap: See ``DiseasePromptLoss``.
        tuned_blocks: Number of blocks that ``tuned_stage`` trains.
        tuned_rate: Their learning rate, as a share of that of the head.
        seed: Random seed of the order of the scans, the wordings and the folds.

    Raises:
        ValueError: The kind is unknown, or there are fewer steps than one validation needs.
    """

    def __init__(
        self,
        kind: str = "prompt_head",
        weight_decays: Sequence[float] = (0.01, 1.0),
        steps: int = 120,
        validate_every: int = 10,
        patience: int = 4,
        batch_size: int = 8,
        learning_rates: Sequence[float] = (0.0003, 0.002),
        folds: int = 5,
        pos_weight_cap: float = 20.0,
        tuned_blocks: int = 1,
        tuned_rate: float = 0.1,
        seed: int = 0,
    ) -> None:
        if kind not in TRAINED:
            raise ValueError(f"head: expected one of {', '.join(TRAINED)}, got {kind!r}")
        if steps < validate_every:
            raise ValueError(f"steps: expected validate_every ({validate_every}) or more, got {steps}")
        self.kind, self.weight_decays, self.learning_rates = kind, list(weight_decays), list(learning_rates)
        self.steps, self.validate_every, self.patience, self.batch_size = steps, validate_every, patience, batch_size
        self.folds, self.pos_weight_cap, self.seed = folds, pos_weight_cap, seed
        self.tuned_blocks, self.tuned_rate = tuned_blocks, tuned_rate

    def last_stage(self, image: ImageEncoder) -> LastStage | None:
        """The blocks of a tower that are trained; None for the other heads."""
        return LastStage(image, self.tuned_blocks) if self.kind == "tuned_stage" else None

    def prepare(self, head: Head) -> None:
        """Switches the token term off for a linear probe and on for others, and chooses what is trained."""
        if self.kind == "linear_probe":
            nn.init.constant_(head.scorer.log_token_scale, float("-inf"))
        elif not head.reads_tokens:  # The weights are those of a linear probe.
            nn.init.constant_(head.scorer.log_token_scale, math.log(TOKEN_SCALE))
        for name, parameter in head.named_parameters():
            parameter.requires_grad_(name.startswith(TRAINED[self.kind]))

    def choose(self, head: Head, scans: HeldScans, labels: Tensor, patients: Sequence[str], prompts: Prompts) -> Choice:
        """What has the lowest loss on the patients that a head did not see."""
        folds = min(self.folds, len(set(patients)))
        if folds < 2:
            raise ValueError("adaptation needs scans of two patients at least, for cross-validation; add scans")
        splits = list(
            GroupKFold(folds, shuffle=True, random_state=self.seed).split(np.arange(len(labels)), groups=patients)
        )
        grid = list(product(self.weight_decays, self.learning_rates))
        count, loss = self.steps // self.validate_every, self._loss(labels)
        losses: dict[tuple[float, float], list[float]] = {setting: [] for setting in grid}
        best, lowest, chosen = np.zeros(labels.shape), math.inf, (grid[0], 0)
        bar = progress_bar(None, "cross-validation", len(grid) * count, unit="validation")
        for setting in grid:
            heads = [copy.deepcopy(head) for _ in splits]
            runs = [
                self._steps(own, scans, labels, trained, prompts, *setting, count * self.validate_every)
                for own, (trained, _) in zip(heads, splits, strict=True)
            ]
            for index in range(count):
                logits = np.zeros(labels.shape)
                for own, run, (_, held_out) in zip(heads, runs, splits, strict=True):
                    deque(islice(run, self.validate_every), maxlen=0)
                    logits[held_out] = score(own, scans, held_out, prompts, self.batch_size)
                losses[setting].append(float(loss(torch.from_numpy(logits), labels)))
                if losses[setting][-1] < lowest:
                    best, lowest, chosen = logits, losses[setting][-1], (setting, index + 1)
                bar.update()
                if index - int(np.argmin(losses[setting])) >= self.patience:
                    bar.update(count - index - 1)
                    break
        bar.close()
        return Choice(*chosen[0], chosen[1] * self.validate_every, best, losses)

    def fit(self, head: Head, scans: HeldScans, labels: Tensor, prompts: Prompts, choice: Choice) -> None:
        """Trains the head on all scans, as chosen."""
        every = np.arange(len(labels))
        setting = choice.weight_decay, choice.learning_rate
        steps = self._steps(head, scans, labels, every, prompts, *setting, choice.steps)
        for _ in progress_bar(steps, "training", choice.steps, unit="step"):
            pass

    def settings(self) -> dict[str, Any]:
        """The settings for a JSON record."""
        return dict(vars(self))

    def _loss(self, labels: Tensor) -> DiseasePromptLoss:
        return DiseasePromptLoss(label_balance([{"labels": row} for row in labels]), self.pos_weight_cap)

    def _steps(
        self,
        head: Head,
        scans: HeldScans,
        labels: Tensor,
        trained: NDArray[np.int64],
        prompts: Prompts,
        weight_decay: float,
        learning_rate: float,
        steps: int,
    ) -> Iterator[int]:
        """Trains, and yields the number of each step, counted from one; scans without a label take no part."""
        trained = trained[(labels[torch.from_numpy(trained)] != -1).any(dim=1).numpy()]
        loss, random = self._loss(labels[torch.from_numpy(trained)]), np.random.default_rng(self.seed)
        slow = [] if head.stage is None else head.stage.blocks.parameters()
        groups = parameter_groups(head, loss, slow, learning_rate * self.tuned_rate)
        optimizer = torch.optim.AdamW(groups, lr=learning_rate, weight_decay=weight_decay)
        order: Iterator[NDArray[np.int64]] = iter(())
        for step in range(1, steps + 1):
            batch = next(order, None)
            if batch is None:
                order = _batches(random.permutation(trained), self.batch_size)
                batch = next(order)
            optimizer.zero_grad()
            logits = head(scans.batch(batch, head.reads_tokens), prompts.drawn(len(batch), random))
            loss(logits, labels[torch.from_numpy(batch)]).backward()
            optimizer.step()
            yield step


@torch.no_grad()
def score(
    head: Head, scans: HeldScans, chosen: NDArray[np.int64], prompts: Prompts, batch_size: int
) -> NDArray[np.float64]:
    """Logits of the mean over the templates, as at inference, ``[S, C]``."""
    found = [
        head(scans.batch(batch, head.reads_tokens), prompts.templates.expand(len(batch), -1, -1)).double().numpy()
        for batch in _batches(chosen, batch_size)
    ]
    return np.concatenate(found)


def _batches(scans: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    return (scans[start : start + size] for start in range(0, len(scans), size))
