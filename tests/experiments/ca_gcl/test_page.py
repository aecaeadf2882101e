"""The page of the comparison states what its results hold."""

import json
from pathlib import Path
from typing import Any

from experiments.ca_gcl.page import write_experiment_figures, write_experiment_page


def test_the_page_is_written_from_the_results(
    results: dict[str, Any], evaluations: dict[str, dict[int, Path]], tmp_path: Path
) -> None:
    (tmp_path / "results.json").write_text(json.dumps(results, allow_nan=False))
    (tmp_path / "notes.md").write_text("## What the numbers suggest\n\nLittle.\n")
    write_experiment_figures(tmp_path, results, evaluations)
    page = write_experiment_page(tmp_path, "A comparison", "python x.py").read_text(encoding="utf-8")
    assert page.startswith("# A comparison\n\n## What the numbers suggest\n\nLittle.\n\n")
    assert all(
        (tmp_path / name).is_file() and f"({name})" in page
        for name in ("similarity.png", "wordings.png", "variants.png")
    )
    assert page.count("| met |") == sum(row["met"] is True for row in results["expectations"])
