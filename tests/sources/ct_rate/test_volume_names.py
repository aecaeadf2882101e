"""Names of CT-RATE's volumes, and lists of those to leave out."""

from pathlib import Path

from bundle.ctfindings.sources.ct_rate.volume_names import read_skip_list, skip_reason, volume_name


def test_names_are_taken_apart_and_numbers_start_again_in_each_split() -> None:
    name = volume_name("dataset/valid/valid_53/valid_53_ab/valid_53_ab_12.nii.gz")
    assert name == ("valid", "valid_53", "valid_53_ab", 12) and name is not None and name.volume == "valid_53_ab_12"
    for wrong in ("valid_53_a", "test_53_a_1", "valid_53_a_1_seg", "valid_x_a_1", "avalid_5_a_1"):
        assert volume_name(wrong) is None


def test_a_list_may_name_volumes_examinations_and_patients(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("train_1_a_1.nii.gz\ntrain_2_a\ntrain_3\n")
    skipped = read_skip_list(tmp_path / "list.txt")
    names = [
        f"train_{patient}_{examination}_{number}" for patient in (1, 2, 3) for examination in "ab" for number in (1, 2)
    ]
    kept = [name for name in names if (parts := volume_name(name)) and not skip_reason(parts, skipped)]
    assert kept == ["train_1_a_2", "train_1_b_1", "train_1_b_2", "train_2_b_1", "train_2_b_2"]
