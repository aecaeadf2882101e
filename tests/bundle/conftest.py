"""Synthetic scans on which the workflows train."""

from pathlib import Path

import pytest

from bundle.ctfindings.phantom.dataset import make_dataset


@pytest.fixture(scope="session")
def synthetic_scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A datalist with eight scans for training, four for validation and two for test."""
    return make_dataset(tmp_path_factory.mktemp("synthetic"), training=8, validation=4, test=2, seed=3, workers=1)
