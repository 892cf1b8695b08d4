"""BatchNorm as part of the layer before it: the same outputs, whatever the names and the way of calling."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from secateur._errors import VerificationError
from secateur.folding import fold_batch_norm


def restless(model: nn.Module) -> nn.Module:
    """The model in eval mode with statistics and weights of BatchNorm that do something."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_()
            module.running_var.uniform_(0.3, 2)
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    return model.eval()


LAYERS = {
    "convolution": (nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), (2, 4, 7, 7)),
    "with a bias": (nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), (2, 4, 7, 7)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), (2, 4, 7, 7)),
    "without weights": (nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6, affine=False), (2, 4, 9)),
    "three dimensions": (nn.Conv3d(2, 4, 2), nn.BatchNorm3d(4), (2, 2, 4, 4, 4)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2), nn.BatchNorm2d(6), (2, 4, 5, 5)),
    "transposed and grouped": (nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), (2, 4, 5, 5)),
    "linear": (nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), (5, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_stay_to_rounding(name: str) -> None:
    layer, norm, shape = LAYERS[name]
    model = restless(nn.Sequential(layer, norm, nn.ReLU())).double()
    x = torch.randn(shape, dtype=torch.float64)
    folded, report = fold_batch_norm(model, (x,))
    assert [fold.norm for fold in report.folded] == ["1"]
    assert isinstance(folded[1], nn.Identity)  # type: ignore[index]
    with torch.no_grad():
        torch.testing.assert_close(folded(x), model(x), rtol=1e-10, atol=1e-10)
    assert isinstance(model[1], type(norm)), "a copy was folded"


class Odd(nn.Module):
    """The norm is called first by name, last in order; the convolution by its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_before = nn.BatchNorm2d(4)
        self.zz = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm_before(F.conv2d(x, self.zz.weight, self.zz.bias, padding=1)).relu()


def test_functional_code_and_odd_names() -> None:
    model, x = restless(Odd()), torch.randn(2, 3, 6, 6)
    folded, report = fold_batch_norm(model, (x,))
    assert report.folded[0].weight == "zz.weight"
    assert isinstance(folded.norm_before, nn.Identity)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), model(x), rtol=1e-5, atol=1e-5)


class NormAndAct(nn.BatchNorm2d):
    """A norm with an activation of its own, as timm has."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.SiLU()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self.act(super().forward(input))


def test_children_that_work_behind_a_norm_stay() -> None:
    model = restless(nn.Sequential(nn.Conv2d(3, 4, 3), NormAndAct(4)))
    x = torch.randn(2, 3, 6, 6)
    folded, _ = fold_batch_norm(model, (x,))
    assert isinstance(folded[1], nn.SiLU)  # type: ignore[index]
    with torch.no_grad():
        torch.testing.assert_close(folded(x), model(x), rtol=1e-5, atol=1e-5)


class Stays(nn.Module):
    """Norms that cannot be folded, each for another reason."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.conv, self.after = nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.twice, self.shared = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.batch = nn.BatchNorm2d(4, track_running_stats=False)
        self.last = nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.conv(self.first(x))
        y = made + self.after(made)
        y = self.shared(self.twice(self.shared(self.twice(y))))
        return self.batch(self.last(y))


def test_what_stays_has_its_reason() -> None:
    model, x = restless(Stays()), torch.randn(2, 3, 6, 6)
    folded, report = fold_batch_norm(model, (x,))
    reasons = {left.norm: left.reason for left in report.left}
    assert not report.folded
    assert "an input of the model" in reasons["first"]
    assert "not alone" in reasons["after"]
    assert "more than once" in reasons["shared"]
    assert "statistics of the batch" in reasons["batch"]
    assert "stays: " in str(report)
    assert torch.equal(folded(x), model(x))


def test_in_place_keeps_parameters() -> None:
    model = restless(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)))
    weight, x = model[0].weight, torch.randn(2, 3, 6, 6)  # type: ignore[index]
    with torch.no_grad():
        before = model(x)
    folded, _ = fold_batch_norm(model, (x,), inplace=True)
    assert folded is model
    assert model[0].weight is weight  # type: ignore[index]
    with torch.no_grad():
        torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)


class Reads(nn.Module):
    """Code that reads a parameter of the norm beside calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gain = getattr(self.norm, "weight", torch.zeros(4))
        return self.norm(self.conv(x)) * gain.sum()


def test_a_model_that_would_change_is_refused_and_left_alone() -> None:
    model, x = restless(Reads()), torch.randn(2, 3, 6, 6)
    before = model(x)
    with pytest.raises(VerificationError, match="read a BatchNorm's parameters"):
        fold_batch_norm(model, (x,), inplace=True)
    assert torch.equal(model(x), before)
