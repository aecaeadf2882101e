"""Fine-tuning from the server: on real files, through HTTP, into weights that the bundle can serve."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests
import torch

from bundle.ctfindings.findings import FINDING_NAMES, finding_index
from bundle.ctfindings.inference.service import load_service
from bundle.ctfindings.networks.checkpoint import read_checkpoint, sha256_of
from bundle.ctfindings.phantom.dataset import make_case
from plugins.monailabel.lib.compatibility import provide_storage_uids
from plugins.monailabel.lib.options import Options
from tests.plugins.monailabel.live_server import running

STUDIES = 4
CORRECTED = "case2"
"""Taught by a reader's corrections, the others by study records."""


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[int]]]:
    """A folder of scans, and what is known of them."""
    folder = tmp_path_factory.mktemp("taught")
    labels = {}
    for index in range(STUDIES):
        case, hu, _, _, affine = make_case(seed=11, index=index)
        nib.save(
            nib.Nifti1Image(hu[::2, ::2].astype(np.int16), affine @ np.diag([2.0, 2.0, 1.0, 1.0])),
            folder / f"case{index}.nii.gz",
        )
        labels[f"case{index}"] = [int(value) for value in case.labels]
    return folder, labels


@pytest.mark.parametrize("fitted", [True, False])
def test_the_result_of_a_training_names_the_domain_of_its_weights(
    fitted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provide_storage_uids()
    from plugins.monailabel.lib.corrections import CorrectionStore
    from plugins.monailabel.lib.train_task import FineTuning

    def train(run: Path, configs: Sequence[str]) -> None:
        state = {"image.weight": torch.zeros(1)}
        if fitted:
            state |= {f"domain.{name}": torch.ones(6, 2) for name in ("mean", "precision", "anatomy_threshold")}
            state |= {"domain.threshold": torch.tensor(1.5), "domain.scans": torch.tensor(7.0)}
        torch.save(state, run / "model.pt")

    training = FineTuning(Options.of({"work": str(tmp_path)}), CorrectionStore(tmp_path / "none", str))
    studies = [{"id": str(case), "patient": str(case), "image": f"{case}.nii.gz"} for case in range(8)]
    monkeypatch.setattr(training, "_studies", lambda datastore: studies)
    monkeypatch.setattr(training, "_run", train)
    result = training({"max_epochs": 3, "batch_size": 100}, None)  # type: ignore[arg-type]
    assert result["domain"] == ({"scans": 7, "threshold": 1.5} if fitted else None)
    assert json.loads(json.dumps(result)) == result
    used = {"training": 6, "validation": 2, "max_epochs": 3, "batch_size": 6, "learning_rate": 0.0002, "val_split": 0.2}
    assert used.items() <= result.items(), "a batch is no larger than the split"


def test_the_result_of_an_adaptation_says_what_was_chosen_and_not_what_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provide_storage_uids()
    from plugins.monailabel.lib.corrections import CorrectionStore
    from plugins.monailabel.lib.train_task import FineTuning

    chosen = {"steps": 40, "learning_rate": 0.002, "weight_decay": 1.0}

    def adapt(run: Path, configs: Sequence[str]) -> None:
        torch.save({"image.weight": torch.zeros(1)}, run / "model.pt")
        assert len(json.loads((run / "datalist.json").read_text())["training"]) == 8, "every study takes part"
        record = {"scans": 7, "training": {"kind": "linear_probe", "steps": 120}, **chosen}
        (run / "adaptation.json").write_text(json.dumps(record))

    options = Options.of({"work": str(tmp_path), "overlays": "configs/networks/astra.json"})
    training = FineTuning(options, CorrectionStore(tmp_path / "none", str))
    studies = [{"id": str(case), "patient": str(case), "image": f"{case}.nii.gz"} for case in range(8)]
    monkeypatch.setattr(training, "_studies", lambda datastore: studies)
    monkeypatch.setattr(training, "_run", adapt)
    result = training({"max_epochs": 3, "learning_rate": 0.5}, None)  # type: ignore[arg-type]
    del result["model"], result["weights_sha256"], result["domain"]
    assert result == {"training": 7, "validation": 0, "head": "linear_probe", **chosen}


ADAPTED = {"steps": 10, "validate_every": 5, "folds": 2, "weight_decays": [0.01], "learning_rates": [0.002]}
FROZEN = {
    "_target_": "bundle.ctfindings.adaptation.FrozenLevelsd",
    "tower": "@image_tower",
    "ckpt_path": "@frozen_weights",
}


@pytest.mark.slow
def test_corrections_train_the_head_of_a_frozen_tower_into_a_checkpoint_that_answers(
    bundle_root: Path, tmp_path: Path
) -> None:
    provide_storage_uids()
    from plugins.monailabel.lib.corrections import CorrectionStore
    from plugins.monailabel.lib.datastores import FolderDatastore
    from plugins.monailabel.lib.train_task import FineTuning

    effusion, folder, overlay = finding_index("Pleural effusion"), tmp_path / "scans", tmp_path / "frozen.json"
    overlay.write_text(json.dumps({"frozen_tokens": FROZEN, **ADAPTED}))
    folder.mkdir()
    service = load_service(bundle_root, text=False)
    store, answer = CorrectionStore(tmp_path / "corrections", sha256_of), None
    for index in range(6):
        labels = [int(column == effusion and index % 2) for column in range(len(FINDING_NAMES))]
        _, hu, _, _, affine = make_case(seed=12, index=index, labels=labels, severity=1.0)
        path = folder / f"case{index}.nii.gz"
        nib.save(nib.Nifti1Image(hu[::2, ::2].astype(np.int16), affine @ np.diag([2.0, 2.0, 1.0, 1.0])), path)
        said = {"findings": {FINDING_NAMES[effusion]: {"present": bool(index % 2)}}}
        answer = answer or service.answer_file(path).record
        store.change(f"case{index}", path, said, answer)
    training = FineTuning(Options.of({"work": str(tmp_path / "work"), "overlays": str(overlay)}), store)
    result = training({"max_epochs": 5}, FolderDatastore(str(folder), extensions=["*.nii.gz"]))

    assert (result["training"], result["validation"], result["head"]) == (6, 0, "prompt_head")
    assert result["steps"] in (5, 10) and (result["learning_rate"], result["weight_decay"]) == (0.002, 0.01)
    assert not {"max_epochs", "batch_size", "val_split"} & set(result), "adaptation does not use them"
    assert result["domain"]["scans"] == 6
    adapted = load_service(bundle_root, Path(result["model"]), text=False)
    findings = [adapted.answer_file(folder / f"case{index}.nii.gz").record.findings for index in range(6)]
    found = np.array([record[effusion].probability for record in findings])
    assert found[1::2].min() > found[::2].max(), found
    assert findings[0][effusion].present is False and findings[1][effusion].present is True
    assert all(answer.present is None for answer in findings[1] if answer.name != FINDING_NAMES[effusion])


@pytest.mark.slow
def test_a_group_fine_tunes_on_the_studies_of_its_server(
    taught: tuple[Path, dict[str, list[int]]], bundle_root: Path, untrained_weights: Path, tmp_path: Path
) -> None:
    folder, labels = taught
    with running(bundle_root, folder, tmp_path / "work", [("checkpoint", str(untrained_weights))]) as server:
        too_few = requests.post(f"{server.url}/train/findings", json={}, timeout=60)
        assert too_few.status_code == 400 and "0 scans" in too_few.json()["detail"]
        key = {"Authorization": f"Bearer {(tmp_path / 'work' / 'api_key').read_text().strip()}"}
        said = {name: {"present": bool(value)} for name, value in zip(FINDING_NAMES, labels[CORRECTED], strict=True)}
        del said[FINDING_NAMES[0]]
        assert (
            requests.put(
                f"{server.url}/corrections/?image={CORRECTED}", json={"findings": said}, headers=key, timeout=60
            ).status_code
            == 200
        )
        for name, values in labels.items():
            if name == CORRECTED:
                continue
            study = {
                "labels": values,
                "captions": {"lung": {"text": "Clear lungs.", "normal": True}},
                "image": "/etc/passwd",
            }
            info = {"info": json.dumps({"study": study})}
            assert (
                requests.put(f"{server.url}/datastore/image/info?image={name}", data=info, timeout=60).status_code
                == 200
            )
        started = requests.post(
            f"{server.url}/train/findings", json={"max_epochs": 1, "batch_size": 2, "val_split": 0.25}, timeout=120
        )
        assert started.status_code == 200, started.text
        deadline = time.monotonic() + 3600
        while (task := server.get("/train/").json())["status"] in ("SUBMITTED", "RUNNING"):
            assert time.monotonic() < deadline, task
            # Questions are answered while it trains.
            assert server.get("/").status_code == 200
            time.sleep(1)
        assert task["status"] == "DONE", task
        (model,) = (tmp_path / "work" / "training").glob("*/model.pt")
        served = server.get("/info/").json()["models"]["findings"]["config"]["weights_sha256"]

    datalist = json.loads((model.parent / "datalist.json").read_text())
    assert (len(datalist["training"]), len(datalist["validation"])) == (3, 1)
    assert {Path(study["image"]).parent for study in datalist["training"]} == {folder.resolve()}, (
        "paths come from the datastore alone"
    )
    (corrected,) = (
        study for split in ("training", "validation") for study in datalist[split] if study["id"] == CORRECTED
    )
    assert corrected["labels"] == [-1, *labels[CORRECTED][1:]], "what the reader said is what training reads"
    before, after = read_checkpoint(untrained_weights), read_checkpoint(model)
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[key], after[key]) for key in after if key.startswith("image."))
    tuned = load_service(bundle_root, model, text=False)
    assert tuned.model.weights_sha256 != served, "the server keeps the weights it was started with"
    assert len(tuned.answer_file(folder / "case0.nii.gz").record.findings) == 18
