"""Copies share nothing with the model but the code, whatever its modules keep in their attributes."""

import copy
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn

from secateur.capture import copy_with


def copied(model: nn.Module) -> Any:
    return copy_with(model, lambda source, name, tensor: tensor.detach().clone())


class Keeping(nn.Module):
    """Attributes of all kinds, some of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)
        self.sizes, self.steps, self.names = [1, 2], (3, (4, [5])), {"a", "b"}
        self.table = OrderedDict(one={"deep": [1]}, two=None)
        self.same_sizes, self.same_layer = self.sizes, [self.layer]
        self.plain = torch.ones(2)
        self.plain_again = {"tensor": self.plain}
        self.layer.register_forward_hook(self.hook)

    def hook(self, module: nn.Module, args: Any, result: torch.Tensor) -> torch.Tensor:
        return result + 1


def test_containers_are_copied_and_what_is_shared_stays_shared() -> None:
    model = Keeping()
    new = copied(model)
    for name in ("sizes", "steps", "names", "table"):
        assert getattr(new, name) == getattr(model, name)
    new.sizes.append(7)
    new.steps[1][1].append(7)
    new.names.add("c")
    new.table["one"]["deep"].append(7)
    assert (model.sizes, model.steps, model.names) == ([1, 2], (3, (4, [5])), {"a", "b"})
    assert model.table["one"] == {"deep": [1]}
    assert new.same_sizes is new.sizes
    assert new.same_layer[0] is new.layer is not model.layer
    assert new.plain_again["tensor"] is new.plain is not model.plain


def test_hooks_are_bound_to_the_copy() -> None:
    model = Keeping()
    new = copied(model)
    (hook,) = new.layer._forward_hooks.values()
    assert hook.__self__ is new
    assert torch.equal(new.layer(torch.ones(2)), model.layer(torch.ones(2)))


class WithState(nn.Module):
    def __getstate__(self) -> Any:
        return {**vars(self), "seen": True}


class Refilled(nn.Module):
    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        self.seen = True


class Copying(nn.Module):
    def __deepcopy__(self, memo: Any) -> Any:
        new = copy.copy(self)
        new.seen = True
        return new


@pytest.mark.parametrize("kind", [WithState, Refilled, Copying])
def test_what_a_class_says_about_copying_it_is_heeded(kind: type[nn.Module]) -> None:
    new = copied(nn.Sequential(kind()))
    assert new[0].seen


def test_a_recurrent_layer_works_after_copying() -> None:
    model, x = nn.LSTM(3, 4), torch.randn(2, 3)
    assert torch.equal(copied(model)(x)[0], model(x)[0])
