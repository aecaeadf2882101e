"""Loading: preprocessed once, by the parameters of the pipeline, and the same order for the same epoch."""

import copy
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.transforms import CastToTyped, Lambdad, RandShiftIntensityd

from bundle.ctfindings.data.loaders import cached_dataset, fill_cache, study_loader
from bundle.ctfindings.data.scan_cache import read_entry, study_digest
from bundle.ctfindings.scan.load_scan import load_scan


class Source:
    """Counts how often a scan is read; the count is not a parameter of the pipeline, so it is not the object's own."""

    def __init__(self) -> None:
        self.name = id(self)
        COUNTS[self.name] = 0

    @property
    def reads(self) -> int:
        return COUNTS[self.name]

    def __call__(self, number: int) -> torch.Tensor:
        COUNTS[self.name] += 1
        return torch.full((1, 2, 2, 2), float(number))


COUNTS: dict[int, int] = {}
STUDIES = [{"id": str(number), "image": number} for number in range(6)]


def dataset_of(source: Source, folder: Path | None, key: Any = 1, augmentation: tuple = ()) -> Any:
    return cached_dataset(STUDIES, [Lambdad("image", source)], augmentation, folder, key)


def test_a_scan_is_read_once_and_cached_in_half_precision(tmp_path: Path) -> None:
    source = Source()
    for _ in range(2):
        assert dataset_of(source, tmp_path)[3]["image"].dtype == torch.float16
    assert source.reads == 1


def test_other_parameters_of_the_pipeline_never_read_stale_scans(tmp_path: Path) -> None:
    source = Source()
    for key in ([4, 4, 3], [3, 3, 3]):
        dataset_of(source, tmp_path, key)[0]
    assert source.reads == 2


class Factor:
    """A step with one parameter."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        return image * self.factor


def test_a_parameter_of_a_step_that_changed_is_enough_for_another_cache(tmp_path: Path) -> None:
    source = Source()
    folders = set()
    for factor in (1.0, 2.0, 1.0):
        dataset = cached_dataset(STUDIES, [Lambdad("image", source), Lambdad("image", Factor(factor))], (), tmp_path)
        assert dataset[3]["image"].max() == 3 * factor
        folders.add(dataset.folder)
    # The third is the first again, and reads nothing.
    assert len(folders) == 2 and source.reads == 2


def test_half_precision_is_kept_where_augmentation_works_in_full(tmp_path: Path) -> None:
    dataset = dataset_of(Source(), tmp_path, augmentation=(CastToTyped("image", torch.float32),))
    assert dataset[1]["image"].dtype == torch.float32
    assert read_entry(Path(dataset.task(1).path))["image"].dtype == torch.float16


def test_cache_is_filled_by_processes_and_a_second_time_only_checked(tmp_path: Path) -> None:
    datasets = [
        cached_dataset(STUDIES[:4], [Lambdad("image", torch.tensor), Lambdad("image", _as_volume)], (), tmp_path),
        cached_dataset(STUDIES[4:], [Lambdad("image", torch.tensor), Lambdad("image", _as_volume)], (), tmp_path),
    ]
    assert fill_cache(datasets, workers=2) == dict.fromkeys("012345", "made")
    assert fill_cache(datasets) == dict.fromkeys("012345", "kept")


def _as_volume(number: torch.Tensor) -> torch.Tensor:
    return number.float().expand(1, 2, 2, 2)


def test_a_scan_that_cannot_be_cached_is_named_and_stops_no_other(tmp_path: Path) -> None:
    image = tmp_path / "a.nii.gz"
    image.write_bytes(b"nothing")
    studies = [{"id": "broken", "image": str(image)}, *STUDIES[:1]]
    dataset = cached_dataset(studies, [Lambdad("image", _read_or_fill)], (), tmp_path / "cache")
    outcome = fill_cache([dataset])
    assert outcome["0"] == "made" and "a.nii.gz" in outcome["broken"]


def _read_or_fill(image: Any) -> torch.Tensor:
    return load_scan(image) if isinstance(image, str) else torch.zeros(1, 2, 2, 2)


def test_name_in_the_cache_is_that_of_the_content_and_not_of_the_objects_that_hold_it() -> None:
    study = {"id": "a", "image": "a.nii.gz", "labels": torch.tensor([1, 0]), "captions": {"lung": "Clear."}}
    assert study_digest(copy.deepcopy(study)) == study_digest(study)
    assert study_digest({**study, "labels": torch.tensor([1, 1])}) != study_digest(study)


def test_a_file_that_changed_has_another_name_in_the_cache(tmp_path: Path) -> None:
    image = tmp_path / "a.nii.gz"
    image.write_bytes(b"one")
    study = {"id": "a", "image": image}
    before = study_digest(study)
    image.write_bytes(b"other")
    assert study_digest(study) != before


def test_a_series_of_which_a_file_changed_has_another_name_in_the_cache(tmp_path: Path) -> None:
    slices = [tmp_path / "series" / "deep" / f"{number}.dcm" for number in range(2)]
    slices[0].parent.mkdir(parents=True)
    for path in slices:
        path.write_bytes(b"one")
    study = {"id": "a", "image": str(tmp_path / "series")}
    before = study_digest(study)
    slices[1].write_bytes(b"other")
    assert study_digest(study) != before


def test_a_file_that_did_not_change_keeps_the_name_that_caches_know(tmp_path: Path) -> None:
    image = tmp_path / "a.nii.gz"
    image.write_bytes(b"one")
    os.utime(image, ns=(7, 7))
    content = json.dumps([{"id": "a", "image": str(image)}, {"image": [1, 3, 7]}], sort_keys=True)
    assert study_digest({"id": "a", "image": str(image)}) == hashlib.sha256(content.encode()).hexdigest()


def test_augmentation_is_drawn_at_every_access(tmp_path: Path) -> None:
    dataset = dataset_of(Source(), tmp_path, augmentation=(RandShiftIntensityd("image", offsets=1.0, prob=1.0),))
    assert dataset[0]["image"].mean() != dataset[0]["image"].mean()


def test_order_is_that_of_the_epoch_and_differs_between_epochs() -> None:
    loader = study_loader(dataset_of(Source(), None), batch_size=2, shuffle=True)

    def order(epoch: int) -> list[str]:
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        return [name for batch in loader for name in batch["id"]]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert sorted(order(2)) == [study["id"] for study in STUDIES]


def test_every_study_is_scored_when_the_batches_do_not_come_out_even() -> None:
    loader = study_loader(dataset_of(Source(), None), batch_size=4)
    assert [name for batch in loader for name in batch["id"]] == [study["id"] for study in STUDIES]


def test_processes_share_the_studies_between_them() -> None:
    seen = [
        {
            name
            for batch in study_loader(dataset_of(Source(), None), 3, shuffle=True, rank=rank, world_size=2)
            for name in batch["id"]
        }
        for rank in range(2)
    ]
    assert seen[0].isdisjoint(seen[1]) and len(seen[0] | seen[1]) == 6


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_scan_that_cannot_be_read_stops_the_epoch_with_its_error(shuffle: bool) -> None:
    def read(number: int) -> torch.Tensor:
        if number == 3:
            raise ValueError("3.nii.gz: no such file or folder; check the path")
        return torch.zeros(1, 2, 2, 2)

    loader = study_loader(cached_dataset(STUDIES, [Lambdad("image", read)]), batch_size=1, shuffle=shuffle)
    with pytest.raises(RuntimeError) as caught:
        list(loader)
    assert "3.nii.gz" in str(first_cause(caught.value))


def first_cause(error: BaseException) -> BaseException:
    """The first cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def test_fewer_studies_than_a_batch_are_one_smaller_batch_and_none_are_no_batch() -> None:
    loader = study_loader(dataset_of(Source(), None), batch_size=8, shuffle=True)
    assert [sorted(batch["id"]) for batch in loader] == [[study["id"] for study in STUDIES]] and len(loader) == 1
    assert len(study_loader(dataset_of(Source(), None), batch_size=4, shuffle=True)) == 1, (
        "an incomplete batch beside a whole one is dropped"
    )
    assert list(study_loader(cached_dataset([], []), batch_size=4)) == []
