"""Prompt perturbations: each one changes the reference prompts."""

import pytest

from bundle.ctfindings.findings import FINDINGS, TEMPLATES, finding_index
from bundle.ctfindings.metrics.prompt_perturbations import PERTURBATIONS, Perturbation


@pytest.mark.parametrize("perturbation", PERTURBATIONS, ids=lambda perturbation: perturbation.id)
def test_every_perturbation_changes_the_reference_for_every_finding_and_is_no_template(
    perturbation: Perturbation,
) -> None:
    for finding in FINDINGS:
        positive, negative = perturbation.pair(finding)
        name = finding.name[:1].lower() + finding.name[1:]
        assert positive != negative
        assert positive not in {f"There is {name}."} and negative not in {f"There is no {name}."}
    assert perturbation.id not in {template.id for template in TEMPLATES}


def test_perturbations_read_as_they_should() -> None:
    effusion = FINDINGS[finding_index("Pleural effusion")]
    emphysema = FINDINGS[finding_index("Emphysema")]
    pairs = {perturbation.id: perturbation.pair for perturbation in PERTURBATIONS}
    assert pairs["lower case"](effusion) == ("there is pleural effusion.", "there is no pleural effusion.")
    assert pairs["article"](emphysema) == ("There is an emphysema.", "There is not an emphysema.")
    assert pairs["anatomy"](effusion) == (
        "There is pleural effusion in the lung.",
        "There is no pleural effusion in the lung.",
    )
    assert pairs["anatomy"](FINDINGS[0])[0] == "There is medical material in the chest."
    assert pairs["synonym 1"](effusion)[1] == f"There is no {effusion.synonyms[0]}."
