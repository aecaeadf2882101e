"""The overlays of data sets only decide what train.json leaves open."""

import json
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "data").glob("*.json")), ids=lambda path: path.stem)
def test_every_key_is_one_of_the_training_config(path: Path) -> None:
    training = json.loads((ROOT / "configs" / "train.json").read_text(encoding="utf-8"))
    assert set(json.loads(path.read_text(encoding="utf-8"))) - {"_desc_"} <= set(training)


def test_ct_rate_is_found_where_the_script_leaves_it() -> None:
    parser = ConfigParser()
    parser.read_config(
        [str(ROOT / "configs" / name) for name in ("train.json", "networks/base.json", "data/ct_rate.json")]
    )
    parser["bundle_root"] = "here"
    assert parser.get_parsed_content("datalist") == "here/data/ct_rate/datalist.json"
    assert parser.get_parsed_content("output_dir") == "here/runs/ct_rate" and parser.get_parsed_content("epochs") == 10
