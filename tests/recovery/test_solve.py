"""Ridge regression against direct least squares."""

import torch

from secateur.recovery._solve import Sums, solve


def problem(rows: int, noise: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two groups of three features and two outputs: inputs, what is wanted, weights so far."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(2, rows, 3, generator=draw) + 0.5
    truth = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(9))
    y = x @ truth + 1.5 + noise * torch.randn(2, rows, 2, generator=draw)
    return x, y, truth


def sums(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> Sums:
    found = Sums()
    half = x.shape[1] // 2
    for part in (slice(None, half), slice(half, None)):  # in a stream
        found.add(x[:, part], (y - x @ weight)[:, part], y[:, part])
    return found


def least_squares(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Weights of every group, with the bias as the last row."""
    design = torch.cat([x, torch.ones(*x.shape[:2], 1)], 2).double()
    return torch.linalg.lstsq(design, y.double()).solution


def test_it_finds_the_least_squares_solution_of_all_rows_with_a_bias() -> None:
    (x, y, truth), (a, b, _) = problem(400, 0.1), problem(100, 0.1, 1)
    start = torch.zeros_like(truth)
    found = solve(sums(x, y, start), sums(a, b, start), bias=True, ridges=(1e-9,))
    assert found.change is not None
    assert found.change.bias is not None
    wanted = least_squares(torch.cat([x, a], 1), torch.cat([y, b], 1))
    assert torch.allclose(found.change.weight, wanted[:, :3], atol=1e-5)
    assert torch.allclose(found.change.bias, wanted[:, 3], atol=1e-5)


def test_errors_are_those_of_the_held_out_rows_with_what_the_others_ask_for() -> None:
    (x, y, truth), (a, b, _) = problem(400, 0.5), problem(100, 0.5, 1)
    start = truth + 0.3
    found = solve(sums(x, y, start), sums(a, b, start), bias=True, ridges=(1e-9,))
    asked = least_squares(x, y).float()
    made = a @ asked[:, :3] + asked[:, 3:]
    scale = float((b - b.mean(1, keepdim=True)).square().sum())
    assert abs(found.before - float((b - a @ start).square().sum()) / scale) < 1e-4
    assert abs(found.after - float((b - made).square().sum()) / scale) < 1e-4
    assert found.after < found.before


def test_what_is_right_already_is_left() -> None:
    x, y, truth = problem(40, 0.0)
    y = y - 1.5
    found = solve(sums(x, y, truth), sums(x, y, truth), bias=False)
    assert found.change is None or found.after <= found.before


def test_a_change_that_makes_held_out_rows_worse_is_not_made() -> None:
    x, y, truth = problem(40, 0.0)
    # The training rows ask for something else than the held-out ones.
    found = solve(sums(x, -y, truth), sums(x, x @ truth, truth), bias=True)
    assert found.change is None
    assert found.after == found.before


def test_the_ridge_pulls_towards_the_weights_as_they_are() -> None:
    x, y, truth = problem(400, 0.1)
    start = truth + 1
    held = sums(x, y, start)
    weak, strong = (solve(sums(x, y, start), held, bias=True, ridges=(r,)).change for r in (1e-6, 10.0))
    assert weak is not None
    assert strong is not None
    assert strong.weight.norm() < weak.weight.norm() / 2


def test_features_without_variance_do_no_harm() -> None:
    x, y, truth = problem(50, 0.1)
    x[:, :, 1] = 0
    found = solve(sums(x, y, truth), sums(x, y, truth), bias=True)
    assert found.change is not None
    assert torch.isfinite(found.change.weight).all()


def test_sums_over_many_small_parts_are_those_of_all_rows() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, 700, 600, generator=draw)  # more columns than one block, fewer rows at a time
    e, y = torch.randn(1, 700, 2, generator=draw), torch.randn(1, 700, 2, generator=draw)
    found = Sums()
    for part in torch.arange(700).split(64):
        found.add(x[:, part], e[:, part], y[:, part])
    square, cross, total, errors = found.parts
    assert found.count == 700
    assert torch.allclose(square, x.double().transpose(1, 2) @ x.double(), atol=1e-4)
    assert torch.equal(square, square.transpose(1, 2))
    assert torch.allclose(cross, x.double().transpose(1, 2) @ e.double(), atol=1e-4)
    assert torch.allclose(total, x.double().sum(1), atol=1e-4)
    assert torch.allclose(errors, e.double().sum(1), atol=1e-4)
    assert abs(found.error - float(e.double().square().sum())) < 1e-6
