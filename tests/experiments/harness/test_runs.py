"""Experiments: runs are done once, results are paired over seeds, and the page says what the numbers say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.ctfindings.evaluation.diagnostics import HITS, Diagnostics
from bundle.ctfindings.findings import FINDING_NAMES, TEMPLATES
from bundle.ctfindings.metrics.prompt_perturbations import PERTURBATIONS
from experiments.ca_gcl.comparison import CA_GCL_VARIANTS, compare_variants
from experiments.harness import runs as experiments
from experiments.harness.page import write_experiment_figures, write_experiment_page
from experiments.harness.results import EXPECTATIONS, MEASURES, experiment_results
from experiments.harness.runs import Variant, reduced_datalist, run_variant

C, T, W, SCANS, WIDTH = len(FINDING_NAMES), len(TEMPLATES), len(PERTURBATIONS), 24, 8
NAMES = ("fvlm", "ca_gcl")


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def answers(collapsed: bool, seed: int, noise: float, drop: float) -> Diagnostics:
    """A model of known faults: texts in one cone or apart, templates that differ by `noise`, and recall that falls by
    `drop`.
    """
    random = np.random.default_rng(seed)
    labels = np.random.default_rng(0).integers(0, 2, (SCANS, C))
    signal = labels + random.normal(size=(SCANS, C))
    templates = signal[:, None] + noise * random.normal(size=(SCANS, T, C)) * np.linspace(0, 1, T)[:, None]
    anatomy = np.tile(np.arange(3), SCANS)
    centre = np.ones((3, WIDTH)) if collapsed else np.eye(3, WIDTH)
    captions = unit(centre[anatomy] + 0.3 * random.normal(size=(3 * SCANS, WIDTH)))
    hits = np.zeros((SCANS, len(HITS)))
    hits[:, HITS.index("report_to_scan.whole.r1")] = 1
    hits[:, HITS.index("report_to_scan.drop_r1")] = drop
    return Diagnostics(
        ids=np.asarray([f"s{i}" for i in range(SCANS)]),
        patients=np.asarray([f"p{i}" for i in range(SCANS)]),
        labels=labels,
        logits=signal,
        calibrated=1 / (1 + np.exp(-signal)),
        tempered=1 / (1 + np.exp(-signal)),
        template_logits=templates,
        wording_logits=np.repeat(signal[:, None], W, axis=1),
        present_own=templates > 0.5,
        present_reference=templates > 0.5,
        prompts=unit(random.normal(size=(C, 2, T, WIDTH))),
        captions=captions,
        caption_anatomy=anatomy,
        caption_normal=random.random(3 * SCANS) < 0.5,
        caption_id=np.arange(3 * SCANS),
        caption_study=np.repeat(np.arange(SCANS), 3),
        distance=np.ones(3 * SCANS),
        hits=hits,
        queries=np.arange(SCANS),
    )


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[int, Path]]:
    folder = tmp_path_factory.mktemp("runs")
    made: dict[str, dict[int, Path]] = {name: {} for name in NAMES}
    for name in NAMES:
        for seed in (0, 1):
            path = folder / f"{name}{seed}"
            answers(name == "fvlm", seed, *((4.0, 0.6) if name == "fvlm" else (0.05, 0.1))).save(
                path / "diagnostics.npz"
            )
            made[name][seed] = path
    return made


@pytest.fixture(scope="module")
def results(evaluations: dict[str, dict[int, Path]]) -> dict[str, Any]:
    return experiment_results(
        evaluations, dict.fromkeys(NAMES, "a variant"), {"studies": {"training": 9}}, resamples=60
    )


def test_a_model_without_the_faults_meets_what_is_expected_of_it(results: dict[str, Any]) -> None:
    by_text = {row["text"]: row for row in results["expectations"]}
    assert len(by_text) == len(EXPECTATIONS)
    cosine, _, _, _, template_sd, auc, recall = results["expectations"]
    assert cosine["met"] and cosine["value"] < -0.3 and cosine["interval"][1] < 0
    assert template_sd["met"] and auc["met"]
    assert recall["met"] and recall["value"] == pytest.approx(0.1 - 0.3, abs=1e-6)


def test_a_model_with_the_faults_does_not(evaluations: dict[str, dict[int, Path]]) -> None:
    swapped = {"fvlm": evaluations["ca_gcl"], "ca_gcl": evaluations["fvlm"]}
    met = [
        row["met"] for row in experiment_results(swapped, dict.fromkeys(NAMES, ""), {}, resamples=30)["expectations"]
    ]
    assert met[0] is False and met[4] is False and met[6] is False


def test_the_mean_is_over_seeds_and_the_difference_of_the_means(results: dict[str, Any]) -> None:
    variants = results["variants"]
    for key in MEASURES:
        seeds = [variants["ca_gcl"]["seeds"][seed][key] for seed in ("0", "1")]
        assert variants["ca_gcl"]["mean"][key] == pytest.approx(np.mean(seeds))
        assert variants["ca_gcl"]["sd_over_seeds"][key] == pytest.approx(np.std(seeds, ddof=1))
        assert results["differences"]["ca_gcl"][key] == pytest.approx(
            variants["ca_gcl"]["mean"][key] - variants["fvlm"]["mean"][key]
        )


def test_the_page_is_written_from_the_results(
    results: dict[str, Any], evaluations: dict[str, dict[int, Path]], tmp_path: Path
) -> None:
    (tmp_path / "results.json").write_text(json.dumps(results, allow_nan=False))
    (tmp_path / "notes.md").write_text("## What the numbers suggest\n\nLittle.\n")
    write_experiment_figures(tmp_path, results, evaluations)
    page = write_experiment_page(tmp_path, "A comparison", "python x.py").read_text(encoding="utf-8")
    assert page.startswith("# A comparison\n\n## What the numbers suggest\n\nLittle.\n\n")
    assert all(
        (tmp_path / name).is_file() and f"({name})" in page
        for name in ("similarity.png", "wordings.png", "variants.png")
    )
    assert page.count("| met |") == sum(row["met"] is True for row in results["expectations"])


def test_scans_that_differ_are_not_compared(evaluations: dict[str, dict[int, Path]], tmp_path: Path) -> None:
    other = answers(True, 0, 1.0, 0.5)
    changed = Diagnostics(**{**vars(other), "ids": np.asarray([f"t{i}" for i in range(SCANS)])})
    changed.save(tmp_path / "diagnostics.npz")
    with pytest.raises(ValueError, match="scored on other scans"):
        experiment_results({**evaluations, "ca_gcl": {0: tmp_path}}, dict.fromkeys(NAMES, ""), {}, resamples=5)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, Any]]]:
    """What would be run; an evaluation leaves its files."""
    calls: list[tuple[list[str], dict[str, Any]]] = []

    def run(configs: list[str], keys: dict[str, Any], log: Path) -> None:
        calls.append((configs, keys))
        if "eval_dir" in keys:
            answers(True, 0, 1.0, 0.5).save(Path(keys["eval_dir"]) / "diagnostics.npz")
            (Path(keys["eval_dir"]) / "metrics.json").write_text("{}")

    monkeypatch.setattr(experiments, "_bundle_run", run)
    return calls


def datalist_of(folder: Path, scans: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        split: [{"id": f"{split}{i}", "image": f"{split}{i}.nii.gz"} for i in range(scans)]
        for split in ("training", "validation", "test")
    }
    path = folder / "datalist.json"
    path.write_text(json.dumps(content))
    return path


def test_a_run_that_is_done_is_not_done_again(commands: list[tuple[list[str], dict[str, Any]]], tmp_path: Path) -> None:
    variant, datalist = Variant("fvlm", "", ("objectives/fvlm.json",), {"batch_size": 2}), datalist_of(tmp_path)
    first = run_variant(variant, 3, datalist, tmp_path / "runs", {"epochs": 2})
    assert first == tmp_path / "runs" / "fvlm_seed3" / "evaluation"
    train, evaluate = commands
    assert [Path(name).name for name in train[0]] == ["train.json", "fvlm.json"]
    assert (train[1]["epochs"], train[1]["batch_size"], train[1]["seed"], train[1]["patience"]) == (2, 2, 3, None)
    assert Path(evaluate[0][-1]).name == "evaluate.json" and evaluate[1]["ckpt_path"].endswith("last.pt")
    run_variant(variant, 3, datalist, tmp_path / "runs", {"epochs": 2})
    assert len(commands) == 2
    with pytest.raises(ValueError, match="contains a run with other settings"):
        run_variant(variant, 3, datalist, tmp_path / "runs", {"epochs": 5})


def test_a_run_of_as_many_other_scans_is_refused_and_of_moved_ones_kept(
    commands: list[tuple[list[str], dict[str, Any]]], tmp_path: Path
) -> None:
    variant = Variant("fvlm", "", ("objectives/fvlm.json",))
    run_variant(variant, 0, datalist_of(tmp_path / "here"), tmp_path / "runs", {})
    moved = datalist_of(tmp_path / "there")
    moved.write_text(moved.read_text().replace('"image": "', f'"image": "{tmp_path}/'))
    run_variant(variant, 0, moved, tmp_path / "runs", {})
    assert len(commands) == 2, "the second time it was done"
    moved.write_text(moved.read_text().replace("training1", "training9"))
    with pytest.raises(ValueError, match="contains a run with other settings"):
        run_variant(variant, 0, moved, tmp_path / "runs", {})


def test_a_run_that_failed_is_named_by_its_log(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train\.log: the command failed .*; see the file"):
        run_variant(
            Variant("none", "", ("objectives/there_is_none.json",)), 0, datalist_of(tmp_path), tmp_path / "runs", {}
        )


def test_every_overlay_of_the_ablation_is_there(bundle_root: Path) -> None:
    for variant in CA_GCL_VARIANTS:
        for overlay in variant.overlays:
            content = json.loads((bundle_root / "configs" / overlay).read_text(encoding="utf-8"))
            assert all(key.split("#")[0] in content for key in variant.keys), variant.name


def test_a_reduced_datalist_keeps_the_first_scans_where_they_are(tmp_path: Path) -> None:
    path = reduced_datalist(datalist_of(tmp_path / "scans").parent, (2, 1, 3), tmp_path / "work")
    content = json.loads(path.read_text())
    assert [len(content[split]) for split in ("training", "validation", "test")] == [2, 1, 3]
    assert content["training"][1]["image"] == str((tmp_path / "scans" / "training1.nii.gz").resolve())
    with pytest.raises(ValueError, match="expected at least 4 scans in split 'test', found 3"):
        reduced_datalist(tmp_path / "scans", (2, 1, 4), tmp_path / "work")
    with pytest.raises(ValueError, match="datalist not found"):
        reduced_datalist(tmp_path / "nowhere.json", None, tmp_path)


def test_a_comparison_needs_its_reference(tmp_path: Path) -> None:
    variants = [variant for variant in CA_GCL_VARIANTS if variant.name == "ca_gcl"]
    with pytest.raises(ValueError, match="expected fvlm, the reference"):
        compare_variants(variants, [0], lambda *_: tmp_path, tmp_path, "title", "command", {})
