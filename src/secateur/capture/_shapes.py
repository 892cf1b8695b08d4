"""Running a model's operators on ghosts: for the shapes of their results, without arithmetic."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from ._ghost import Ghost, NeedsValues, ghost_of
from ._graph import map_tree
from ._operators import writes_operands
from ._pytree import tensors_in


class Shapes:
    """Runs operators as far as they can be run: on ghosts for their shapes only, else for real.

    What a call on ghosts gave is remembered, since models repeat themselves.
    """

    def __init__(self) -> None:
        self._results: dict[Any, Any] = {}

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of one call.

        Raises:
            NeedsValues: if it reads values of a ghost, or writes a ghost's into a real tensor.
        """
        alike = _operand_alike(func, args)
        if alike is not None:
            return alike if writes_operands(func) else ghost_of(alike)
        tensors: list[torch.Tensor] = []
        key = func, _key(args, tensors), _key(kwargs, tensors)
        if not any(type(tensor) is Ghost for tensor in tensors):
            return func(*args, **kwargs)
        if key in self._results:
            return map_tree(self._results[key], Ghost, ghost_of)
        result = _run_on_meta(func, args, kwargs, tensors)
        given = set(map(id, tensors))
        if given.isdisjoint(id(tensor) for tensor in tensors_in(result)):
            self._results[key] = map_tree(result, Ghost, ghost_of)
        return result


def _key(tree: Any, tensors: list[torch.Tensor]) -> Any:
    """All of the arguments that the shapes of a result depend on; collects the tensors among them."""
    if isinstance(tree, torch.Tensor):
        tensors.append(tree)
        return type(tree), tree.shape, tree.dtype, tree.device
    if isinstance(tree, (list, tuple)):
        return tuple([_key(item, tensors) for item in tree])
    if isinstance(tree, dict):
        return tuple([(name, _key(item, tensors)) for name, item in tree.items()])
    return type(tree), tree  # 1, 1.0 and True are equal, and are not the same


# -- what meta kernels take long to find out -------------------------------------------------------

_LIKE_FIRST = {
    "batch_norm", "layer_norm", "group_norm", "instance_norm", "relu", "relu6", "gelu", "silu", "mish",
    "hardswish", "hardsigmoid", "hardtanh", "leaky_relu", "elu", "sigmoid", "tanh",
}  # fmt: skip
_LIKE_BOTH = {"add", "sub", "mul", "div"}


def _operand_alike(func: Any, args: tuple[Any, ...]) -> Ghost | None:
    """The operand whose shape and dtype the result is known to have."""
    count = _operands_alike(func)
    if not count or type(args[0]) is not Ghost or not args[0].is_floating_point():
        return None
    first, others = args[0], args[1:count]
    same = all(
        (other.shape, other.dtype, other.device) == (first.shape, first.dtype, first.device)
        if type(other) is Ghost
        else type(other) in (int, float)
        for other in others
    )
    return first if same else None


@lru_cache(maxsize=4096)
def _operands_alike(func: Any) -> int:
    """How many operands have to be alike for the result to be like them; 0 where that is not enough."""
    if func.namespace != "aten" or func._overloadname.endswith("out"):
        return 0
    name = func._schema.name.removeprefix("aten::").removesuffix("_")
    return 1 if name in _LIKE_FIRST else 2 if name in _LIKE_BOTH else 0


def _run_on_meta(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[torch.Tensor]
) -> Any:
    known: dict[int, torch.Tensor] = {}
    device = [next(tensor.device for tensor in tensors if type(tensor) is Ghost)]

    def to_meta(tensor: torch.Tensor) -> torch.Tensor:
        meta = tensor.meta if isinstance(tensor, Ghost) else tensor.to("meta")
        known[id(meta)] = tensor
        return meta

    def moved(target: torch.device) -> torch.device:
        device[0] = target
        return torch.device("meta")

    def named(meta: torch.Tensor) -> torch.Tensor:
        tensor = known.get(id(meta))
        if tensor is None:
            return Ghost(tuple(meta.shape), meta.dtype, device[0])
        if not isinstance(tensor, Ghost) and writes_operands(func):
            raise NeedsValues(f"{func} writes the values of a ghost into a tensor")
        if isinstance(tensor, Ghost) and tensor.shape != meta.shape:
            tensor.become(Ghost(tuple(meta.shape), tensor.dtype, tensor.device, tensor.value_id))
        return tensor

    inputs = map_tree(map_tree((args, kwargs), torch.device, moved), torch.Tensor, to_meta)
    result = func(*inputs[0], **inputs[1])
    if result is not None and not any(True for _ in tensors_in(result)):
        raise NeedsValues(f"{func} reads the values of a tensor, and a ghost has none")
    return map_tree(result, torch.Tensor, named)
