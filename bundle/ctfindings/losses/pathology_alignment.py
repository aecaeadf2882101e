"""The observation objective: which sentence of a report does a scan show, and with which of its pathology queries?"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss

from bundle.ctfindings.losses.gathering import gather_rows
from bundle.ctfindings.losses.sentence_matching import MATCHINGS, match_sentences

TEMPERATURE_RANGE = (0.01, 0.5)
"""Bounds of the learned temperature."""

_SWITCHES = {
    "matching": MATCHINGS,
    "negatives": ("batch", "report"),
    "positives": ("meaning", "id", "scan"),
    "reduction": ("sentence", "report"),
    "diversity": ("usage", "logdet", "cosine2", "none"),
}


class Observations(NamedTuple):
    """Query rows of B scans, and S sentences of their reports, one report after the other."""

    pathology: Tensor  # (B, Q, E): unit rows; invalid ones may hold anything
    valid: Tensor  # bool (B, Q): queries that see a token
    anatomy: Tensor  # integer (B, Q): anatomy that a query is confined to, -1 for none
    written: Tensor  # integer (B,): sentences of each scan
    owner: Tensor  # integer (S,): scan of each sentence
    sentence: Tensor  # (S, E): unit text rows
    text: Tensor  # integer (S,): identity of the text
    normal: Tensor  # bool (S,): denies an abnormality or calls an anatomy normal
    place: Tensor  # integer (S,): row of the anatomy table, -1 for none or several
    findings: Tensor  # bool (S, C): findings that it states or, if normal, denies


def as_observations(
    pathology: Tensor,
    pathology_valid: Tensor,
    pathology_anatomy: Tensor,
    sentence: Tensor,
    sentence_count: Tensor,
    sentence_id: Tensor,
    sentence_normal: Tensor,
    sentence_anatomy: Tensor,
    sentence_findings: Tensor,
    gather: bool = False,
) -> Observations:
    """The entries of a step (see ``step_keys``) in single precision or better; with ``gather`` those of all ranks."""
    kind = torch.promote_types(pathology.dtype, torch.float32)
    scans: tuple[Tensor, ...] = (pathology.to(kind), pathology_valid, pathology_anatomy, sentence_count)
    texts: tuple[Tensor, ...] = (
        sentence.to(kind),
        sentence_id,
        sentence_normal,
        sentence_anatomy,
        sentence_findings,
    )
    if gather:
        scans, texts = gather_rows(*scans), gather_rows(*texts)
    owner = torch.arange(len(scans[0]), device=scans[3].device).repeat_interleave(scans[3])
    (rows, valid, anatomy, written), (embedded, text, normal, place, findings) = scans, texts
    return Observations(rows, valid, anatomy, written, owner, embedded, text, normal, place, findings)


class PathologyAlignmentLoss(_Loss):
    """Pathology-level cross-modal alignment: scans and sentences are contrasted through the queries that match.

    PLACE (Wang et al., https://arxiv.org/abs/2506.10573); our reading of its abstract, since its equations were not
    available. No label takes part. The answer of a scan to a sentence is the unit sum of its query rows, weighted by
    how well they match the sentence; its cosine with the sentence is the similarity. The loss is

        (L_t2i + L_i2t) / 2 + within L_intra + spread L_use

    L_t2i: a sentence finds the scans of which it is true. L_i2t: a scan finds its sentences. L_intra: the answer to an
    abnormal sentence fits that sentence better than the other abnormal ones of its report. L_use: the queries are
    used alike, because the other terms hardly punish a collapse to one query.

    The temperature is a parameter of this module: give it to the optimizer. Every rank sees the joined batch, so its
    gradient is the same on all ranks and needs no exchange.

    Args:
        temperature: Start of the learned temperature.
        match_temperature: Divides the cosines when queries are matched.
        normal_weight: Weight of a normal sentence; abnormal ones have 1.
        within: Weight of L_intra.
        spread: Weight of L_use.
        matching: "soft", "hungarian" or "sinkhorn", see ``match_sentences``.
        negatives: "batch"; or "report" for L_intra and L_use alone, because reports share their sentences.
        positives: Scans of which a sentence is true, beside its own: with "meaning" those whose report has the same
            text or, for a normal sentence, means the same by what it denies of the same anatomy; with "id" those with
            the same text; with "scan" none.
        reduction: "sentence"; or "report" to contrast scans with the weighted mean over the sentences of a report.
        diversity: L_use as "usage" (ln Q minus the entropy of the mean use by abnormal sentences), "logdet" or
            "cosine2" (of the rows of a scan), or "none".
        centred: Whether a scan is compared over sentences (L_i2t, L_intra) by its similarities minus their means over
            the scans. Otherwise these terms also fall when the rows of all scans move alike, because the shares of the
            queries are chosen by the sentence.
    """

    inputs: tuple[str, ...] = (
        "pathology",
        "pathology_valid",
        "pathology_anatomy",
        "sentence",
        "sentence_count",
        "sentence_id",
        "sentence_normal",
        "sentence_anatomy",
        "sentence_findings",
    )
    gathers = True

    def __init__(
        self,
        temperature: float = 0.07,
        match_temperature: float = 0.1,
        normal_weight: float = 0.5,
        within: float = 0.5,
        spread: float = 0.1,
        matching: str = "soft",
        negatives: str = "batch",
        positives: str = "meaning",
        reduction: str = "sentence",
        diversity: str = "usage",
        centred: bool = False,
    ) -> None:
        super().__init__()
        given = {
            "matching": matching,
            "negatives": negatives,
            "positives": positives,
            "reduction": reduction,
            "diversity": diversity,
        }
        for name, value in given.items():
            if value not in _SWITCHES[name]:
                raise ValueError(f"{name}: expected one of {', '.join(_SWITCHES[name])}, got {value!r}")
        for name, number in (("temperature", temperature), ("match_temperature", match_temperature)):
            if not number > 0:
                raise ValueError(f"{name}: expected a positive number, got {number}")
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        self.match_temperature, self.normal_weight = match_temperature, normal_weight
        self.within, self.spread = within, spread
        self.matching, self.negatives, self.positives = matching, negatives, positives
        self.reduction, self.diversity, self.centred = reduction, diversity, centred

    def forward(self, **rows: Tensor) -> Tensor:
        """The loss over the joined batch; zero, without gradient, without a sentence of a scan with a valid query.

        The rows are the arguments of `as_observations`.
        """
        with torch.autocast(rows["pathology"].device.type, enabled=False):
            return self.value(as_observations(**rows, gather=True))

    def value(self, rows: Observations) -> Tensor:
        """The loss of some scans and their sentences."""
        answers = rows.valid.any(dim=1)
        if not len(rows.owner) or not answers[rows.owner].any():
            return rows.pathology.new_zeros(())
        with torch.no_grad():
            self.log_temperature.clamp_(*(math.log(limit) for limit in TEMPERATURE_RANGE))
        shares, cosine = self._matched(rows)
        within = self._within_reports(rows, shares, cosine, answers)
        spread = self.spread * self._collapse(rows, shares, answers)
        if self.negatives == "report":
            return within + spread
        return sum(self._terms(rows, shares, cosine, answers), spread) + self.within * within

    def use(self, rows: Observations) -> Tensor:
        """How much abnormal sentences use each query of their own scan, summed over the sentences, (Q,)."""
        shares, _ = self._matched(rows)
        return self._own_shares(rows, shares, rows.valid.any(dim=1)).sum(dim=0)

    def _matched(self, rows: Observations) -> tuple[Tensor, Tensor]:
        """Shares of the queries and their cosines with the sentences, both (B, S, Q)."""
        cosine = torch.einsum("se,bqe->bsq", rows.sentence, rows.pathology)
        free = (rows.anatomy < 0)[:, None] | (rows.place < 0)[None, :, None]
        own = free | (rows.anatomy[:, None] == rows.place[None, :, None])
        allowed = rows.valid[:, None] & own
        # A sentence on an anatomy without a query of its own is answered by all.
        allowed = torch.where(allowed.any(dim=2, keepdim=True), allowed, rows.valid[:, None])
        shares = match_sentences(cosine, allowed, rows.written, self.matching, self.match_temperature)
        return shares, cosine

    def _norm(self, rows: Observations, shares: Tensor) -> Tensor:
        """Length of the weighted sum of the query rows, (B, S), without computing the sums."""
        alike = rows.pathology @ rows.pathology.transpose(1, 2)
        return ((shares @ alike) * shares).sum(dim=2).clamp(min=1e-6).sqrt()

    def _terms(self, rows: Observations, shares: Tensor, cosine: Tensor, answers: Tensor) -> list[Tensor]:
        """Half of L_t2i and of L_i2t, where something can be told apart."""
        similarity = (shares * cosine).sum(dim=2) / self._norm(rows, shares) / self.log_temperature.exp()
        weight = torch.where(rows.normal, self.normal_weight, 1.0)
        positive = self._true_of(rows)
        owner, counted = rows.owner, answers[rows.owner]
        if self.reduction == "report":
            belongs = F.one_hot(owner, len(answers)).to(similarity.dtype) * weight[:, None]
            written = belongs.sum(dim=0) > 0
            similarity = similarity @ belongs / belongs.sum(dim=0).clamp(min=1e-6)
            # A report is true of a scan if all of its sentences are.
            positive = ((~positive).to(similarity.dtype) @ belongs == 0)[:, written]
            similarity, weight = similarity[:, written], weight.new_ones(int(written.sum()))
            counted = answers[written]
        similarity, positive = similarity[answers][:, counted], positive[answers][:, counted]
        weight = weight[counted]
        terms = []
        told = ~positive.all(dim=0)
        if told.any():
            likely = positive.to(similarity.dtype) / positive.sum(dim=0).clamp(min=1)
            loss = -(likely * similarity.log_softmax(dim=0)).sum(dim=0)
            terms.append((loss * weight)[told].sum() / weight[told].sum().clamp(min=1e-6) / 2)
        told = positive.any(dim=1) & ~positive.all(dim=1)
        if told.any():
            likely = positive * weight
            relative = similarity - similarity.mean(dim=0) if self.centred else similarity
            loss = -(likely * relative.log_softmax(dim=1)).sum(dim=1) / likely.sum(dim=1).clamp(min=1e-6)
            terms.append(loss[told].mean() / 2)
        return terms

    def _true_of(self, rows: Observations) -> Tensor:
        """Whether a sentence is true of a scan, as far as its report tells, (B, S) bool."""
        scans = len(rows.pathology)
        own = F.one_hot(rows.owner, scans).T.bool()
        if self.positives == "scan":
            return own
        said = own.float() @ (rows.text[:, None] == rows.text).float() > 0
        return said if self.positives == "id" else said | self._implied(rows, own)

    def _implied(self, rows: Observations, own: Tensor) -> Tensor:
        """Whether a report means a normal sentence by what it says of the same anatomy, (B, S) bool.

        It denies every finding that the sentence denies, in one sentence or several, or says like it that nothing is
        abnormal without naming a finding; and it states none of these findings.
        """
        findings = rows.findings.float()
        alike = rows.normal[:, None] & rows.normal & (rows.place[:, None] == rows.place) & (rows.place >= 0)
        # For report b and sentence s, the normal sentences of b on the anatomy of s, (B, S, S).
        told = own.float()[:, None] * alike.float()
        denied = told @ findings > 0
        denies_all = (denied | ~rows.findings).all(dim=2)
        unnamed = told @ (1 - findings.amax(dim=1, keepdim=True)) > 0
        stated = own.float() @ (findings * ~rows.normal[:, None]) > 0
        named = rows.findings.any(dim=1)
        return torch.where(named, denies_all, unnamed.squeeze(2)) & rows.normal & ~(stated.float() @ findings.T > 0)

    def _within_reports(self, rows: Observations, shares: Tensor, cosine: Tensor, answers: Tensor) -> Tensor:
        """L_intra, the mean over scans with at least two abnormal sentences of different text."""
        if self.centred and int(answers.sum()) < 2:
            return cosine.new_zeros(())
        norm = self._norm(rows, shares)
        losses = []
        for scan in torch.nonzero(answers).flatten().tolist():
            chosen = torch.nonzero((rows.owner == scan) & ~rows.normal).flatten()
            text = rows.text[chosen]
            if len(torch.unique(text)) < 2:
                continue
            # Row s: the answer to sentence s, against all sentences.
            logits = shares[scan, chosen] @ cosine[scan, chosen].T / norm[scan, chosen, None]
            if self.centred:
                fits = shares[answers][:, chosen] @ cosine[answers][:, chosen].transpose(1, 2)
                logits = logits - (fits / norm[answers][:, chosen, None]).mean(dim=0)
            twin = (text[:, None] == text) & ~torch.eye(len(text), dtype=torch.bool, device=text.device)
            logits = (logits / self.log_temperature.exp()).masked_fill(twin, -torch.inf)
            losses.append(F.cross_entropy(logits, torch.arange(len(text), device=text.device)))
        return torch.stack(losses).mean() if losses else cosine.new_zeros(())

    def _own_shares(self, rows: Observations, shares: Tensor, answers: Tensor) -> Tensor:
        """Shares of the queries of its own scan in each abnormal sentence, (A, Q)."""
        chosen = torch.nonzero(~rows.normal & answers[rows.owner]).flatten()
        return shares[rows.owner[chosen], chosen]

    def _collapse(self, rows: Observations, shares: Tensor, answers: Tensor) -> Tensor:
        """L_use; 0 for one query."""
        queries = shares.shape[2]
        if self.diversity == "none" or queries < 2:
            return shares.new_zeros(())
        if self.diversity == "usage":
            own = self._own_shares(rows, shares, answers)
            return math.log(queries) - entropy(own.mean(dim=0)) if len(own) else shares.new_zeros(())
        seen = rows.pathology[answers]
        alike = seen @ seen.transpose(1, 2)
        identity = torch.eye(queries, device=alike.device)
        if self.diversity == "logdet":
            return -torch.logdet(alike + 0.1 * identity).mean() / queries
        return (alike * (1 - identity)).square().sum(dim=(1, 2)).mean() / (queries * (queries - 1))


def entropy(share: Tensor) -> Tensor:
    """Entropy of shares that sum to 1 over the last axis, in nats."""
    return -torch.special.xlogy(share, share.clamp(min=1e-12)).sum(dim=-1)
