"""Masks that do not fit raise before anything changes, and say where and how."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import secateur

X = torch.randn(2, 4)


@pytest.fixture
def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2, bias=False))


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(shape)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (
            {"0": {"weight": ones(6, 5)}},
            r"0, target 'weight': the mask has shape \(6, 5\) and the parameter \(6, 4\)",
        ),
        ({"0": {"weight": ones(6)}}, r"the mask has shape \(6,\) and the parameter \(6, 4\)"),
        ({"00": {"weight": ones(6, 4)}}, r"no module '00' in Sequential; did you mean '0'"),
        ({"0": {"wait": ones(6, 4)}}, r"Linear has no such parameter \(it has weight, bias\)"),
        ({"2": {"bias": ones(2)}}, r"2, target 'bias': this Linear was made without bias"),
        ({"0": {"bias": ones(6) * torch.nan}}, r"0, target 'bias': the mask \(shape \(6,\)\) contains NaN"),
        ({"0": {"bias": ones(6) * 0.5}}, r"contains 0.5; it has to be 0 or 1"),
        ({"0": {"bias": [1, 1]}}, r"expected a tensor or None, got list"),
        ({"0": ones(6, 4)}, r"0: expected a dict \{target: tensor\}, got Tensor"),
        ([ones(6, 4)], r"masks are a dict .* got list"),
        ({"1": {"_output_3": torch.zeros(1, 6)}}, r"1, target '_output_3': there is nothing of that name"),
        (
            {"1": {"_output_0": torch.zeros(1, 5)}},
            r"1, target '_output_0': the mask has shape \(1, 5\) and the tensor \(2, 6\)",
        ),
        ({"1": {"_input_y": torch.zeros(1, 6)}}, r"ReLU.forward has no argument 'y', but \['input'\]"),
    ],
)
def test_what_is_wrong(net: nn.Sequential, masks: Any, message: str) -> None:
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(secateur.MaskError, match=message):
        secateur.speedup(net, (X,), masks=masks)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert not net[1]._buffers and not net[1]._forward_hooks


def test_a_parameter_that_is_pruned_already(net: nn.Sequential) -> None:
    prune.l1_unstructured(net[0], "weight", 3)
    with pytest.raises(secateur.MaskError, match=r"torch.nn.utils.prune masks it already; masks=None takes"):
        secateur.speedup(net, (X,), masks={"0": {"weight": ones(6, 4)}})
    assert prune.is_pruned(net)


def test_all_mistakes_are_said_at_once(net: nn.Sequential) -> None:
    with pytest.raises(secateur.MaskError) as caught:
        secateur.speedup(net, (X,), masks={"7": {}, "0": {"wait": ones(1)}, "2": {"weight": ones(3, 3)}})
    assert len(str(caught.value).splitlines()) == 4


class Harm:
    """Would write a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_files_that_hold_something_else(net: nn.Sequential, tmp_path: Path) -> None:
    path, harmed = tmp_path / "masks.pth", tmp_path / "harmed"
    with pytest.raises(secateur.MaskError, match="there is no mask file"):
        secateur.speedup(net, (X,), masks=path)
    path.write_bytes(pickle.dumps(Harm(harmed)))
    with pytest.raises(secateur.MaskError, match=r"is no mask file .*other objects are not unpickled"):
        secateur.speedup(net, (X,), masks=path)
    torch.save(Harm(harmed), path)
    with pytest.raises(secateur.MaskError, match="is no mask file"):
        secateur.speedup(net, (X,), masks=path)
    torch.save([1, 2], path)
    with pytest.raises(secateur.MaskError, match="holds a list, not a dict"):
        secateur.speedup(net, (X,), masks=path)
    wrong = tmp_path / "masks.safetensors"
    wrong.write_bytes(b"nothing")
    with pytest.raises(secateur.MaskError, match="is no safetensors file"):
        secateur.speedup(net, (X,), masks=wrong)
    assert not harmed.exists()


def test_arguments(net: nn.Sequential) -> None:
    with pytest.raises(TypeError, match=r"write args=\(x,\)"):
        secateur.speedup(net, X, masks={})  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="on_inexact is one of"):
        secateur.speedup(net, (X,), masks={}, on_inexact="drop")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="statistics is 'keep' or 'shrink'"):
        secateur.speedup(net, (X,), masks={}, statistics="drop")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="ModelSpeedup needs masks"):
        secateur.ModelSpeedup(net, X)
