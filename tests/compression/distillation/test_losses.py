"""The losses: numbers worked out by hand."""

from math import log, sqrt

import pytest
import torch
from torch.nn import functional as F

from secateur.compression.distillation import attention_transfer, cosine, kl, mse


def test_mse_is_the_mean_over_all_elements() -> None:
    student, teacher = torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.tensor([[1.0, 4.0], [0.0, 5.0]])
    assert mse(student, teacher).item() == (0 + 4 + 9 + 0) / 4


def test_kl_at_temperature_two() -> None:
    # Halved by the temperature: the student is even, the teacher at odds of 1 to 3.
    student, teacher = torch.zeros(1, 2), torch.tensor([[0.0, 2 * log(3)]])
    by_hand = 4 * (0.25 * log(0.25 / 0.5) + 0.75 * log(0.75 / 0.5))
    assert kl(student, teacher).item() == pytest.approx(by_hand, rel=1e-6)
    assert kl(student, teacher / 2, temperature=1.0).item() == pytest.approx(by_hand / 4, rel=1e-6)


def test_kl_of_rows_is_nnis_for_two_dimensions_and_does_not_grow_with_the_sequence() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(6, 5), torch.randn(6, 5)
    nni = 4 * F.kl_div(F.log_softmax(student / 2, -1), F.softmax(teacher / 2, -1), reduction="batchmean")
    assert kl(student, teacher).item() == pytest.approx(nni.item(), rel=1e-5)
    long = kl(student[:, None].expand(6, 7, 5), teacher[:, None].expand(6, 7, 5))
    assert long.item() == pytest.approx(nni.item(), rel=1e-5)  # 7 times as much with batchmean


def test_kl_along_channels_of_images() -> None:
    student, teacher = torch.zeros(2, 2, 3, 3), torch.zeros(2, 2, 3, 3)
    teacher[:, 1] = 2 * log(3)
    by_hand = 4 * (0.25 * log(0.25 / 0.5) + 0.75 * log(0.75 / 0.5))
    assert kl(student, teacher, dim=1).item() == pytest.approx(by_hand, rel=1e-6)


def test_cosine() -> None:
    student = torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    teacher = torch.tensor([[-1.0, 0.0], [0.0, 2.0]])
    assert cosine(student, teacher).item() == pytest.approx((2 + (1 - 1 / sqrt(2))) / 2, rel=1e-6)


def test_attention_maps_are_sums_of_squares_of_length_one() -> None:
    # Two channels against one, two positions: maps (9 + 16, 0) and (1, 1), normed (1, 0), (0.7071, 0.7071).
    student = torch.tensor([3.0, 0.0, 4.0, 0.0]).view(1, 2, 1, 2)
    teacher = torch.ones(1, 1, 1, 2)
    by_hand = (1 - 1 / sqrt(2)) ** 2 + 0.5
    assert attention_transfer(student, teacher, dim=1).item() == pytest.approx(by_hand, rel=1e-6)
    tokens = student.flatten(2).mT  # (batch, positions, features)
    assert attention_transfer(tokens, torch.ones(1, 2, 5)).item() == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize("loss", [mse, kl, cosine, attention_transfer])
def test_equal_tensors_have_no_distance_and_a_finite_gradient(loss: object) -> None:
    torch.manual_seed(0)
    student = torch.randn(2, 3, 4, requires_grad=True)
    found = loss(student, student.detach().clone())  # type: ignore[operator]
    found.backward()
    assert found.item() == pytest.approx(0.0, abs=1e-6)
    assert student.grad is not None
    assert student.grad.abs().max().item() < 1e-6


@pytest.mark.parametrize("loss", [mse, kl, cosine, attention_transfer])
def test_half_precision_is_compared_in_float32(loss: object) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 3, 8).half() * 300, torch.randn(4, 3, 8).half() * 300
    found = loss(student, teacher)  # type: ignore[operator]
    assert found.dtype == torch.float32  # squares of 600 are beyond float16
    assert found.item() == pytest.approx(loss(student.float(), teacher.float()).item())  # type: ignore[operator]
