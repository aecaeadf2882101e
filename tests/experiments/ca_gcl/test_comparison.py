"""The variants of the comparison and its reference."""

import json
from pathlib import Path

import pytest

from experiments.ca_gcl.comparison import CA_GCL_VARIANTS, compare_variants


def test_every_overlay_of_the_ablation_is_there(bundle_root: Path) -> None:
    for variant in CA_GCL_VARIANTS:
        for overlay in variant.overlays:
            content = json.loads((bundle_root / "configs" / overlay).read_text(encoding="utf-8"))
            assert all(key.split("#")[0] in content for key in variant.keys), variant.name


def test_a_comparison_needs_its_reference(tmp_path: Path) -> None:
    variants = [variant for variant in CA_GCL_VARIANTS if variant.name == "ca_gcl"]
    with pytest.raises(ValueError, match="expected fvlm, the reference"):
        compare_variants(variants, [0], lambda *_: tmp_path, tmp_path, "title", "command", {}, 5)
