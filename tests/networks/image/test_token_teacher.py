"""The teacher of the token field: how it moves, and that nothing else changes it."""

from collections.abc import Callable

import torch

from bundle.ctfindings.networks.image.image_encoder import ImageEncoder
from bundle.ctfindings.networks.image.token_teacher import TokenTeacher


def test_the_teacher_moves_by_one_minus_momentum_and_first_becomes_the_student(
    make_image: Callable[[], ImageEncoder],
) -> None:
    student = make_image()
    teacher = TokenTeacher(student, momentum=0.9)
    image = torch.rand(1, 1, 16, 8, 16)
    before = teacher(image)
    weights = [student.field[1].weight, student.tower.context_gain]
    with torch.no_grad():
        for weight in weights:
            weight.add_(1.0)
    torch.testing.assert_close(teacher(image), before)
    teacher.update(student)
    torch.testing.assert_close(teacher(image), student.eval()(image).field)
    with torch.no_grad():
        for weight in weights:
            weight.add_(1.0)
    moved = [weight.detach() - 0.9 for weight in weights]
    student.tower.statistics.standardize.mean.fill_(3.0)
    teacher.update(student)
    average = teacher.average.module
    found = [average["field"][1].weight, average["tower"].context_gain]
    torch.testing.assert_close(found, moved)
    assert (average["tower"].statistics.standardize.mean == 3).all(), "statistics are copied"


def test_a_teacher_is_never_trained(make_image: Callable[[], ImageEncoder]) -> None:
    teacher = TokenTeacher(make_image()).train()
    assert not any(module.training for module in teacher.modules())
    image = torch.rand(1, 1, 16, 8, 16, requires_grad=True)
    assert not teacher(image).requires_grad
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    # It travels with the checkpoint of a run.
    assert "average.n_averaged" in teacher.state_dict()
