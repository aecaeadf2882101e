"""Adaptation: scans with labels become a checkpoint that inference serves, fitted on patients that it did not see."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from sklearn.metrics import roc_auc_score

from bundle.ctfindings.adaptation import Adaptation, EncodedStudies, FrozenLevelsd, HeadTraining
from bundle.ctfindings.adaptation.frozen_tower import load_frozen
from bundle.ctfindings.adaptation.head_training import Choice, Head, Prompts, score
from bundle.ctfindings.adaptation.held_scans import HeldScans, fit_reduction, hold_scans
from bundle.ctfindings.data.transforms import image_pipeline
from bundle.ctfindings.findings import FINDINGS, finding_index
from bundle.ctfindings.inference.answers import score_findings
from bundle.ctfindings.inference.assessment import Assessment
from bundle.ctfindings.inference.encoding import TimedPreprocessing, encode_study
from bundle.ctfindings.networks.checkpoint import read_source, sha256_of
from bundle.ctfindings.networks.classifier import NO_THRESHOLD, ZeroShotClassifier, load_classifier
from bundle.ctfindings.networks.image.pooling import project_rows
from bundle.ctfindings.networks.scoring import FindingScorer
from bundle.ctfindings.networks.trained_settings import KEPT_SETTINGS, TrainedSettings
from bundle.ctfindings.networks.vision_language import VisionLanguageModel
from tests import commands
from tests.networks.conftest import encoder, make_image, make_model  # noqa: F401

NODULE, HERNIA = finding_index("Lung nodule"), finding_index("Hiatal hernia")
Make = Callable[[], VisionLanguageModel]


def pipeline() -> list[Any]:
    return image_pipeline((6, 6, 6), (-1000, 1000), divisible=8)


def encoded_studies(datalist: Path, weights: Path, cache: Path, tower: torch.nn.Module) -> EncodedStudies:
    return EncodedStudies(datalist, ["training"], pipeline(), FrozenLevelsd(tower, weights), cache, "test")


@pytest.fixture
def weights(make_model: Make, tmp_path: Path) -> Path:  # noqa: F811
    """A bundle checkpoint of the small model with random weights."""
    torch.save(make_model().state_dict(), tmp_path / "frozen.pt")
    return tmp_path / "frozen.pt"


@pytest.mark.parametrize("kind", ["linear_probe", "prompt_head"])
def test_the_adapted_checkpoint_answers_as_the_head_that_was_trained(
    kind: str,
    make_model: Make,  # noqa: F811
    weights: Path,
    datalist: Path,
    wordings_are_templates: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    network = make_model()
    network.image.body_threshold = 0.3  # The untrained anatomy head would depend on the rounding of the cache.
    encoded = encoded_studies(datalist, weights, tmp_path / "cache", make_model().image.tower)
    training = HeadTraining(kind, weight_decays=[0.01], steps=40, validate_every=20, folds=3, learning_rates=[0.01])
    before = {name: value.clone() for name, value in network.image.tower.state_dict().items()}
    record = Adaptation(encoded, network, weights, weights, training, tmp_path / "out", least_patients=3).run()
    assert record == json.loads((tmp_path / "out" / "adaptation.json").read_text())
    assert "Left out: bad: " in capsys.readouterr().out
    assert list(record["failed"]) == ["bad"] and record["scans"] == 12 and record["steps"] in (20, 40)
    assert [row["finding"] for row in record["findings"] if row["assessed"]] == ["Lung nodule"]
    nodule, few = record["findings"][NODULE], record["findings"][HERNIA]
    assert nodule["interval"] is None and 0 <= nodule["sensitivity"] <= 1, "six patients have no interval"
    assert 0 <= record["auc_before"] <= 1
    assert (few["present"], few["absent"]) == (1, 2), "labels that are too few to be used are counted"
    assert all(torch.equal(value, before[name]) for name, value in network.image.tower.state_dict().items())

    # Inference on a file gives the logits of the head on held tokens: same body, same anatomies, same prompts.
    studies = [study for study in encoded.studies() if study["id"] != "bad"]
    held = hold_scans(network.image, encoded.dataset(studies))
    logits = score(Head(network.image, network.scorer), held, np.arange(12), Prompts(network.text), 4)
    image = make_model().image
    image.body_threshold = 0.3
    classifier = ZeroShotClassifier(image, FindingScorer()).eval()
    load_classifier(classifier, tmp_path / "out" / "model.pt")
    assert read_source(tmp_path / "out" / "model.pt") == {
        "adapted_from": sha256_of(weights),
        "adapted_to": "12 scans of 12 patients",
    }
    study = encode_study(classifier, TimedPreprocessing(pipeline())({"image": studies[1]["image"]}))
    np.testing.assert_allclose(classifier.score(study.embedding).logits[0].detach().numpy(), logits[1], atol=0.05)
    assert logits.std() > 0.1

    # The domain is that of these scans, and a finding without labels is not assessed.
    assert study.domain is not None and study.domain.inside and record["domain"]["scans"] == 12
    answers = [Assessment().of(answer.answer, study) for answer in score_findings(classifier, study.embedding)]
    assert answers[HERNIA].threshold == NO_THRESHOLD and answers[HERNIA].present is None  # type: ignore[union-attr]
    assert "too few scans" in str(answers[HERNIA].not_assessed)  # type: ignore[union-attr]
    assert answers[NODULE].threshold <= 1  # type: ignore[union-attr]


class Inverted(HeadTraining):
    """Its held-out logits fall with the labels."""

    def choose(self, *args: Any) -> Choice:
        choice = super().choose(*args)
        return replace(choice, logits=-np.abs(choice.logits) * (2 * args[2].numpy() - 1))


def test_a_finding_at_chance_is_not_assessed_and_without_another_nothing_is_written(
    make_model: Make,  # noqa: F811
    weights: Path,
    datalist: Path,
    tmp_path: Path,
) -> None:
    encoded = encoded_studies(datalist, weights, tmp_path / "cache", make_model().image.tower)
    training = Inverted("linear_probe", weight_decays=[0.01], steps=2, validate_every=2, folds=2)
    adaptation = Adaptation(encoded, make_model(), weights, weights, training, tmp_path / "out")
    with pytest.raises(ValueError, match=r"model\.pt: not written; no finding has an AUC above least_auc; add"):
        adaptation.run()
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["adaptation.json"]
    row = json.loads((tmp_path / "out" / "adaptation.json").read_text())["findings"][NODULE]
    assert row["auc"] == 0 and not row["assessed"] and "threshold" not in row
    with pytest.raises(ValueError, match=r"least_auc: expected a number from 0 to below 1, got 50"):
        Adaptation(encoded, make_model(), weights, weights, training, tmp_path, least_auc=50)


def test_a_folder_that_cannot_be_written_is_refused_before_scans_are_encoded(
    make_model: Make,  # noqa: F811
    weights: Path,
    datalist: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("")
    encoded = encoded_studies(datalist, weights, tmp_path / "cache", make_model().image.tower)
    adaptation = Adaptation(encoded, make_model(), weights, weights, HeadTraining(), tmp_path / "file")
    with pytest.raises(ValueError, match=r"output_dir: .*file is a file; give a folder for the results"):
        adaptation.run()
    assert not (tmp_path / "cache").exists()


def test_labels_may_change_without_encoding_again(
    make_model: Make,  # noqa: F811
    weights: Path,
    datalist: Path,
    tmp_path: Path,
) -> None:
    encoded = encoded_studies(datalist, weights, tmp_path / "cache", make_model().image.tower)
    studies = encoded.studies()[:2]
    assert set(encoded.fill(studies).values()) == {"made"}
    corrected = [{**study, "labels": -study["labels"], "report": {"findings": "Normal."}} for study in studies]
    assert set(encoded.fill(corrected).values()) == {"kept"}


def held_scans(patients: int, scans: int) -> HeldScans:
    """Features are noise around a vector of the patient, so that only a patient who is known is predictable."""
    random = torch.Generator().manual_seed(0)
    of_patient = torch.randn(patients, 1, 36, generator=random).repeat_interleave(scans, dim=0)
    pooled = of_patient + 0.1 * torch.randn(patients * scans, 6, 36, generator=random)
    valid, members = torch.ones(len(pooled), 6, dtype=torch.bool), torch.ones(5, 6, dtype=torch.bool)
    tokens = torch.randn(len(pooled), 5, 12, generator=random).half()
    return HeldScans(pooled, valid, list(tokens), [members] * len(pooled))


def fixed_prompts() -> Any:
    """The same prompts for all findings."""
    deltas = torch.nn.functional.normalize(torch.ones(len(FINDINGS), 8), dim=-1)
    return SimpleNamespace(templates=deltas, drawn=lambda batch, random: deltas.expand(batch, -1, -1))


def test_held_out_logits_come_from_heads_that_did_not_see_the_patient(
    make_model: Make,  # noqa: F811
) -> None:
    model, scans = make_model(), held_scans(12, 3)
    labels = torch.tensor([index % 2 for index in range(12)]).repeat_interleave(3)[:, None].repeat(1, len(FINDINGS))
    patients = [str(index // 3) for index in range(36)]
    training = HeadTraining("linear_probe", [0.0], steps=60, validate_every=60, folds=4, learning_rates=[0.02])
    head, prompts = Head(model.image, model.scorer), fixed_prompts()
    training.prepare(head)
    choice = training.choose(head, scans, labels, patients, prompts)
    by_scan = training.choose(head, scans, labels, [str(index) for index in range(36)], prompts)
    truth = labels[:, NODULE].numpy()
    assert roc_auc_score(truth, by_scan.logits[:, NODULE]) > 0.95  # The patient is recognised.
    assert roc_auc_score(truth, choice.logits[:, NODULE]) < 0.8


def test_the_head_scores_and_learns_as_the_network_does(make_model: Make) -> None:  # noqa: F811
    model, scans = make_model(), held_scans(2, 2)
    head, batch = Head(model.image, model.scorer), scans.batch(np.arange(4))
    with torch.no_grad():
        for parameter in head.field.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    deltas = torch.randn(4, len(FINDINGS), 8, generator=torch.Generator().manual_seed(2))
    rows = project_rows(batch.pooled, batch.valid, head.projection, head.bias)
    field = model.image.token_field(batch.tokens)
    expected = model.scorer(rows, batch.valid, field, batch.members, deltas, head.finding_anatomy)[0]
    parameters = [*head.field.parameters(), model.scorer.log_token_scale]
    found = head(batch, deltas)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    wanted = torch.autograd.grad(expected.square().sum(), parameters)
    torch.testing.assert_close(torch.autograd.grad(found.square().sum(), parameters), wanted, atol=1e-2, rtol=1e-3)
    assert all(float(each.abs().max()) > 0.1 for each in wanted)


def test_a_head_with_evidence_that_starts_from_a_linear_probe_has_the_token_term_again(make_model: Make) -> None:  # noqa: F811
    model = make_model()
    head = Head(model.image, model.scorer)
    HeadTraining("linear_probe").prepare(head)
    assert not head.reads_tokens
    HeadTraining("prompt_head").prepare(head)
    assert head.reads_tokens and float(model.scorer.log_token_scale.detach().exp()) == pytest.approx(10)
    with torch.no_grad():
        model.scorer.log_token_scale.fill_(1.5)
    HeadTraining("prompt_head").prepare(head)
    assert float(model.scorer.log_token_scale) == 1.5, "what was trained is kept"


def test_scans_without_a_label_take_no_part_and_break_no_step(make_model: Make) -> None:  # noqa: F811
    scans, labels = held_scans(6, 2), torch.zeros(12, len(FINDINGS), dtype=torch.long)
    labels[::2], labels[3::4] = 1, -1
    training = HeadTraining("linear_probe", steps=10, validate_every=5, batch_size=1, folds=2)
    model = make_model()
    head = Head(model.image, model.scorer)
    training.prepare(head)
    choice = training.choose(head, scans, labels, [str(scan // 2) for scan in range(12)], fixed_prompts())
    assert np.isfinite(choice.logits).all()


def test_the_steps_and_the_setting_of_the_lowest_loss_are_taken(make_model: Make) -> None:  # noqa: F811
    model = make_model()
    labels = torch.tensor([0, 1] * 4)[:, None].repeat(1, len(FINDINGS))
    training = HeadTraining("linear_probe", [0.0, 1.0], 30, validate_every=10, folds=2, learning_rates=[0.001, 0.05])
    head = Head(model.image, model.scorer)
    choice = training.choose(head, held_scans(8, 1), labels, [str(index) for index in range(8)], fixed_prompts())
    assert {setting: len(found) for setting, found in choice.losses.items()} == {
        (decay, rate): 3 for decay in (0.0, 1.0) for rate in (0.001, 0.05)
    }
    chosen = choice.losses[choice.weight_decay, choice.learning_rate]
    assert chosen[choice.steps // 10 - 1] == min(map(min, choice.losses.values()))


def test_a_setting_whose_loss_rises_is_trained_no_further(make_model: Make) -> None:  # noqa: F811
    labels = torch.tensor([0, 1] * 4)[:, None].repeat(1, len(FINDINGS))
    patients, losses = [str(index) for index in range(8)], []
    for patience in (2, 12):
        model = make_model()
        training = HeadTraining("linear_probe", [0.0], 60, 5, patience, folds=2, learning_rates=[0.0005])
        head = Head(model.image, model.scorer)
        training.prepare(head)
        choice = training.choose(head, held_scans(8, 1), labels, patients, fixed_prompts())
        (found,) = choice.losses.values()
        losses.append(found)
        assert found[choice.steps // 5 - 1] == min(found)
    early, whole = losses
    assert len(early) < len(whole) == 12 and early == whole[: len(early)]
    assert int(np.argmin(early)) == len(early) - 3
    with pytest.raises(ValueError, match=r"steps: expected validate_every \(10\) or more, got 5"):
        HeadTraining(steps=5)


def test_the_reduction_gives_uncorrelated_tokens_of_variance_one() -> None:
    from bundle.ctfindings.networks.image.resnet_tower import ResNetTower, joined_tokens

    random = torch.Generator().manual_seed(0)
    tower = ResNetTower(3, blocks=(1, 1, 1, 1), channels=(2, 2, 2, 2))
    mixing = torch.randn(8, 8, generator=random)
    stages = []
    for _ in range(20):
        third = torch.einsum("cd,dxyz->cxyz", mixing, torch.randn(8, 3, 3, 3, generator=random)) + 5
        stages.append({"third_stage": third, "fourth_stage": torch.randn(8, 2, 2, 2, generator=random)})
    scan = {"image": torch.zeros(1, 64, 64, 32), "image_affine": torch.eye(4)}
    body = {"regions": torch.zeros(1, 2, 2, 2), "regions_affine": torch.eye(4)}
    dataset = [{**stage, **scan, **body} for stage in stages]
    explained = fit_reduction(tower, dataset, tower.stride, seed=0)  # type: ignore[arg-type]
    with torch.no_grad():
        tokens = torch.cat([tower.tokens(*(part[None] for part in stage.values()))[0][0][0] for stage in stages])
    np.testing.assert_allclose(np.cov(tokens.numpy().T), np.eye(3), atol=0.1)
    every = torch.cat([joined_tokens(*(part[None] for part in stage.values()))[0][0] for stage in stages])
    variances = np.linalg.eigvalsh(np.cov(every.numpy().T))
    assert explained == pytest.approx(variances[-3:].sum() / variances.sum(), abs=0.02)


def test_without_enough_labelled_patients_nothing_is_encoded(make_model: Make, weights: Path, datalist: Path) -> None:  # noqa: F811
    encoded = encoded_studies(datalist, weights, datalist.parent / "unused", make_model().image.tower)
    adaptation = Adaptation(encoded, make_model(), weights, weights, HeadTraining(), datalist.parent, least_patients=7)
    with pytest.raises(ValueError, match="no finding has 7 or more patients with it"):
        adaptation.run()
    with pytest.raises(ValueError, match="least_patients: expected 1 or more, got 0"):
        Adaptation(encoded, make_model(), weights, weights, HeadTraining(), datalist.parent, least_patients=0)


def test_scans_of_which_none_can_be_read_are_named_by_the_first(
    make_model: Make,  # noqa: F811
    weights: Path,
    tmp_path: Path,
) -> None:
    studies = [
        {"id": str(index), "patient": str(index), "image": "gone.nii.gz", "labels": [index % 2] * len(FINDINGS)}
        for index in range(6)
    ]
    (tmp_path / "datalist.json").write_text(json.dumps({"training": studies}))
    encoded = encoded_studies(tmp_path / "datalist.json", weights, tmp_path / "cache", make_model().image.tower)
    adaptation = Adaptation(encoded, make_model(), weights, weights, HeadTraining(), tmp_path / "out")
    with pytest.raises(ValueError, match=r"datalist\.json: no scan could be encoded; the first, 0: .*gone\.nii\.gz"):
        adaptation.run()


def test_reports_without_labels_are_sent_to_the_reader_of_reports(
    make_model: Make,  # noqa: F811
    weights: Path,
    tmp_path: Path,
) -> None:
    study = {"id": "a", "image": "a.nii.gz", "report": {"findings": "Normal."}}
    (tmp_path / "datalist.json").write_text(json.dumps({"training": [study]}))
    encoded = encoded_studies(tmp_path / "datalist.json", weights, tmp_path / "unused", make_model().image.tower)
    adaptation = Adaptation(encoded, make_model(), weights, weights, HeadTraining(), tmp_path / "out")
    with pytest.raises(ValueError, match="its studies have no labels; read them from the reports with"):
        adaptation.run()
    assert not (tmp_path / "out").exists()


def test_weights_of_earlier_versions_and_of_other_settings_are_adapted(
    make_model: Make,  # noqa: F811
    weights: Path,
    tmp_path: Path,
) -> None:
    state = torch.load(weights, weights_only=True)
    earlier = {key: value for key, value in state.items() if not key.endswith(KEPT_SETTINGS)}
    other = {**state, "scorer.settings.kept": FindingScorer(sharpness=7.0).state_dict()["settings.kept"]}
    assert len(earlier) < len(state)
    for given in (earlier, other):
        torch.save(given, tmp_path / "given.pt")
        network = make_model()
        own = network.scorer.state_dict()["settings.kept"].clone()
        assert load_frozen(network, weights, tmp_path / "given.pt") is False
        assert torch.equal(network.scorer.state_dict()["settings.kept"], own)
    body = TrainedSettings({"body_hu": -500}).state_dict()["kept"]
    torch.save({**state, "image.settings.kept": body}, tmp_path / "body.pt")
    network = make_model()
    network.image.settings = TrainedSettings({"body_hu": None})
    with pytest.raises(ValueError, match=r"body\.pt: does not fit .* trained with body_hu -500, not null"):
        load_frozen(network, weights, tmp_path / "body.pt")


def test_the_shipped_weights_are_adapted(bundle_root: Path) -> None:
    parser = ConfigParser()
    parser.read_config(bundle_root / "configs" / "adapt.json")
    parser["bundle_root"] = str(bundle_root)
    weights = bundle_root / "models" / "model.pt"
    assert load_frozen(parser.get_parsed_content("network"), weights, weights) is False


def test_weights_of_another_tower_are_refused_in_one_line(make_model: Make, tmp_path: Path) -> None:  # noqa: F811
    torch.save({"image.field.0.weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt: holds no weights of this image tower"):
        FrozenLevelsd(make_model().image.tower, tmp_path / "other.pt")


def test_the_command_without_a_datalist_says_so_in_one_line() -> None:
    result = commands.run(["-m", "monai.bundle", "run", "--config_file", "configs/adapt.json"])
    assert result.returncode != 0 and "add --datalist" in result.stderr.strip().splitlines()[-1]
