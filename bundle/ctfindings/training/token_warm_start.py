"""Warm start: before the first epoch, tokens learn the findings from their statistics, in large batches."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Self, cast

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.utils import evenly_divisible_all_gather
from torch import Tensor, nn

from bundle.ctfindings.data.batches import prepare_batch
from bundle.ctfindings.files.progress import progress_bar
from bundle.ctfindings.losses.gathering import world_size
from bundle.ctfindings.losses.grounding import GroundingLoss
from bundle.ctfindings.networks.image.pooling import dilate_membership, finding_tokens, token_membership
from bundle.ctfindings.networks.text.prompts import drawn_prompts
from bundle.ctfindings.networks.vision_language import VisionLanguageModel
from bundle.ctfindings.training.unwrapped import unwrapped

logger = logging.getLogger("ctfindings.warm_start")

INSIDE_OF_SCAN, OUTSIDE_OF_SCAN = 16, 48
"""Tokens kept from one scan, inside a finding and outside in its anatomy, so that no large lesion dominates."""

LEARNING_RATE = 0.002
"""Highest rate of the one-cycle schedule."""

POSITIVES, NEGATIVES = 32, 2048
"""Tokens of a step: inside each finding, and others."""


@dataclass
class TokenSample:
    """Tokens of many scans.

    A finding whose label is unknown, or that is present without a mask, has no token inside or outside.
    """

    features: Tensor  # [n, F]: token statistics, in half precision
    inside: Tensor  # bool [n, C]: the token touches the mask of the finding
    outside: Tensor  # bool [n, C]: the token is in the anatomy of the finding, outside its mask

    @cached_property
    def lesions(self) -> dict[int, Tensor]:
        """Indices of the tokens of each finding that has any."""
        found = [torch.nonzero(column).flatten().cpu() for column in self.inside.unbind(1)]
        return {index: tokens for index, tokens in enumerate(found) if len(tokens)}

    def draw(self, generator: torch.Generator) -> Self:
        """Tokens for one step: equally many for each finding, which count for that finding only, and others."""
        lesions = [
            tokens[torch.randint(len(tokens), (POSITIVES,), generator=generator)] for tokens in self.lesions.values()
        ]
        others = torch.randint(len(self.features), (NEGATIVES,), generator=generator)
        rows = torch.cat([*lesions, others]).to(self.features.device)
        outside = self.outside[rows]
        outside[: len(rows) - NEGATIVES] = False
        inside = torch.zeros_like(outside)
        columns = torch.tensor(list(self.lesions)).repeat_interleave(POSITIVES)
        inside[torch.arange(len(columns)), columns] = True
        return type(self)(self.features[rows].float(), inside, outside)


class TokenWarmStart:
    """Trains on token statistics alone before the first epoch: the grounding objective on tokens of many scans at once.

    A batch of a few scans has a handful of similar tokens of a small lesion, too few for a useful gradient. The
    statistics of a token depend on no weight, so they are computed once for a sample of the tokens of each scan. The
    perceptron, the field, its scale and the text head then train on thousands of tokens a step, equally many for each
    finding. A resumed run is not warmed up again. This stage is ours; none of the papers has it.

    Args:
        network: A ``VisionLanguageModel``, possibly in ``DistributedDataParallel``. Without token statistics in its
            tower, nothing is done.
        loader: Loader of training batches; every rank reads its own share, and all train on all shares.
        steps: Optimizer steps; 0 switches the stage off.
        scans: Largest number of scans to read, over all ranks.
        false_alarm_weight: See ``GroundingLoss``.
    """

    def __init__(
        self,
        network: nn.Module,
        loader: Iterable[Any],
        steps: int,
        scans: int,
        device: str | torch.device,
        seed: int,
        show: bool,
        false_alarm_weight: float = 1.0,
    ) -> None:
        self.network: VisionLanguageModel = unwrapped(network)
        self.loader = loader
        self.steps = steps
        self.scans = scans
        self.device = torch.device(device)
        self.seed = seed
        self.show = show
        self.loss = GroundingLoss(false_alarm_weight)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED(once=1), self)

    def __call__(self, engine: Engine) -> None:
        if self.steps < 1 or not hasattr(self.network.image.tower, "token_features"):
            return
        sample = self.collect() if self._has_masks() else None
        if sample is None:
            logger.info("no training scan has masks of anatomies and of findings: no warm start")
        else:
            self.fit(sample)

    def collect(self) -> TokenSample | None:
        """Statistics of a sample of the tokens of all ranks' training scans; None if no finding has a token."""
        self.network.train()
        generator = torch.Generator().manual_seed(self.seed)
        share = max(1, self.scans // world_size())
        dataset = getattr(self.loader, "dataset", None)
        expected = None if dataset is None else min(share, len(dataset) // world_size())
        scans = islice(self._scans(), share)
        progress = progress_bar(scans, "tokens of the scans" if self.show else "", expected, unit="scan")
        return self._of_all_ranks([part for scan in progress if (part := self._tokens_of(scan, generator)) is not None])

    def _tokens_of(
        self, scan: tuple[Tensor, Tensor, Tensor | None, Tensor | None], generator: torch.Generator
    ) -> TokenSample | None:
        """A sample of the tokens of one scan, None without masks; all its tokens enter the standardisation."""
        image, labels, finding_masks, anatomy = scan
        tower: Any = self.network.image.tower
        with torch.no_grad():
            features = tower.token_features(image)
            every = torch.ones(features.shape[1], 1, dtype=torch.bool, device=self.device)
            self._standardization()(features.transpose(0, 1), every)
        if finding_masks is None or anatomy is None:
            return None
        inside = finding_tokens(finding_masks, tower.stride)[0] & (labels == 1)
        grid = [size // step for size, step in zip(image.shape[2:], tower.stride, strict=True)]
        margin = self.network.image.margin_tokens
        members = dilate_membership(token_membership(anatomy, tower.stride), grid, margin)[0]
        # Where a finding is present without a mask, its tokens are unknown.
        taking_part = (labels == 0) | inside.any(0)
        outside = members[:, self.network.finding_anatomy] & ~inside & taking_part
        kept = _sample(inside, outside, generator).to(self.device)
        return TokenSample(features[0, kept].half(), inside[kept], outside[kept])

    def fit(self, sample: TokenSample) -> None:
        """Trains the network on a sample, the same on every rank."""
        optimizer = torch.optim.Adam(_trained(self.network), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, LEARNING_RATE, total_steps=self.steps + 1, pct_start=0.1
        )
        generator = torch.Generator().manual_seed(self.seed)
        standardization = self._standardization()
        frozen, standardization.frozen = standardization.frozen, True
        losses: list[float] = []
        with torch.random.fork_rng(devices=[]), self.network.text.frozen_trunk():
            torch.manual_seed(self.seed)
            for _ in progress_bar(range(self.steps), "warm start" if self.show else "", unit="step"):
                self.network.zero_grad()
                loss = self._loss(sample.draw(generator))
                loss.backward()
                optimizer.step()
                schedule.step()
                losses.append(float(loss.detach()))
        self.network.zero_grad()
        standardization.frozen = frozen
        tenth = max(1, self.steps // 10)
        first, last = (sum(part) / len(part) for part in (losses[:tenth], losses[-tenth:]))
        tokens = len(sample.features)
        logger.info("warm start on %d tokens, %d steps: grounding %.4f, then %.4f", tokens, self.steps, first, last)

    def _loss(self, drawn: TokenSample) -> Tensor:
        network = self.network
        tokens = cast(Any, network.image.tower).tokens_of_features(drawn.features.unsqueeze(0))
        prompts = drawn_prompts(network.text, 1)
        logits = network.scorer.token_logits(network.image.token_field(tokens), prompts[0] - prompts[1])
        return cast(
            Tensor, self.loss(logits, drawn.inside[None], drawn.outside[None], drawn.inside.any(0).long()[None])
        )

    def _scans(self) -> Iterator[tuple[Tensor, Tensor, Tensor | None, Tensor | None]]:
        """Image, labels and masks of each scan of this rank."""
        for batch in self.loader:
            image, targets, _, inputs = prepare_batch(batch, self.device)
            for row in range(len(image)):
                masks = [inputs[key][row : row + 1] if key in inputs else None for key in ("finding_masks", "anatomy")]
                yield image[row : row + 1], targets["labels"][row], masks[0], masks[1]

    def _has_masks(self) -> bool:
        """Whether some study has what a sample needs; True if the loader does not tell."""
        studies = getattr(getattr(self.loader, "dataset", None), "data", None)
        return studies is None or _masked(studies)

    def _standardization(self) -> Any:
        return cast(Any, self.network.image.tower).statistics.standardize

    def _of_all_ranks(self, parts: list[TokenSample]) -> TokenSample | None:
        if world_size() > 1:
            for buffer in self._standardization().buffers():
                dist.broadcast(buffer, 0)
        # A rank without masks takes part with no token.
        width, findings = self._standardization().mean.shape[1], len(self.network.finding_anatomy)
        nothing = torch.zeros(0, findings, dtype=torch.bool, device=self.device)
        parts = [*parts, TokenSample(torch.zeros(0, width, dtype=torch.float16, device=self.device), nothing, nothing)]
        joined = [torch.cat([getattr(part, name) for part in parts]) for name in ("features", "inside", "outside")]
        if world_size() > 1:
            # Not every backend gathers booleans.
            numbers = [column.to(torch.uint8) if column.dtype == torch.bool else column for column in joined]
            joined = [evenly_divisible_all_gather(column, True) for column in numbers]
        sample = TokenSample(joined[0], joined[1].bool(), joined[2].bool())
        return sample if sample.inside.any() else None


def warm_started_parameters(network: nn.Module, studies: Iterable[Mapping[str, Any]]) -> list[nn.Parameter]:
    """The parameters that ``TokenWarmStart`` trains; none if the tower or the training studies give it nothing to read.

    They are good when the first epoch begins, and lose what they know at the rate at which the others learn.
    """
    model: VisionLanguageModel = unwrapped(network)
    return _trained(model) if _masked(studies) and hasattr(model.image.tower, "token_features") else []


def _masked(studies: Iterable[Mapping[str, Any]]) -> bool:
    """Whether some study has masks of findings and of anatomies."""
    return any(study.get("finding_masks") and study.get("anatomy") for study in studies)


def _trained(network: VisionLanguageModel) -> list[nn.Parameter]:
    tower: Any = network.image.tower
    modules = (tower.statistics, tower.fuse, network.image.field, network.text.head)
    return [network.scorer.log_token_scale, *(parameter for module in modules for parameter in module.parameters())]


def _sample(inside: Tensor, outside: Tensor, generator: torch.Generator) -> Tensor:
    kept = [_some(column, INSIDE_OF_SCAN, generator) for column in inside.unbind(1)]
    return torch.cat([*kept, *(_some(column, OUTSIDE_OF_SCAN, generator) for column in outside.unbind(1))]).unique()


def _some(mask: Tensor, count: int, generator: torch.Generator) -> Tensor:
    found = torch.nonzero(mask).flatten().cpu()
    return found[torch.randperm(len(found), generator=generator)[:count]]
