"""CA-GCL against fVLM: the variants of the comparison and the ablation, their runs, results and page."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.ca_gcl.page import write_experiment_figures, write_experiment_page
from experiments.ca_gcl.results import experiment_results
from experiments.harness.page import write_results
from experiments.harness.runs import Variant

logger = logging.getLogger(__name__)

_NO_GLOBAL = {"loss_weights#cross_anatomy": 0.0, "loss_weights#text_separation": 0.0}

CA_GCL_VARIANTS: tuple[Variant, ...] = (
    Variant("initial", "initial weights, not trained", ("objectives/fvlm.json",), trained=False),
    Variant("fvlm", "local objective only", ("objectives/fvlm.json",)),
    Variant("global", "local and global objective", ("objectives/ca_gcl.json",), {"caption_augmentation_prob": 0.0}),
    Variant("augmentation", "local objective and text augmentation", ("objectives/ca_gcl.json",), _NO_GLOBAL),
    Variant("ca_gcl", "local and global objective and text augmentation", ("objectives/ca_gcl.json",)),
    Variant(
        "prototypes",
        "prototypes instead of the global objective, with text augmentation",
        ("objectives/ca_gcl_prototypes.json",),
    ),
    Variant(
        "ca_gcl_product",
        "a product of anatomy and disease, with text augmentation",
        ("objectives/ca_gcl_product.json",),
    ),
)
"""Comparison and ablation of CA-GCL; `fvlm` is the reference."""


def compare_variants(
    variants: Sequence[Variant],
    seeds: Sequence[int],
    run: Callable[[Variant, int], Path],
    output: Path,
    title: str,
    command: str,
    settings: Mapping[str, Any],
    resamples: int,
) -> Path:
    """Runs what is missing, writes results, figures and page, and returns the page.

    Args:
        variants: Variants with the reference `fvlm` among them.
        seeds: Random seeds of the runs.
        run: Trains and evaluates a variant with a seed unless that is done, and returns the folder of its evaluation:
            `run_variant` with its other arguments, or `LockedRuns`.
        output: Folder for ``results.json``, the figures and the page.
        title: Title of the page.
        command: Command that produces these results, for the page.
        settings: Settings of the experiment, kept in the results.
        resamples: Bootstrap resamples.

    Raises:
        ValueError: `fvlm` is not among the variants, or a run failed.
    """
    if "fvlm" not in {variant.name for variant in variants}:
        raise ValueError("variants: expected fvlm, the reference, among them")
    evaluations: dict[str, dict[int, Path]] = {variant.name: {} for variant in variants}
    # Seed by seed, so that a command that is stopped early leaves complete comparisons.
    for seed in seeds:
        for variant in variants:
            logger.info("%s, seed %d", variant.name, seed)
            evaluations[variant.name][seed] = run(variant, seed)
    results = experiment_results(
        evaluations,
        {variant.name: variant.title for variant in variants},
        {**settings, "seeds": list(seeds)},
        resamples=resamples,
    )
    write_results(output, results)
    write_experiment_figures(output, results, evaluations)
    return write_experiment_page(output, title, command)
