"""Modes, devices, precisions, shared modules, failures half-way."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur
from speedup.checks import columns, error, masked_copy, randomise, rows, speed_up

X = torch.randn(2, 3, 8, 8)


def net() -> nn.Sequential:
    return randomise(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Flatten(),
            nn.Linear(4 * 36, 2),
        )
    )  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
def test_train_and_eval(training: bool) -> None:
    model = net().train(training)
    model[1].train(not training)
    before = model[1].running_mean.clone()
    speed_up(model, {"0": rows(model[0], [0, 1])}, X)
    assert [m.training for m in model] == [training, not training, *[training] * 4]
    assert torch.equal(model[1].running_mean, before[2:])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_precisions(dtype: torch.dtype) -> None:
    model = net().to(dtype)
    masks = {"0": rows(model[0], [0, 1])}
    report = secateur.speedup(model, (X.to(dtype),), masks=masks)
    assert model[0].out_channels == 6 and model[3].bias.dtype == dtype
    assert report.verification is not None and report.verification.passed


def test_meta_device() -> None:
    with torch.device("meta"):
        model = net_on_meta()
        x = torch.randn(2, 3, 8, 8)
    masks = {"0": rows_of_shape((8, 3, 3, 3), [0, 1])}
    report = secateur.speedup(model, (x,), masks=masks)
    assert model[0].out_channels == 6 and model[0].weight.device.type == "meta"
    assert report.error != report.error and "verification: not done" in str(report)


def net_on_meta() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1, bias=False)
    )


def rows_of_shape(shape: tuple[int, ...], gone: list[int]) -> dict[str, Tensor]:
    mask = torch.ones(shape, device="cpu")
    mask[gone] = 0
    return {"weight": mask}


def test_channels_last() -> None:
    model = randomise(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sigmoid(), nn.Conv2d(8, 4, 3, padding=1)))
    model = model.to(memory_format=torch.channels_last)
    report = speed_up(model, {"0": rows(model[0], [0, 1, 2])}, X, on_inexact="keep")
    assert model[0].out_channels == 6 and report.exact
    assert model[2].weight.is_contiguous(memory_format=torch.channels_last)


def test_a_module_used_three_times() -> None:
    class Again(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.again, self.pool = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.MaxPool2d(2)
            self.last = nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.pool(self.first(x).relu())
            for _ in range(2):
                x = self.pool(self.again(x).relu())
            return self.last(x)

    model = randomise(Again())
    gone = [1, 2]
    masks = {name: rows(model.get_submodule(name), gone, bias=True) for name in ("first", "again")}
    speed_up(model, masks, X)
    assert model.first.out_channels == model.again.out_channels == model.again.in_channels == 6


@pytest.mark.parametrize("on_inexact", ["fold", "keep"])
def test_again_and_again(on_inexact: Any) -> None:
    model = randomise(
        nn.Sequential(
            nn.Conv2d(3, 12, 3, bias=False), nn.BatchNorm2d(12), nn.Sigmoid(),
            nn.Conv2d(12, 12, 3, padding=1),
            nn.ReLU(), nn.Conv2d(12, 2, 1, bias=False),
        )
    )  # fmt: skip
    original, masks = model, None
    for step in range(3):
        masks = {"0": rows(model[0], [0, 1]), "3": rows(model[3], [step])}
        reference = masked_copy(model, masks)
        report = secateur.speedup(model, (X,), masks=masks, on_inexact=on_inexact)
        assert error(reference, model, X) == pytest.approx(report.error, rel=0.1, abs=1e-6)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        secateur.speedup(model, (X,), masks={}, on_inexact=on_inexact)
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model is original and model[0].out_channels < 12 and model[3].out_channels == 9
    loss = model.train()(X).square().mean()
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_tied_parameters_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.inner = nn.Embedding(9, 6), nn.Linear(6, 6)
            self.out = nn.Linear(6, 9, bias=False)
            self.out.weight = self.embed.weight

        def forward(self, ids: Tensor) -> Tensor:
            return self.out(self.inner(self.embed(ids)).tanh())

    model = randomise(Tied())
    ids = torch.randint(0, 9, (2, 4))
    mask = torch.ones(6)
    mask[[0, 1]] = 0
    masks = {"embed": {"weight": mask[None]}, "inner": {"weight": mask[:, None], "bias": mask}}
    reference = masked_copy(model, masks)
    secateur.speedup(model, (ids,), masks=masks)
    assert model.out.weight is model.embed.weight and model.embed.weight.shape == (9, 4)
    assert error(reference, model, ids) < 1e-5


def test_weight_norm_looks_at_all_columns() -> None:
    model = randomise(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))
    nn.utils.parametrizations.weight_norm(model[2])
    report = secateur.speedup(model, (torch.randn(3, 4),), masks={"0": rows(model[0], [0, 1], bias=True)})
    assert model[0].out_features == 8 and report.error < 1e-6
    assert "0 rows 0, 1 stay" in str(report) and "(2.parametrizations.weight.0)" in str(report)


def test_masks_that_make_the_model_put_out_no_numbers() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    nn.utils.parametrizations.weight_norm(model[0])
    mask = torch.ones(8, 4)
    mask[0] = 0
    masks = {"0.parametrizations.weight": {"original1": mask}, "2": columns(model[2], [0])}
    with pytest.raises(secateur.VerificationError, match="only one of the masked and the small model"):
        secateur.speedup(model, (torch.randn(3, 4),), masks=masks)


def test_size_as_last_use_and_single_logit() -> None:
    class Sized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x).relu()
            return self.head(y.mean((2, 3))).view(y.size(0)) * (y.size(2) / 6)

    model = randomise(Sized()).double()  # a single number may be next to zero
    speed_up(model, {"conv": rows(model.conv, [3])}, X.double())
    assert model.conv.out_channels == 7


def test_an_output_that_is_masked_stays_an_output() -> None:
    model = net()
    mask = {"5": rows(model[5], [0])}
    report = speed_up(model, mask, X)
    assert model[5].out_features == 2
    assert "5 row 0 stays: it is a dimension of the model's output" in str(report)


@pytest.mark.parametrize("stage", ["add_to_biases", "merge_columns", "cut_inplace", "create_biases"])
def test_a_failure_half_way_is_taken_back(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from secateur.speedups import _engine

    model = randomise(
        nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.Sigmoid(), nn.Conv2d(8, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1, bias=False),
        )
    )  # fmt: skip
    before, text = copy.deepcopy(model.state_dict()), str(model)
    original = getattr(_engine, stage)

    def fails(*args: Any, **kwargs: Any) -> Any:
        original(*args, **kwargs)
        raise RuntimeError("half-way")

    monkeypatch.setattr(_engine, stage, fails)
    masks = {"0": rows(model[0], [0, 1, 2]), "2": rows(model[2], [1])}
    with pytest.raises(RuntimeError, match="half-way"):
        secateur.speedup(model, (X,), masks=masks, on_inexact="keep")
    assert str(model) == text and model[2].bias is None
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_network_that_was_never_run_in_part() -> None:
    class Aux(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.aux, self.head = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Any:
            x = self.main(x)
            return (self.head(x), self.aux(x)) if self.training else self.head(x)

    model = randomise(Aux())
    report = speed_up(model, {"aux": rows(model.aux, [0])}, torch.randn(2, 4))
    assert model.aux.out_features == 3 and "aux row 0 stays" in str(report)
