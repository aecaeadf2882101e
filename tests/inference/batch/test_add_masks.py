"""Masks for a datalist: by threshold, shape and the network, or by other programs, which stand-ins play here."""

import json
import os
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.ctfindings.data.datalist import load_datalist
from bundle.ctfindings.files.atomic_write import safe_name
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.inference.batch.add_masks import mask_datalist
from bundle.ctfindings.inference.batch.mask_sources import (
    MaskSource,
    MaskTask,
    choose_source,
    make_mask,
    mask_signature,
)
from bundle.ctfindings.phantom.dataset import make_case, write_nifti


@pytest.fixture(scope="module")
def chest() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HU, anatomies and affine of a synthetic scan, every second voxel."""
    _, hu, anatomy, _, affine = make_case(seed=3, index=1, labels=[0] * len(FINDING_NAMES))
    return hu[::2, ::2, ::2], anatomy[::2, ::2, ::2], affine @ np.diag([2.0, 2, 2, 1])


@pytest.fixture
def datalist(tmp_path: Path, chest: tuple) -> Path:
    """One scan without a mask, one with, and one that is not a scan."""
    hu, anatomy, affine = chest
    folder = tmp_path / "data"
    folder.mkdir()
    write_nifti(folder / "a.nii.gz", hu, affine)
    write_nifti(folder / "own.nii.gz", anatomy, affine)
    (folder / "broken.nii.gz").write_bytes(b"nothing")
    training = [{"id": "a/1", "image": "a.nii.gz"}, {"id": "b", "image": "broken.nii.gz"}]
    content = {"name": "n", "training": training, "test": [{"id": "c", "image": "a.nii.gz", "anatomy": "own.nii.gz"}]}
    (folder / "datalist.json").write_text(json.dumps(content))
    return folder / "datalist.json"


def labels_of(path: str | Path) -> np.ndarray:
    return np.asanyarray(nib.load(path).dataobj)  # type: ignore[attr-defined]


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


def test_every_scan_gets_a_mask_and_what_was_there_is_left_alone(
    datalist: Path, tmp_path: Path, chest: tuple, bundle_root: Path
) -> None:
    before = {path.name: path.read_bytes() for path in datalist.parent.iterdir()}
    output = tmp_path / "out"
    report = mask_datalist(datalist, output, MaskSource("classical", str(bundle_root)))
    assert (report.made, report.kept, report.given, list(report.problems)) == (1, 0, 1, ["b"])
    assert "broken.nii.gz" in report.problems["b"]
    assert {path.name: path.read_bytes() for path in datalist.parent.iterdir()} == before
    made, broken = load_datalist(report.datalist, "training")
    assert "anatomy" not in broken and Path(made["image"]).samefile(datalist.parent / "a.nii.gz")
    assert Path(load_datalist(report.datalist, "test")[0]["anatomy"]).samefile(datalist.parent / "own.nii.gz")
    labels = labels_of(made["anatomy"])
    assert dice(labels == 1, chest[1] == 1) > 0.93
    assert dice(labels > 0, chest[1] > 0) > 0.93
    # The shipped network has seen such scans; its regions are coarse.
    assert dice(labels == 2, chest[1] == 2) > 0.6


def test_masks_of_another_table_are_not_mixed_with_ours(
    datalist: Path, tmp_path: Path, chest: tuple, bundle_root: Path
) -> None:
    _, anatomy, affine = chest
    write_nifti(datalist.parent / "own.nii.gz", np.where(anatomy == 1, 51, 0).astype(np.uint8), affine)
    with pytest.raises(ValueError, match=r"own\.nii\.gz: has ids up to 51, .* 1 to 6; .* give --replace"):
        mask_datalist(datalist, tmp_path / "out", MaskSource("classical", str(bundle_root)))
    assert not (tmp_path / "out").exists()


def test_a_datalist_that_windows_wrote_and_whose_ids_are_numbers_gets_masks(
    datalist: Path, tmp_path: Path, totalsegmentator: None
) -> None:
    content = json.loads(datalist.read_text())
    content["training"][0]["id"] = 7
    datalist.write_bytes(json.dumps(content).encode("utf-8-sig"))
    report = mask_datalist(datalist, tmp_path / "out", MaskSource("totalsegmentator"))
    assert (report.made, report.given, list(report.problems)) == (1, 1, ["b"])
    assert load_datalist(report.datalist, "training")[0]["anatomy"].endswith("anatomy/7.nii.gz")


def test_a_second_run_makes_nothing_again_unless_the_scan_changed(
    datalist: Path, tmp_path: Path, chest: tuple, bundle_root: Path
) -> None:
    source = MaskSource("classical", str(bundle_root))
    first = mask_datalist(datalist, tmp_path / "out", source)
    with pytest.raises(ValueError, match="exists already"):
        mask_datalist(datalist, tmp_path / "out", source)
    first.datalist.unlink()
    assert mask_datalist(datalist, tmp_path / "out", source)[1:3] == (0, 1)
    first.datalist.unlink()
    write_nifti(datalist.parent / "a.nii.gz", chest[0] + 1, chest[2])
    assert mask_datalist(datalist, tmp_path / "out", source)[1:3] == (1, 0)


def test_a_series_of_which_a_file_changed_is_another_scan(tmp_path: Path) -> None:
    file = tmp_path / "series" / "deep" / "1.dcm"
    file.parent.mkdir(parents=True)
    signatures = []
    for content in (b"one", b"one, longer"):
        file.write_bytes(content)
        signatures.append(
            mask_signature(MaskTask(str(tmp_path / "series"), None, "mask.nii.gz", MaskSource("totalsegmentator")))
        )
    assert signatures[0] != signatures[1]


def test_a_mask_that_was_cut_off_is_made_again(datalist: Path, tmp_path: Path, bundle_root: Path) -> None:
    (tmp_path / "out" / "anatomy").mkdir(parents=True)
    (tmp_path / "out" / "anatomy" / f"{safe_name('a/1')}.nii.gz").write_bytes(b"\x1f\x8b")
    assert mask_datalist(datalist, tmp_path / "out", MaskSource("classical", str(bundle_root))).made == 1


@pytest.fixture
def totalsegmentator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of that name that calls air under -500 HU the left upper lobe (10) and bone the aorta (52), and weights
    that are there.
    """
    if os.name == "nt":
        pytest.skip("the stand-in is a script with a first line for Unix")
    program = tmp_path / "bin" / "TotalSegmentator"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\n"
        "import sys, numpy as np, nibabel as nib\n"
        "given, answer = (sys.argv[sys.argv.index(flag) + 1] for flag in ('-i', '-o'))\n"
        "assert '--ml' in sys.argv\n"
        "image = nib.load(given)\n"
        "hu = np.asanyarray(image.dataobj)\n"
        "labels = np.where(hu < -500, 10, np.where(hu > 300, 52, 0)).astype(np.uint8)\n"
        "nib.save(nib.Nifti1Image(labels, image.affine), answer)\n"
    )
    program.chmod(0o755)
    (tmp_path / "weights" / "Dataset291").mkdir(parents=True)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", str(tmp_path / "weights"))


def test_totalsegmentator_is_called_and_its_ids_become_ours(
    datalist: Path,
    tmp_path: Path,
    chest: tuple,
    bundle_root: Path,
    totalsegmentator: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = choose_source(bundle_root)
    assert source.name == "totalsegmentator"
    monkeypatch.chdir(tmp_path)  # a folder without weights of ours, which its masks do not depend on
    report = mask_datalist(datalist, tmp_path / "out", source)
    labels = labels_of(load_datalist(report.datalist, "training")[0]["anatomy"])
    hu = chest[0]
    np.testing.assert_array_equal(labels == 1, hu < -500)
    np.testing.assert_array_equal(labels == 4, hu > 300)
    assert set(np.unique(labels)) <= {0, 1, 4, 6}


def test_metal_beyond_the_range_of_the_handed_over_file_stays_bright(
    tmp_path: Path, chest: tuple, bundle_root: Path, totalsegmentator: None
) -> None:
    hu, _, affine = chest
    metal = hu.astype(np.int32)
    metal[20:22, 20:22, 20:22] = 40_000
    write_nifti(tmp_path / "metal.nii.gz", metal, affine)
    make_mask(MaskTask(str(tmp_path / "metal.nii.gz"), None, str(tmp_path / "mask.nii.gz"), choose_source(bundle_root)))
    assert (labels_of(tmp_path / "mask.nii.gz")[20:22, 20:22, 20:22] == 4).all()


def test_totalsegmentator_without_weights_is_not_called_since_it_would_download_them(
    bundle_root: Path, totalsegmentator: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", str(tmp_path / "nowhere"))
    assert choose_source(bundle_root).name == "classical"
    with pytest.raises(ValueError, match="totalseg_download_weights"):
        choose_source(bundle_root, wanted="totalsegmentator")


def test_a_monai_bundle_is_run_and_its_ids_become_ours(
    datalist: Path, tmp_path: Path, chest: tuple, bundle_root: Path
) -> None:
    """The stand-in has the interface of wholeBody_ct_segmentation: bundle_root, datalist, output_dir, and a file in a
    folder.
    """
    config = tmp_path / "other" / "configs" / "inference.json"
    config.parent.mkdir(parents=True)
    weights = tmp_path / "other" / "models" / "model_lowres.pt"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    run = (
        "$[(lambda image: (os.makedirs(@output_dir + '/scan', exist_ok=True), nibabel.save(nibabel.Nifti1Image("
        "numpy.where(image.get_fdata() < -500, 13.0, 0.0).astype(numpy.float32), image.affine), "
        "@output_dir + '/scan/scan_trans.nii.gz')))(nibabel.load(path)) for path in @datalist]"
    )
    content = {
        "imports": ["$import os", "$import numpy", "$import nibabel"],
        "bundle_root": "",
        "datalist": [],
        "output_dir": "",
        "run": [run],
    }
    config.write_text(json.dumps(content))
    source = choose_source(bundle_root, tmp_path / "other")
    report = mask_datalist(datalist, tmp_path / "out", source)
    labels = labels_of(load_datalist(report.datalist, "training")[0]["anatomy"])
    np.testing.assert_array_equal(labels == 1, chest[0] < -500)
    task = MaskTask(str(datalist.parent / "a.nii.gz"), None, "mask.nii.gz", source)
    before = mask_signature(task)
    weights.write_bytes(b"other weights")
    again = task._replace(source=choose_source(bundle_root, tmp_path / "other"))
    assert mask_signature(again) != before, "masks of other weights are made again"


def test_a_bundle_without_weights_is_refused_with_the_command_that_fetches_them(
    bundle_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "inference.json").write_text("{}")
    with pytest.raises(ValueError, match=r"no weights in models/.*monai\.bundle download"):
        choose_source(bundle_root, tmp_path)


def test_a_folder_that_is_no_bundle_is_refused(bundle_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"configs/inference\.json"):
        choose_source(bundle_root, tmp_path)


def test_a_program_that_fails_is_named_with_its_last_words(
    datalist: Path, tmp_path: Path, totalsegmentator: None
) -> None:
    (tmp_path / "bin" / "TotalSegmentator").write_text(f"#!{sys.executable}\nraise SystemExit('no room on the GPU')\n")
    with pytest.raises(ValueError, match=r"no mask could be made; the first: .*gave no mask \(no room on the GPU\)"):
        mask_datalist(datalist, tmp_path / "out", MaskSource("totalsegmentator"))


def test_an_id_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "datalist.json"
    path.write_text(
        json.dumps({"training": [{"id": "a", "image": "x.nii.gz"}], "test": [{"id": "a", "image": "y.nii.gz"}]})
    )
    with pytest.raises(ValueError, match="'a'"):
        mask_datalist(path, tmp_path / "out", MaskSource("classical"))
