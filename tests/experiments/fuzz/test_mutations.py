"""300 mutated files of every kind: each is read or refused in one line, quickly, and nothing stays behind."""

from pathlib import Path

import pytest

from experiments.fuzz.mutations import KINDS, outcome

CASES = 30


@pytest.mark.parametrize("kind", KINDS)
def test_a_mutated_file_is_read_or_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    results = []
    for seed in range(CASES):
        folder = tmp_path / str(seed)
        folder.mkdir()
        found = outcome(kind, seed, folder)
        assert found.result in ("read", "refused"), f"seed {seed}: {found.result}: {found.detail}"
        assert found.seconds < 20
        assert len(list(folder.iterdir())) == 1
        results.append(found.result)
    assert "refused" in results, "no mutation did harm: the mutations are too weak"
