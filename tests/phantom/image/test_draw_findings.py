"""Each finding is rendered where its label is 1, with a mask, and nowhere else."""

import numpy as np
import pytest

from bundle.ctfindings.findings import FINDING_NAMES, finding_index
from bundle.ctfindings.phantom.dataset import make_case
from bundle.ctfindings.phantom.patient import ENLARGED, sample_patient

# Median HU in the mask where the finding is dense, fluid, or darker than lung: from the literature on CT values.
DENSITY = {
    "Medical material": (400, 3071),
    "Arterial wall calcification": (150, 1100),
    "Coronary artery wall calcification": (150, 1200),
    "Pericardial effusion": (-15, 45),
    "Pleural effusion": (-30, 40),
    "Emphysema": (-1010, -880),
    "Lung opacity": (-750, -250),
    "Consolidation": (-250, 100),
}


@pytest.fixture(scope="module")
def healthy() -> tuple:
    return make_case(2, 4, [0] * 18)


def test_a_normal_scan_has_no_finding(healthy: tuple) -> None:
    case, _, _, bits, _ = healthy
    assert not bits.any()
    assert case.sites == []


@pytest.mark.parametrize("name", FINDING_NAMES)
def test_a_finding_is_drawn_in_its_mask_and_has_a_true_site(name: str, healthy: tuple) -> None:
    finding = finding_index(name)
    case, image, _, bits, affine = make_case(2, 4, [int(i == finding) for i in range(18)], severity=0.5)
    mask = bits == 1 << finding
    assert mask.any() and (mask == (bits != 0)).all()
    assert [site.finding for site in case.sites] == [name] * len(case.sites) and case.sites
    for site in case.sites:
        assert site.center_mm is not None
        index = np.rint(np.linalg.inv(affine) @ [*site.center_mm, 1])[:3].astype(int)
        assert mask[tuple(index)]
        assert case.z_of_image(case.image_of_z(site.center_mm[2])) == pytest.approx(site.center_mm[2], abs=0.1)
    if name in DENSITY:
        low, high = DENSITY[name]
        assert low < np.median(image[mask]) < high
    if name != "Cardiomegaly":
        assert np.abs(image[mask].astype(float) - healthy[1][mask]).mean() > 25


def heart_ratio(anatomy: np.ndarray) -> float:
    """Width of the heart by the width of the lungs."""
    return float(
        np.ptp(np.flatnonzero((anatomy == 2).any((1, 2)))) / np.ptp(np.flatnonzero((anatomy == 1).any((1, 2))))
    )


def test_the_enlarged_heart_is_larger_and_enlargement_begins_where_normal_size_ends() -> None:
    finding = finding_index("Cardiomegaly")
    for index in range(3):
        ratios = [
            heart_ratio(make_case(5, index, [label * int(i == finding) for i in range(18)])[2]) for label in (0, 1)
        ]
        assert ratios[0] < ratios[1]
    rng = np.random.default_rng(0)
    sizes = {label: [sample_patient(rng, 0, label).heart_ratio for _ in range(300)] for label in (False, True)}
    assert max(sizes[False]) < ENLARGED <= min(sizes[True])
    assert min(sizes[True]) - max(sizes[False]) < 0.01


def test_pleural_fluid_belongs_to_the_lung_and_lies_at_the_back() -> None:
    finding = finding_index("Pleural effusion")
    _, _, anatomy, bits, _ = make_case(2, 4, [int(i == finding) for i in range(18)])
    assert (anatomy[bits != 0] == 1).mean() > 0.9
    assert np.nonzero(bits)[1].mean() < np.nonzero(anatomy == 1)[1].mean()


def test_without_a_finding_all_others_stay_as_they_are() -> None:
    names = ("Consolidation", "Lung nodule", "Lymphadenopathy", "Hiatal hernia", "Medical material")
    labels = [int(name in names) for name in FINDING_NAMES]
    left_out = finding_index("Lung nodule")
    case, image, _, bits, _ = make_case(2, 4, labels)
    erased, without, _, kept, _ = make_case(2, 4, labels, without=left_out)
    assert [site for site in case.sites if site.finding != "Lung nodule"] == erased.sites
    assert not (kept >> left_out & 1).any() and (bits & ~(1 << left_out) == kept).all()
    assert erased.labels == tuple(0 if i == left_out else label for i, label in enumerate(labels))
    changed = image != without
    assert changed.any() and changed.mean() < 0.02


def test_the_heart_cannot_be_left_out() -> None:
    with pytest.raises(ValueError, match="label 0"):
        make_case(2, 4, without=finding_index("Cardiomegaly"))
