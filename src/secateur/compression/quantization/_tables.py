"""Tables of embeddings that cannot be read on a grid."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from ..._errors import QuantizationError
from ..config import Target, TargetKind


def check_tables(model: nn.Module, targets: Iterable[Target], *, sparse: bool) -> None:
    """Refuse embeddings whose module writes to its table, or has gradients that do not pass the rounding.

    Args:
        model: the model.
        targets: what is quantised; a table may be a target by the name of another module that shares it.
        sparse: whether sparse gradients pass.

    Raises:
        QuantizationError: for an embedding with ``max_norm``, or with ``sparse`` gradients that do not pass.
    """
    by_weight = {
        id(model.get_submodule(target.module)._parameters.get(target.name)): target
        for target in targets
        if target.kind is TargetKind.PARAMETER
    }
    for path, module in model.named_modules():
        if not isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            continue
        target = by_weight.get(id(module._parameters.get("weight")))
        if target is not None and module.max_norm is not None:
            raise QuantizationError(
                f"{target.path}: {path!r} has max_norm={module.max_norm}, so it shortens rows of what it "
                "reads, which are not on the grid then: shorten the weight once, and set max_norm to None"
            )
        if target is not None and module.sparse and not sparse:
            raise QuantizationError(
                f"{target.path}: {path!r} has sparse gradients, which do not pass this rounding: set its "
                "sparse to False, or take QATQuantizer"
            )
