"""Default weights of an evaluation: those of the run, or the shipped ones before there is a run."""

from pathlib import Path

from monai.bundle import ConfigParser


def test_the_best_checkpoint_of_the_run_is_scored_once_there_is_one(bundle_root: Path, tmp_path: Path) -> None:
    def scored() -> str:
        parser = ConfigParser()
        parser.read_config([str(bundle_root / "configs" / name) for name in ("train.json", "evaluate.json")])
        parser.update({"bundle_root": str(bundle_root), "output_dir": str(tmp_path)})
        return str(parser.get_parsed_content("ckpt_path"))

    assert scored() == str(bundle_root / "models" / "model.pt")
    (tmp_path / "best.pt").touch()
    assert scored() == str(tmp_path / "best.pt")
