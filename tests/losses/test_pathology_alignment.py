"""The alignment of observations: by hand, against its own symmetries, and where nothing can be told apart."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bundle.ctfindings.losses.pathology_alignment import Observations, PathologyAlignmentLoss, as_observations
from bundle.ctfindings.losses.sentence_matching import match_sentences

SCANS, QUERIES, SENTENCES, WIDTH = 5, 8, 6, 32


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def batch_of(scans: int = SCANS, queries: int = QUERIES, sentences: int = SENTENCES, **given: Any) -> dict[str, Tensor]:
    """Abnormal sentences of different texts on no anatomy, as many for every scan."""
    total = scans * sentences
    return {
        "pathology": unit(scans, queries, WIDTH),
        "pathology_valid": torch.ones(scans, queries, dtype=torch.bool),
        "pathology_anatomy": torch.full((scans, queries), -1),
        "sentence": unit(total, WIDTH, seed=1),
        "sentence_count": torch.full((scans,), sentences),
        "sentence_id": torch.arange(total),
        "sentence_normal": torch.zeros(total, dtype=torch.bool),
        "sentence_anatomy": torch.full((total,), -1),
        "sentence_findings": torch.zeros(total, 2, dtype=torch.bool),
        **given,
    }


def shown_batch() -> dict[str, Tensor]:
    """The first queries of each scan are its sentences."""
    batch = batch_of()
    batch["pathology"][:, :SENTENCES] = batch["sentence"].view(SCANS, SENTENCES, WIDTH)
    return batch


def value(batch: dict[str, Tensor], **settings: Any) -> float:
    return PathologyAlignmentLoss(**settings)(**batch).item()


SWITCHES: list[dict[str, Any]] = [
    {},
    {"matching": "hungarian"},
    {"matching": "sinkhorn"},
    {"negatives": "report"},
    {"positives": "scan"},
    {"reduction": "report"},
    {"diversity": "logdet"},
    {"diversity": "cosine2"},
]


@pytest.mark.parametrize("settings", SWITCHES, ids=str)
def test_the_order_of_sentences_and_of_queries_does_not_matter(settings: dict[str, Any]) -> None:
    batch = batch_of()
    batch["sentence_normal"] = torch.arange(SCANS * SENTENCES) % 3 == 0
    order, queries = (
        torch.randperm(SENTENCES, generator=torch.Generator().manual_seed(2)),
        torch.arange(QUERIES).flip(0),
    )
    shuffled = {
        name: row.view(SCANS, SENTENCES, *row.shape[1:])[:, order].flatten(0, 1)
        if len(row) == SCANS * SENTENCES
        else row
        for name, row in batch.items()
    }
    shuffled["pathology"] = batch["pathology"][:, queries]
    assert value(shuffled, **settings) == pytest.approx(value(batch, **settings), abs=1e-5)


def test_a_model_that_shows_its_sentences_scores_low_and_one_with_the_sentences_of_others_high() -> None:
    batch = shown_batch()
    assert value(batch) < 1
    assert value({**batch, "pathology": batch["pathology"].roll(1, 0)}) > 5


@pytest.mark.parametrize("settings", SWITCHES, ids=str)
def test_training_the_rows_lowers_the_loss(settings: dict[str, Any]) -> None:
    batch = batch_of()
    rows = torch.nn.Parameter(batch["pathology"].clone())
    loss = PathologyAlignmentLoss(**settings)
    optimizer = torch.optim.Adam([rows], lr=0.05)
    first = None
    for _ in range(30):
        found = loss(**{**batch, "pathology": F.normalize(rows, dim=-1)})
        first = found.item() if first is None else first
        optimizer.zero_grad()
        found.backward()
        assert rows.grad is not None and rows.grad.isfinite().all()
        optimizer.step()
    assert found.item() < 0.7 * first


def test_different_texts_give_plain_info_nce_over_the_answers() -> None:
    batch = batch_of(scans=3, sentences=1)
    tau, rows, texts = 0.07, batch["pathology"], batch["sentence"]
    logits = torch.zeros(3, 3)
    for scan in range(3):
        for sentence in range(3):
            shares = torch.softmax(rows[scan] @ texts[sentence] / 0.1, 0)
            answer = F.normalize((shares[:, None] * rows[scan]).sum(0), dim=0)
            logits[scan, sentence] = answer @ texts[sentence] / tau
    own = torch.arange(3)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    assert value(batch, positives="id", diversity="none") == pytest.approx(expected.item(), abs=1e-5)


def test_normal_sentences_count_by_their_weight() -> None:
    """One query answers all, no report has two abnormal sentences: no other term."""
    batch = batch_of(scans=2, queries=1, sentences=2, sentence_normal=torch.tensor([False, True, False, True]))
    logits = batch["pathology"][:, 0] @ batch["sentence"].T / 0.07
    own = torch.tensor([[1, 0.25, 0, 0], [0, 0, 1, 0.25]])
    finds_scan = -(own * logits.log_softmax(0)).sum() / own.sum()
    finds_sentences = -((own * logits.log_softmax(1)).sum(1) / own.sum(1)).mean()
    expected = (finds_scan + finds_sentences).item() / 2
    assert value(batch, normal_weight=0.25) == pytest.approx(expected, abs=1e-5)


def test_an_answer_is_contrasted_with_the_other_abnormal_sentences_of_its_report_by_the_weight_within() -> None:
    batch = batch_of(scans=2, sentences=2)
    terms = []
    for rows, texts in zip(batch["pathology"], batch["sentence"].view(2, 2, WIDTH), strict=True):
        answers = F.normalize(torch.softmax(texts @ rows.T / 0.1, 1) @ rows, dim=1)
        terms.append(F.cross_entropy(answers @ texts.T / 0.07, torch.arange(2)).item())
    expected = sum(terms) / 2
    assert value(batch, within=0.7) - value(batch, within=0.0) == pytest.approx(0.7 * expected, abs=1e-5)
    assert value(batch, negatives="report", spread=0.0) == pytest.approx(expected, abs=1e-5)


def test_equal_texts_of_one_report_do_not_repel_each_other() -> None:
    """The one query has the cosines a, a and b, divided by tau: each a is told from b alone, and b from both."""
    batch = batch_of(scans=1, queries=1, sentences=3, sentence_id=torch.tensor([7, 7, 8]))
    batch["sentence"][1] = batch["sentence"][0]
    a, _, b = (batch["sentence"] @ batch["pathology"][0, 0] / 0.07).tolist()
    expected = (2 * math.log1p(math.exp(b - a)) + math.log1p(2 * math.exp(a - b))) / 3
    assert value(batch, within=1.0) == pytest.approx(expected, abs=1e-5)


def test_a_report_that_repeats_its_sentences_counts_as_before_where_reports_are_contrasted() -> None:
    batch, settings = batch_of(scans=2, sentences=2), {"reduction": "report", "within": 0.0, "diversity": "none"}
    repeated = {name: row[[0, 1, 0, 1, 2, 3]] if len(row) == 4 else row for name, row in batch.items()}
    repeated["sentence_count"] = torch.tensor([4, 2])
    assert value(repeated, **settings) == pytest.approx(value(batch, **settings), abs=1e-5)


def test_a_sentence_that_another_report_has_too_is_no_negative_of_its_scan() -> None:
    batch = batch_of(scans=2, sentences=1, sentence_id=torch.tensor([7, 7]))
    assert value(batch, positives="id", diversity="none") == 0
    assert value(batch, positives="scan", diversity="none") > 0


def test_two_normal_sentences_on_one_anatomy_mean_the_same_and_two_on_none_do_not() -> None:
    batch = batch_of(scans=2, sentences=2)
    batch["sentence_normal"] = torch.tensor([True, False, True, False])
    loss = PathologyAlignmentLoss()
    on_none = loss(**batch).item()
    batch["sentence_anatomy"] = torch.tensor([1, -1, 1, -1])
    on_one = loss(**batch).item()
    assert on_one != pytest.approx(on_none)
    assert on_one == pytest.approx(value({**batch, "sentence_id": torch.tensor([7, 1, 7, 3])}), abs=1e-6)


def denials(*said: tuple[int, bool, list[bool]]) -> Observations:
    """Sentences on one anatomy: the scan that says it, whether it is normal, and the findings that it names."""
    owners, normal, findings = zip(*said, strict=True)
    scans, total = max(owners) + 1, len(said)
    batch = batch_of(scans=scans, sentences=1)
    return as_observations(
        **{name: batch[name] for name in ("pathology", "pathology_valid", "pathology_anatomy")},
        sentence=unit(total, WIDTH),
        sentence_count=torch.tensor([owners.count(scan) for scan in range(scans)]),
        sentence_id=torch.arange(total),
        sentence_normal=torch.tensor(normal),
        sentence_anatomy=torch.zeros(total, dtype=torch.int64),
        sentence_findings=torch.tensor(findings),
    )


def test_a_denial_is_true_of_scans_whose_reports_deny_as_much_and_state_none_of_it() -> None:
    # 0: "no effusion". 1: "no effusion or nodule". 2: "no nodule". 3: "lungs normal". 4: "no effusion", an effusion.
    # 5: "no effusion", "no nodule".
    rows = denials(
        (0, True, [True, False]),
        (1, True, [True, True]),
        (2, True, [False, True]),
        (3, True, [False, False]),
        (4, True, [True, False]),
        (4, False, [True, False]),
        (5, True, [True, False]),
        (5, True, [False, True]),
    )
    found = PathologyAlignmentLoss()._true_of(rows)
    true = [[int(scan) for scan in torch.nonzero(found[:, sentence])] for sentence in range(6)]
    assert true == [[0, 1, 5], [1, 5], [1, 2, 5], [3], [0, 1, 4, 5], [4]]
    # A sentence that a report has word for word is true of its scan, whatever else it says: "no effusion on the left".
    repeated = rows._replace(text=torch.tensor([7, 1, 2, 3, 7, 5, 6, 8]))
    assert PathologyAlignmentLoss()._true_of(repeated)[:, 0].tolist() == [True, True, False, False, True, True]


def test_rows_that_are_the_same_in_all_scans_tell_no_sentences_apart_when_centred() -> None:
    batch = batch_of()
    batch["pathology"] = batch["pathology"][:1].expand(SCANS, -1, -1)
    settings = {"diversity": "none", "centred": True}
    # L_t2i over the scans, L_i2t over all sentences, L_intra over those of a report: every choice is as likely.
    expected = (math.log(SCANS) + math.log(SCANS * SENTENCES)) / 2 + 0.5 * math.log(SENTENCES)
    assert value(batch, **settings) == pytest.approx(expected, abs=1e-5)
    assert value(shown_batch(), **settings) < expected - 1


def test_a_query_of_another_organ_gets_no_share_and_no_gradient_from_the_alignment() -> None:
    batch = batch_of(scans=2, sentences=2, sentence_anatomy=torch.zeros(4, dtype=torch.int64))
    batch["pathology_anatomy"][:, 3:] = 2
    batch["pathology"].requires_grad_()
    PathologyAlignmentLoss(diversity="none")(**batch).backward()
    gradient = batch["pathology"].grad
    assert gradient is not None and gradient[:, :3].any() and not gradient[:, 3:].any()


def test_a_sentence_on_an_anatomy_without_queries_is_answered_by_all() -> None:
    batch = batch_of(scans=2, sentences=2, pathology_anatomy=torch.zeros(2, QUERIES, dtype=torch.int64))
    placed = {**batch, "sentence_anatomy": torch.tensor([1, 1, 1, 1])}
    assert value(placed) == pytest.approx(value(batch), abs=1e-6)


@pytest.mark.parametrize("matching", ["soft", "hungarian", "sinkhorn"])
def test_shares_sum_to_one_over_the_allowed_queries(matching: str) -> None:
    cosine = torch.rand(2, 5, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    allowed = torch.ones(2, 5, 4, dtype=torch.bool)
    allowed[:, :, 3] = False
    allowed[1, 2] = False
    shares = match_sentences(cosine, allowed, torch.tensor([3, 2]), matching, 0.1)
    assert not shares[~allowed].any()
    torch.testing.assert_close(shares.sum(2), allowed.any(2).float())
    if matching == "hungarian":
        # Three sentences and three queries: each has its own.
        assert sorted(shares[0, :3].argmax(1).tolist()) == [0, 1, 2]
    else:
        (shares * cosine).sum().backward()
        assert cosine.grad is not None and cosine.grad.isfinite().all()


def test_the_transport_uses_all_queries_alike() -> None:
    cosine = torch.zeros(1, 4, 2)
    cosine[:, :, 0] = torch.tensor([0.5, 0.4, 0.3, 0.2])
    shares = match_sentences(cosine, torch.ones_like(cosine, dtype=torch.bool), torch.tensor([4]), "sinkhorn", 0.05)
    assert shares[0].sum(0).tolist() == pytest.approx([2, 2], abs=0.2)
    assert (
        match_sentences(cosine, torch.ones_like(cosine, dtype=torch.bool), torch.tensor([4]), "soft", 0.05)[
            0, :, 0
        ].min()
        > 0.9
    )


def test_one_query_that_answers_everything_costs_the_logarithm_of_their_number() -> None:
    batch = batch_of(sentences=1)
    batch["pathology"][:, 0] = batch["sentence"]
    batch["pathology"][:, 1:] = -batch["sentence"][:, None]
    assert value(batch, spread=1.0) - value(batch, spread=0.0) == pytest.approx(math.log(QUERIES), abs=1e-3)


def test_the_use_of_queries_is_that_by_abnormal_sentences() -> None:
    """Two queries at right angles. The abnormal sentence has the cosines 0.8 and 0.6 with them, the normal one the
    reverse: both together would use them alike.
    """
    batch = batch_of(scans=1, queries=2, sentences=2, sentence_normal=torch.tensor([False, True]))
    batch |= {"pathology": torch.eye(2)[None], "sentence": torch.tensor([[0.8, 0.6], [0.6, 0.8]])}
    share = 1 / (1 + math.exp(-0.2 / 0.1))
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert value(batch, spread=1.0) == pytest.approx(math.log(2) - entropy, abs=1e-6)
    assert PathologyAlignmentLoss().use(as_observations(**batch)).tolist() == pytest.approx([share, 1 - share])


def test_equal_rows_cost_in_the_terms_on_rows_and_nothing_in_the_term_on_use() -> None:
    batch = batch_of(pathology=unit(SCANS, 1, WIDTH).expand(-1, QUERIES, -1))
    cost = {kind: value(batch, spread=1.0, diversity=kind) - value(batch, spread=0.0) for kind in ("usage", "cosine2")}
    assert cost == {"usage": pytest.approx(0, abs=1e-5), "cosine2": pytest.approx(1, abs=1e-5)}
    spread_out = value(batch_of(), diversity="logdet") - value(batch_of(), spread=0.0)
    assert value(batch, diversity="logdet") - value(batch, spread=0.0) > spread_out + 0.05


@pytest.mark.parametrize(
    "batch",
    [
        batch_of(sentences=0),
        batch_of(queries=0),
        batch_of(pathology_valid=torch.zeros(SCANS, QUERIES, dtype=torch.bool)),
    ],
    ids=["no sentence", "no query", "no body"],
)
@pytest.mark.parametrize("settings", SWITCHES, ids=str)
def test_without_input_the_loss_is_zero_without_gradient(batch: dict[str, Tensor], settings: dict[str, Any]) -> None:
    loss = PathologyAlignmentLoss(**settings)(**{**batch, "pathology": batch["pathology"].clone().requires_grad_()})
    assert loss.item() == 0 and not loss.requires_grad


@pytest.mark.parametrize(
    "batch",
    [
        batch_of(scans=1),
        batch_of(queries=1),
        batch_of(sentence_count=torch.tensor([6, 0, 12, 6, 6])),
        batch_of(pathology_valid=torch.tensor([[True] * 8, [False] * 8, [True] * 8, [True] * 8, [True] + [False] * 7])),
        batch_of(
            sentence_normal=torch.ones(30, dtype=torch.bool),
            sentence_anatomy=torch.zeros(30, dtype=torch.int64),
            sentence_id=torch.zeros(30, dtype=torch.int64),
        ),
    ],
    ids=["one scan", "one query", "a report without sentence", "a scan without body", "all normal and equal"],
)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"matching": "hungarian", "diversity": "cosine2"},
        {"matching": "sinkhorn", "positives": "scan"},
        {"reduction": "report", "diversity": "logdet"},
    ],
    ids=str,
)
def test_poor_batches_have_finite_gradients(batch: dict[str, Tensor], settings: dict[str, Any]) -> None:
    rows = batch["pathology"].clone().requires_grad_()
    loss = PathologyAlignmentLoss(**settings)(**{**batch, "pathology": rows})
    assert loss.isfinite()
    if loss.requires_grad:
        loss.backward()
        assert rows.grad is not None and rows.grad.isfinite().all()


def test_reports_that_say_the_same_normal_thing_teach_nothing() -> None:
    batch = batch_of(sentence_normal=torch.ones(30, dtype=torch.bool), sentence_id=torch.zeros(30, dtype=torch.int64))
    assert value(batch) == 0


def test_the_temperature_stays_within_its_bounds() -> None:
    loss = PathologyAlignmentLoss()
    with torch.no_grad():
        loss.log_temperature.fill_(-9.0)
    loss(**batch_of()).backward()
    assert loss.log_temperature.exp().item() == pytest.approx(0.01)


@pytest.mark.parametrize(("name", "wrong"), [("matching", "hard"), ("positives", "all"), ("temperature", 0.0)])
def test_a_wrong_setting_is_refused(name: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=name):
        PathologyAlignmentLoss(**{name: wrong})
