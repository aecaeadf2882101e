"""Bad input ends a run with one line that names the file and the remedy, exit code 1, and nothing written."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

from bundle.ctfindings.cli.error_lines import input_error, one_line_errors, run_or_exit
from tests.commands import run as run_command

SPLITS = ("training", "validation", "test")
AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])


def _chest() -> np.ndarray:
    """HU (40, 40, 40): soft tissue around air, in air."""
    hu = np.full((40, 40, 40), -1000, dtype=np.int16)
    hu[5:35, 5:35] = 40
    hu[12:28, 12:28, 5:35] = -850
    return hu


def _nifti(folder: Path, hu: Any, affine: np.ndarray = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(np.asarray(hu), affine), folder / "scan.nii.gz")
    return folder / "scan.nii.gz"


def _missing(folder: Path) -> Path:
    return folder / "scan.nii.gz"


def _truncated(folder: Path) -> Path:
    noise = np.random.default_rng(0).integers(-20, 20, (40, 40, 40)).astype(np.int16)
    path = _nifti(folder, _chest() + noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def _not_finite(folder: Path) -> Path:
    hu = _chest().astype(np.float32)
    hu[3, 3, 3] = np.nan
    return _nifti(folder, hu)


def _without_spacing(folder: Path) -> Path:
    image = nib.Nifti1Image(_chest(), AFFINE)
    image.header.set_sform(np.diag([4.0, 4.0, 0.0, 1.0]), code=1)
    image.header.set_qform(None, code=0)
    with open(folder / "scan.nii", "wb") as file:
        image.header["vox_offset"] = 352
        file.write(image.header.binaryblock + b"\0" * 4 + _chest().tobytes(order="F"))
    return folder / "scan.nii"


def _empty_folder(folder: Path) -> Path:
    (folder / "series").mkdir()
    return folder / "series"


def _empty_zip(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "series.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    return folder / "series.zip"


SCANS: dict[str, Callable[[Path], Path]] = {
    "missing": _missing,
    "truncated": _truncated,
    "eight bit": lambda folder: _nifti(folder, ((_chest() + 1000) / 5).astype(np.uint8)),
    "2D": lambda folder: _nifti(folder, _chest()[:, :, 20]),
    "4D": lambda folder: _nifti(folder, np.stack([_chest(), _chest()], axis=3)),
    "NaN": _not_finite,
    "constant": lambda folder: _nifti(folder, np.zeros((40, 40, 40), np.int16)),
    "zero spacing": _without_spacing,
    "absurd spacing": lambda folder: _nifti(folder, _chest(), np.diag([400.0, 400.0, 400.0, 1.0])),
    "empty folder": _empty_folder,
    "zip without DICOM": _empty_zip,
}


@pytest.fixture
def run(bundle_root: Path, untrained_weights: Path, tmp_path: Path) -> Callable[..., str]:
    """Runs the workflow in this process and gives the message it ends with."""

    def fail(**keys: Any) -> str:
        workflow = ConfigWorkflow(
            config_file=str(bundle_root / "configs" / "inference.json"),
            workflow_type="inference",
            logging_file=False,
            **{
                "bundle_root": str(bundle_root),
                "ckpt_path": str(untrained_weights),
                "output_dir": str(tmp_path / "out"),
                **keys,
            },
        )
        workflow.initialize()
        with pytest.raises((RuntimeError, ValueError)) as raised:
            workflow.run()
        error = input_error(raised.value)
        assert error is not None, "the command line would print a traceback"
        message = str(error)
        out = tmp_path / "out"
        assert not out.exists() or not any(out.iterdir()), "nothing half-written"
        return message

    return fail


@pytest.mark.parametrize("kind", SCANS)
def test_a_scan_that_cannot_be_used(kind: str, run: Callable[..., str], tmp_path: Path) -> None:
    path = SCANS[kind](tmp_path)
    assert str(path) in run(image=str(path))


def test_no_scan(run: Callable[..., str]) -> None:
    assert "--image SCAN" in run()


def test_a_real_8_bit_export(run: Callable[..., str], shared_data: Path) -> None:
    path = shared_data / "ct" / "vtkjs_lidc2_uint8_256x256x133.nii.gz"
    assert "8-bit" in run(image=str(path))


def test_a_mask_beside_the_scan(run: Callable[..., str], tmp_path: Path) -> None:
    away = AFFINE.copy()
    away[:3, 3] = 5000
    nib.save(nib.Nifti1Image(np.ones((40, 40, 40), np.uint8), away), tmp_path / "mask.nii.gz")
    message = run(image=str(_nifti(tmp_path, _chest())), anatomy=str(tmp_path / "mask.nii.gz"))
    assert "mask.nii.gz" in message and "does not overlap" in message


def test_a_mask_with_an_unknown_mapping(run: Callable[..., str], tmp_path: Path) -> None:
    scan = str(_nifti(tmp_path, _chest()))
    assert "nobody" in run(image=scan, anatomy=scan, anatomy_mapping="nobody")


@pytest.mark.parametrize("content", [None, b"no checkpoint", {"image.weight": torch.zeros(1)}, {"other": 1}])
def test_a_wrong_checkpoint(content: Any, run: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    assert str(path) in run(image=str(_nifti(tmp_path, _chest())), ckpt_path=str(path))


def test_a_text_encoder_that_is_not_there(run: Callable[..., str], tmp_path: Path) -> None:
    missing = str(tmp_path / "encoder")
    assert missing in run(image=str(_nifti(tmp_path, _chest())), queries=["fluid"], text_encoder=missing)


@pytest.mark.parametrize(
    ("key", "value"), [("queries", [""]), ("queries", ["x" * 301]), ("queries", [3]), ("evidence", "some")]
)
def test_a_request_that_makes_no_sense(key: str, value: Any, run: Callable[..., str], tmp_path: Path) -> None:
    assert key in run(image=str(_nifti(tmp_path, _chest())), **{key: value})


def test_an_output_folder_that_is_a_file(run: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "output_dir" in run(image=str(_nifti(tmp_path, _chest())), output_dir=str(tmp_path / "file"))


def test_an_error_of_the_program_keeps_its_traceback() -> None:
    def broken() -> None:
        int("x")

    with pytest.raises(ValueError, match="invalid literal"):
        run_or_exit(broken)
    assert input_error(KeyError("x")) is None


INFERENCE = ("-m", "monai.bundle", "run", "--config_file", "configs/inference.json")


def test_the_command_ends_with_one_line_and_code_1(untrained_weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "none.nii.gz"
    result = run_command(
        [*INFERENCE, "--image", path, "--ckpt_path", untrained_weights, "--output_dir", tmp_path / "out"]
    )
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == f"error: {path}: no such file or folder; check the path [no-such-file]"
    assert "Traceback" not in result.stderr + result.stdout and "terminating" not in result.stderr + result.stdout
    assert not (tmp_path / "out").exists()


def test_a_rescale_that_is_a_bare_number_ends_the_command_with_one_line(
    untrained_weights: Path, tmp_path: Path
) -> None:
    arguments = ["--image", "scan.nii.gz", "--ckpt_path", untrained_weights, "--output_dir", tmp_path / "out"]
    result = run_command([*INFERENCE, *arguments, "--stored", "-8192"])
    assert result.returncode == 1 and "Traceback" not in result.stderr + result.stdout
    assert result.stderr.splitlines()[-1] == "error: stored: expected a mapping such as {'intercept': -8192}, got -8192"


def test_the_command_answers(
    bundle_root: Path, untrained_weights: Path, phantom_scan: tuple[Path, Path], tmp_path: Path
) -> None:
    arguments = ["--image", str(phantom_scan[0]), "--ckpt_path", str(untrained_weights), "--output_dir", str(tmp_path)]
    command = [sys.executable, *INFERENCE, *arguments, "--queries", "['fluid around the lung']"]
    result = subprocess.run(command, cwd=bundle_root, capture_output=True, encoding="utf-8", check=False)
    assert result.returncode == 0, result.stderr
    assert sorted(file.name for file in (tmp_path / "scan").iterdir()) == [
        "evidence.nii.gz",
        "findings.json",
        "report.html",
    ]
    assert str(tmp_path / "scan" / "report.html") in result.stdout
    assert "Warning" not in result.stderr and "Traceback" not in result.stderr


@pytest.fixture
def datalist(tmp_path: Path) -> Path:
    """Two studies a split, whose files nobody has come to yet."""
    path = tmp_path / "datalist.json"
    studies = {
        split: [
            {"id": f"{split}{index}", "image": f"{split}{index}.nii.gz", "labels": [index] * 18} for index in range(2)
        ]
        for split in SPLITS
    }
    path.write_text(json.dumps(studies))
    return path


@pytest.mark.parametrize(
    ("overlays", "keys", "expected"),
    [
        ((), {"text_encoder": "{folder}/encoder"}, "{folder}/encoder: no transformers encoder"),
        ((), {"loss_weights#siglip": 1.0}, "give each loss a weight"),
        ((), {"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        (("gradient_cache.json",), {"batch_size": 1}, "lower micro_batches or batch_size"),
        (("evaluate.json",), {"text_encoder": "{folder}/encoder"}, "{folder}/encoder: no transformers encoder"),
    ],
    ids=["text encoder", "loss weights", "batch size", "micro-batches", "evaluation"],
)
def test_a_value_that_training_or_evaluation_cannot_use_ends_in_one_line(
    overlays: tuple[str, ...], keys: dict[str, Any], expected: str, datalist: Path, tmp_path: Path
) -> None:
    values = {name: value.format(folder=tmp_path) if isinstance(value, str) else value for name, value in keys.items()}
    result = _workflow(datalist, tmp_path, overlays, values)
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ") and expected.format(folder=tmp_path) in last
    assert "Traceback" not in result.stderr + result.stdout


def test_training_without_a_study_ends_in_one_line(datalist: Path, tmp_path: Path) -> None:
    datalist.write_text(json.dumps({split: [] for split in SPLITS}), encoding="utf-8")
    result = _workflow(datalist, tmp_path, (), {})
    assert result.returncode == 1 and "Traceback" not in result.stderr + result.stdout
    assert (
        result.stderr.splitlines()[-1]
        == f"error: {datalist}: split 'training' has no study; add some, or use another datalist"
    )


def test_an_error_of_the_program_in_a_workflow_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    for _ in range(2):
        one_line_errors()
    try:
        int("x")
    except ValueError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    assert "Traceback" in capsys.readouterr().err


def _workflow(
    datalist: Path, folder: Path, overlays: tuple[str, ...], keys: dict[str, Any]
) -> subprocess.CompletedProcess[str]:
    """Training, or what the overlays make of it, on the command line."""
    paths = {
        "datalist": str(datalist),
        "output_dir": str(folder / "run"),
        "eval_dir": str(folder / "eval"),
        "cache_dir": None,
    }
    (folder / "keys.json").write_text(json.dumps({**paths, **keys}))
    files = [*(f"configs/{name}" for name in ("train.json", *overlays)), str(folder / "keys.json")]
    return run_command(["-m", "monai.bundle", "run", "--config_file", files])


def test_ctrl_c_ends_in_one_line_and_the_code_of_an_interrupt(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        run_or_exit(interrupted)
    assert caught.value.code == 130
    assert capsys.readouterr().err == "stopped by Ctrl-C\n"


def test_ctrl_c_in_a_workflow_ends_in_one_line_and_the_code_of_an_interrupt(tmp_path: Path) -> None:
    workflow = {
        "imports": ["$import bundle.ctfindings.cli as cli", "$import signal"],
        "initialize": ["$cli.one_line_errors()"],
        "run": ["$signal.raise_signal(signal.SIGINT)"],
    }
    (tmp_path / "train.json").write_text(json.dumps(workflow))
    result = run_command(["-m", "monai.bundle", "run", "--config_file", tmp_path / "train.json"])
    assert result.returncode == 130
    assert result.stderr.splitlines()[-1] == "stopped by Ctrl-C"
    assert "Traceback" not in result.stderr + result.stdout
