"""Prompts: the order of the template bank, its mean, and draws from the training wordings."""

import torch
from torch import Tensor

from bundle.ctfindings.findings import FINDINGS, TEMPLATES, finding_index, training_wordings
from bundle.ctfindings.networks.text.prompts import drawn_prompts, mean_over_templates, template_bank


class Numbering:
    """Stands in for a text tower: the embedding of a text is its number and the square of it.

    The difference of two such embeddings tells which two texts they were.
    """

    def __init__(self) -> None:
        self.number: dict[str, int] = {}
        self.roles: set[str] = set()

    def __call__(self, texts: list[str], role: str) -> Tensor:
        self.roles.add(role)
        numbers = [self.number.setdefault(text, len(self.number)) for text in texts]
        return torch.tensor([[float(number), float(number**2)] for number in numbers])


def test_template_bank_is_ordered_by_finding_polarity_and_template() -> None:
    text = Numbering()
    bank = template_bank(text)
    assert bank.shape == (18, 2, 7, 2) and text.roles == {"prompt"}
    column = finding_index("Lung nodule")
    for polarity, template, prompt in [
        (0, 2, "There is lung nodule."),
        (1, 2, "There is no lung nodule."),
        (1, 4, "Not lung nodule."),
        (0, 6, "Lung nodule is present."),
        (1, 6, "Lung nodule is not present."),
    ]:
        assert bank[column, polarity, template, 0] == text.number[prompt]


def test_mean_over_templates_is_a_unit_mean() -> None:
    bank = torch.zeros(1, 2, 2, 2)
    bank[0, 0] = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    bank[0, 1] = torch.tensor([[0.6, 0.8], [0.6, 0.8]])
    expected = torch.tensor([[[0.5**0.5, 0.5**0.5], [0.6, 0.8]]])
    torch.testing.assert_close(mean_over_templates(bank), expected)


def test_no_scoring_prompt_is_a_training_wording() -> None:
    scoring = Numbering()
    template_bank(scoring)
    training = {text for finding in FINDINGS for pair in training_wordings(finding) for text in pair}
    assert len(scoring.number) > len(FINDINGS) * len(TEMPLATES)
    assert not set(scoring.number) & training


def test_drawn_prompts_pair_the_two_polarities_of_a_wording_of_the_same_finding() -> None:
    torch.manual_seed(0)
    text = Numbering()
    prompts = drawn_prompts(text, 40)
    assert prompts.shape == (2, 40, 18, 2)
    text([wording for finding in FINDINGS for pair in training_wordings(finding) for wording in pair], "prompt")
    for column, finding in enumerate(FINDINGS):
        numbers = {(float(text.number[yes]), float(text.number[no])) for yes, no in training_wordings(finding)}
        drawn = set(zip(prompts[0, :, column, 0].tolist(), prompts[1, :, column, 0].tolist(), strict=True))
        assert drawn <= numbers
        assert len(drawn) > 1
