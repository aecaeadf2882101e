"""Options of the command line: those that no configuration knows, and ``KEY=VALUE`` of scripts."""

import argparse
import json
import re
import shlex
from pathlib import Path

import pytest

from bundle.ctfindings.cli.options import at_least, check_device, check_options, config_setting


@pytest.fixture
def files(tmp_path: Path) -> str:
    (tmp_path / "train.json").write_text(
        json.dumps(
            {
                "epochs": 2,
                "resume": True,
                "train": {"trainer": {"max_epochs": "@epochs"}},
                "initialize": [],
                "run": ["$@train#trainer.run(@resume, @micro_batches)"],
            }
        )
    )
    (tmp_path / "overlay.json").write_text(
        json.dumps({"+initialize": [], "train#trainer#amp": True, "micro_batches": 4})
    )
    return str([str(tmp_path / name) for name in ("train.json", "overlay.json")])


def test_keys_of_every_file_parts_of_them_and_monais_own_options_pass(files: str) -> None:
    options = [
        "--epochs",
        "3",
        "--micro_batches=8",
        "--train#trainer#amp",
        "False",
        "--train::trainer::amp",
        "1",
        "--run_id",
        "run",
    ]
    check_options(["run", "--config_file", files, *options, "--logging-file", "l.conf", "--micro_batches", "-1"])


@pytest.mark.parametrize(
    ("option", "remedy"),
    [
        ("--epoch", r"--epoch: .*did you mean --epochs\?"),
        ("--trian#trainer", r"did you mean --train\?"),
        ("--xyz=1", "top-level keys"),
    ],
)
def test_a_misspelt_option_is_refused(files: str, option: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        check_options(["run", "--config_file", files, option, "1"])


def test_a_word_in_the_place_of_a_number_is_refused(files: str) -> None:
    with pytest.raises(ValueError, match=r"--epochs: expected a number, got 'many'; the configuration has 2"):
        check_options(["run", "--config_file", files, "--epochs", "many"])
    with pytest.raises(ValueError, match=r"--resume: expected True or False \(with a capital.*, got 'false'"):
        check_options(["run", "--config_file", files, "--resume", "false"])


@pytest.mark.parametrize("value", ["64", "[64,64]", "large"])
def test_a_list_with_a_number_for_each_axis_keeps_its_length(bundle_root: Path, value: str) -> None:
    files = ["--config_file", shipped(bundle_root, "train", "networks/base")]
    with pytest.raises(ValueError, match=r"--roi_size: expected a list of 3 numbers, got .* has \[240, 176, 112\]"):
        check_options([*files, f"--roi_size={value}"])
    check_options([*files, "--roi_size", "[64,64,64]", "--spacing=(4,4,3)", "--shift_voxels=@roi_size"])


def test_a_list_of_choices_may_have_another_length_but_is_a_list(bundle_root: Path) -> None:
    files = ["--config_file", shipped(bundle_root, "adapt"), "--datalist", "d.json"]
    check_options([*files, "--weight_decays", "[0.01]"])
    with pytest.raises(ValueError, match=r"--weight_decays: expected a list of numbers, got '0.01'"):
        check_options([*files, "--weight_decays", "0.01"])


@pytest.mark.parametrize("value", ["3", "0.5", "-1", "1e-3", "True", "None", "$2 * 3", "@other", "%other.json::epochs"])
def test_numbers_and_expressions_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: str, value: str) -> None:
    (tmp_path / "other.json").write_text(json.dumps({"epochs": 3}))
    monkeypatch.chdir(tmp_path)
    check_options(["run", "--config_file", files, f"--micro_batches={value}"])


@pytest.mark.parametrize(
    ("configs", "option", "problem"),
    [
        ("train", "--epochs=-1", "--epochs: expected at least 1, got '-1'"),
        ("train evaluate", "--resamples=-5", "--resamples: expected at least 1, got '-5'"),
        ("train downstream/task downstream/classification", "--encoder=forzen", "frozen or tuned, got 'forzen'"),
        ("adapt", "--folds=1", "--folds: expected at least 2, got '1'"),
        ("inference", "--min_lung_litres=-3", "--min_lung_litres: expected at least 0"),
        ("inference", "--diffuse_share=7", "--diffuse_share: expected 0 to 1, got '7'"),
    ],
)
def test_a_value_outside_its_range_or_choices_is_refused(
    bundle_root: Path, configs: str, option: str, problem: str
) -> None:
    files = shipped(bundle_root, *configs.split())
    with pytest.raises(ValueError, match=re.escape(problem)):
        check_options(["--config_file", files, option])


def test_an_option_without_a_value_is_true(files: str) -> None:
    check_options(["run", "--resume", "--config_file", files, "--resume"])


def test_a_single_file_is_named_without_brackets(tmp_path: Path) -> None:
    (tmp_path / "inference.json").write_text(json.dumps({"queries": []}))
    with pytest.raises(ValueError, match=r"--quries: .*did you mean --queries\?"):
        check_options(["run", "--config_file", str(tmp_path / "inference.json"), "--quries", "['--a dash']"])


def shipped(bundle_root: Path, *names: str) -> str:
    return str([str(bundle_root / "configs" / f"{name}.json") for name in names])


PUBLISHED = pytest.mark.parametrize("network", ["networks/fvlm", "networks/radfinder"])


@PUBLISHED
@pytest.mark.parametrize("option", ["compare", "export_path", "paraphrases", "threshold_rule"])
def test_an_option_that_nothing_refers_to_is_refused(bundle_root: Path, network: str, option: str) -> None:
    files = shipped(bundle_root, "train", "evaluate", network)
    with pytest.raises(ValueError, match=rf"--{option} has no effect with .*{network}.json; remove it"):
        check_options(["run", "--config_file", files, "--datalist", "d.json", f"--{option}", "x"])


@PUBLISHED
def test_the_options_of_a_published_model_pass(bundle_root: Path, network: str) -> None:
    options = ["--datalist=d.json", "--eval_dir=e", "--ckpt_path=c.pt", "--anatomy_mapping=totalsegmentator"]
    evaluation = ["--split=test", "--calibration_split=validation", "--resamples=9", "--protocol=fvlm", "--seed=1"]
    check_options(["--config_file", shipped(bundle_root, "train", "evaluate", network), *options, *evaluation])
    inference = shipped(bundle_root, "inference", network)
    check_options(["--config_file", inference, "--image=s", "--anatomy=m", "--queries=['a']", *options[2:]])


def test_documented_commands_pass(bundle_root: Path) -> None:
    pages = [bundle_root / "README.md", *sorted((bundle_root / "docs").glob("*.md"))]
    lines = re.findall(r"-m monai\.bundle run (--config_file [^\n`]*)", "\n".join(page.read_text() for page in pages))
    assert len(lines) > 20
    for line in lines:
        check_options([word.strip("[]") if "--" in word else word for word in shlex.split(line.replace("[--", "--"))])


@pytest.mark.parametrize(
    "options",
    [
        ["--train#trainer#max_epochs=3", "--epochs=4"],
        ["--epochs=@micro_batches"],
        ["--train={'trainer': {'max_epochs': '@epochs'}}", "--epochs=1"],
        ["--run=['$@epochs']", "--epochs=1"],
        ["--run_id=evaluating", "--epochs=1"],
    ],
)
def test_keys_that_the_files_or_other_options_refer_to_pass(tmp_path: Path, files: str, options: list[str]) -> None:
    (tmp_path / "overlay.json").write_text(json.dumps({"evaluating": "$@epochs + 1", "micro_batches": 4}))
    if options[0].startswith("--train#"):
        with pytest.raises(ValueError, match="--epochs has no effect"):
            check_options(["run", "--config_file", files, *options])
        options = options[:1]
    check_options(["run", "--config_file", files, *options])


def test_other_programs_are_left_alone() -> None:
    check_options(["-n", "2", "--durations=10"])


@pytest.mark.parametrize("name", ["train", "evaluate", "inference"])
def test_every_workflow_asks_before_it_runs(bundle_root: Path, name: str) -> None:
    initialize = json.loads((bundle_root / "configs" / f"{name}.json").read_text())["initialize"]
    assert initialize[:2] == ["$cli.one_line_errors()", "$cli.check_options()"]


def test_setting_is_json_or_text() -> None:
    assert config_setting("spacing=[6, 6, 4.5]") == ("spacing", [6, 6, 4.5])
    assert config_setting("name=a=b") == ("name", "a=b")
    with pytest.raises(argparse.ArgumentTypeError, match="expected KEY=VALUE, got 'spacing'"):
        config_setting("spacing")


def test_a_device_that_is_not_here_is_named_before_anything_is_loaded() -> None:
    check_device("cpu")
    with pytest.raises(ValueError, match=r"--device: cuda:99 was asked for, but there .* here; use --device cpu"):
        check_device("cuda:99")
    with pytest.raises(ValueError, match="'gpu' is not a device"):
        check_device("gpu")


def test_a_mapping_without_a_mask_is_refused(bundle_root: Path) -> None:
    options = [
        "--config_file",
        str(bundle_root / "configs" / "inference.json"),
        "--anatomy_mapping",
        "totalsegmentator",
    ]
    with pytest.raises(ValueError, match="--anatomy_mapping has no effect without --anatomy"):
        check_options(options)
    check_options([*options, "--anatomy", "mask.nii.gz"])


@pytest.mark.parametrize("content", ['{"a": ', "[1, 2]"])
def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=r"a\.json: (cannot be read as a configuration|expected an object)"):
        check_options(["--config_file", str(tmp_path / "a.json")])


def test_a_whole_number_of_a_script_has_a_least_value() -> None:
    assert at_least(0)("0") == 0 and at_least(1)("12") == 12
    for text in ("0", "-3", "2.5", "many"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"expected a whole number of at least 1, got '{text}'"):
            at_least(1)(text)
