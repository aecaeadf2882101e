"""From a file to its encoding: warnings, geometry, and one pass through the network."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from bundle.ctfindings.anatomy import ANATOMIES, ANATOMY_NAMES
from bundle.ctfindings.inference.encoding import describe_scan, encode_study, token_affine
from bundle.ctfindings.inference.findings_record import DomainAnswer
from bundle.ctfindings.inference.service import FindingsService

DOUBLE = torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64)


def study_of(path: str, *warnings: str) -> dict[str, Any]:
    affine = torch.diag(torch.tensor([4.0, 4.0, 3.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor([-100.0, -50.0, 20.0])
    voxels = torch.rand(1, 32, 32, 48, generator=torch.Generator().manual_seed(0))
    meta: dict[str, Any] = {"filename_or_obj": path, "source_format": "nifti", "warnings": list(warnings)}
    meta |= {"not_assessed": [], "source_images": None}
    scan = MetaTensor(torch.zeros(1, 4, 4, 4), affine=torch.eye(4), meta=meta)
    image = MetaTensor(voxels, affine=affine)
    body = torch.ones(1, 16, 16, 24, dtype=torch.uint8)
    body[:, [0, -1]] = 0  # Air beside the body
    regions = {"regions": body, "regions_affine": affine @ torch.diag(DOUBLE)}
    return {"image": image, "scan": scan, "seconds": {"load": 1.0}, **regions}


def test_no_folder_of_the_scan_is_kept_as_it_may_name_a_patient(service: FindingsService) -> None:
    path = "/archive/A NAME/scan.nii.gz"
    answered = service.answer(study_of(path, f"{path}: the slices are tilted by 2.0 degrees"))
    assert "scan.nii.gz: the slices are tilted by 2.0 degrees" in answered.record.warnings
    assert "A NAME" not in answered.record.to_json()


def test_the_scan_is_encoded_once(service: FindingsService, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    forward = service.network.image.tower.forward
    monkeypatch.setattr(service.network.image.tower, "forward", lambda x: calls.append(1) or forward(x))
    service.answer(study_of("scan.nii.gz"))
    assert len(calls) == 1


def test_the_midline_is_the_middle_of_the_body_and_not_of_the_image(service: FindingsService) -> None:
    encoded = encode_study(service.network, study_of("scan.nii.gz"))
    # 16 voxels of 8 mm; the image has its middle at -38.
    assert encoded.midline_mm == pytest.approx(-100 + 8 * 7.5)
    assert list(encoded.seconds) == ["load", "encode"]


@pytest.mark.parametrize(("planes", "known"), [(17, False), (12, True)])
def test_a_body_that_the_field_of_view_cuts_on_one_side_has_no_midline(
    planes: int, known: bool, service: FindingsService
) -> None:
    study = study_of("half.nii.gz")
    study["regions"][:, -1, :planes] = 1
    assert (encode_study(service.network, study).midline_mm is not None) == known
    places = [answer.evidence for answer in service.answer(study).record.findings if answer.evidence is not None]
    assert places and all((place.side is not None) == known for place in places)


def test_a_scan_that_shows_nothing_of_a_chest_is_outside_the_domain(service: FindingsService) -> None:
    """The domain takes every distance, so that only the lack of one leads out of it."""
    network, anatomies = copy.deepcopy(service.network), len(ANATOMIES)
    features = 5 * 5 + 1 + network.image.embedding  # of the texture, the size and the embedding
    domain, answers = network.domain, []
    domain.mean, domain.precision = torch.zeros(anatomies, features), torch.eye(features).expand(anatomies, -1, -1)
    domain.scans = torch.tensor(12.0)
    domain.threshold, domain.anatomy_threshold = torch.tensor(1e9), torch.full((anatomies,), 1e9)
    for logit in (100.0, -100.0):
        torch.nn.init.constant_(network.image.anatomy_head.bias, logit)
        answers.append(encode_study(network, study_of("scan.nii.gz")).domain)
    everything, nothing = answers
    assert everything is not None and everything.inside and everything.anatomy.keys() == set(ANATOMY_NAMES)
    assert nothing == DomainAnswer(None, 1e9, False, {}, 12)


def test_no_path_is_kept() -> None:
    assert describe_scan("/patients/name/scan.nrrd", "NRRD", (2, 2, 2), np.eye(4)).file == "scan.nrrd"


def test_tokens_lie_at_the_centre_of_their_voxels() -> None:
    affine = np.diag([4.0, 4.0, 3.0, 1.0])
    affine[:3, 3] = [-100, -50, 20]
    # The first token covers voxels 0..3, whose centre is at voxel 1.5.
    np.testing.assert_allclose(token_affine(affine, (4, 4, 4)) @ [0, 0, 0, 1], [-94, -44, 24.5, 1])
    np.testing.assert_allclose(token_affine(affine, (4, 4, 4)) @ [1, 0, 2, 1], [-78, -44, 48.5, 1])
