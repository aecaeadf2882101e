"""Splits of several datalists in one: paths still lead to the files, and what would mix patients is refused."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bundle.ctfindings.data.datalist import load_datalist
from bundle.ctfindings.data.join_datalists import join_datalists
from tests import commands


def write(folder: Path, **splits: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True)
    content = {"training": [], "validation": [], "test": [], **splits}
    (folder / "datalist.json").write_text(json.dumps(content), encoding="utf-8")
    return folder / "datalist.json"


def study(name: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "image": f"images/{name}.nii.gz", **fields}


def test_paths_lead_to_the_same_files_from_the_new_place(tmp_path: Path) -> None:
    absolute = study("c", image=str(tmp_path / "disk" / "c.nii.gz"))
    first = write(tmp_path / "a", validation=[study("v", anatomy="masks/v.nii.gz", labels=[1] * 18)], test=[study("t")])
    second = write(tmp_path / "deep" / "b", test=[study("x", stored={"intercept": -8192}), absolute])
    output = tmp_path / "out" / "datalist.json"
    assert join_datalists([("validation", first), ("test", second)], output) == {
        "training": 0,
        "validation": 1,
        "test": 2,
    }
    for split, source in (("validation", first), ("test", second)):
        found, expected = load_datalist(output, split), load_datalist(source, split)
        for one, other in zip(found, expected, strict=True):
            assert {key: Path(one[key]).resolve() for key in ("image", "anatomy") if key in one} == {
                key: Path(other[key]).resolve() for key in ("image", "anatomy") if key in other
            }
            assert one["labels"].tolist() == other["labels"].tolist() and one.get("stored") == other.get("stored")


def test_a_datalist_that_windows_wrote_and_whose_ids_are_numbers_is_joined(tmp_path: Path) -> None:
    datalist = write(tmp_path / "a", test=[study("0") | {"id": 0}])
    datalist.write_bytes(datalist.read_text(encoding="utf-8").encode("utf-16"))
    assert join_datalists([("test", datalist)], tmp_path / "out.json")["test"] == 1
    assert load_datalist(tmp_path / "out.json", "test")[0]["image"] == load_datalist(datalist, "test")[0]["image"]


def test_a_split_may_come_from_two(tmp_path: Path) -> None:
    lists = [("test", write(tmp_path / name, test=[study(name)])) for name in ("a", "b")]
    assert join_datalists(lists, tmp_path / "datalist.json")["test"] == 2


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"test": [study("t")]}, "study t is in .* already"),
        ({"test": [study("u", patient="p")]}, "the patient of study u is in validation already"),
        ({"test": []}, "split 'test' has no study"),
    ],
)
def test_what_would_mix_studies_is_refused_and_nothing_is_written(
    tmp_path: Path, second: dict[str, Any], message: str
) -> None:
    lists = [
        ("validation", write(tmp_path / "a", validation=[study("t", patient="p")])),
        ("test", write(tmp_path / "b", **second)),
    ]
    with pytest.raises(ValueError, match=message):
        join_datalists(lists, tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    datalist = write(tmp_path / "a", test=[study("t")])
    with pytest.raises(ValueError, match="exists already"):
        join_datalists([("test", datalist)], datalist)


def test_the_command_says_in_one_line_what_is_wrong(tmp_path: Path) -> None:
    datalist = write(tmp_path / "a", test=[study("t")])

    def run(part: str) -> subprocess.CompletedProcess[str]:
        return commands.run(["scripts/join_datalists.py", part, "--output", tmp_path / "o.json"])

    wrong = run(f"exam={datalist}")
    assert wrong.returncode != 0 and wrong.stderr.strip().splitlines()[-1].endswith("as in test=FOLDER/datalist.json")
    right = run(f"test={datalist}")
    assert right.returncode == 0 and right.stdout.strip().endswith("training 0, validation 0, test 1")
