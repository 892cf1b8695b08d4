"""``speedup``: masks in, a smaller model with the same outputs out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from .._errors import MaskError
from .._snapshot import LeafModules, Settings
from ..capture import unwrap
from ..masks import MaskDict, Masks, check_masks, prune_masks, read_masks, zero_masks
from ..surgery import Undo
from ._bake import strip_pruning
from ._engine import Engine
from ._report import SpeedupReport


def speedup(
    model: nn.Module,
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    masks: MaskDict | str | Path | None = None,
    *,
    on_inexact: Literal["fold", "keep", "raise"] = "fold",
    statistics: Literal["keep", "shrink"] = "keep",
    verify: bool = True,
    leaf_modules: LeafModules | None = None,
    ignore: Iterable[str | nn.Module | nn.Parameter] = (),
) -> SpeedupReport:
    """Make a masked model smaller, in place, so that it computes what the masked model computed.

    Positions that a mask makes constant are followed through the recorded graph, by value; a
    position is removed where all layers that read it can take its constant into their biases, or
    where nothing reads it. What was masked and cannot be removed stays masked: it is zero in the
    weights.

    Args:
        model: any ``nn.Module``. Its training flags come back as they were.
        args: positional inputs to record the model at and to compare outputs on.
        kwargs: keyword inputs, likewise.
        masks: ``{module: {target: mask}}``, one for keep, or the path of a file that holds it. A
            target is the name of a parameter of the module, ``_input_<i>`` or ``_output_<i>``; a
            dimension of a mask may be 1. None takes the masks that ``torch.nn.utils.prune`` left on
            the model and removes its hooks; ``"zeros"`` takes weights that are exactly zero.
        on_inexact: where a constant cannot be folded exactly, as at the border of a zero-padded
            convolution: ``"fold"`` what it is on the average and report the error, ``"keep"`` the
            position, or ``"raise"``.
        statistics: what to do with constants over which a norm or a mean is taken: ``"keep"`` them, or
            ``"shrink"`` the norm, which changes what it divides by; the error is reported.
        verify: compare outputs with the masked model's, on the inputs and on random ones like them.
        leaf_modules: modules whose inside is not to be looked at (paths, classes or modules).
        ignore: modules or parameters whose outputs are to stay as they are.

    Raises:
        MaskError: for masks that do not fit the model.
        CaptureError: if the model cannot be run on the inputs.
        SurgeryError: if a mask cannot be realised, or with ``on_inexact="raise"``.
        VerificationError: if outputs differ though everything is exact. In every case the model is
            as it was.

    Example:
        >>> import torch, secateur
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> mask = torch.ones(8, 4)
        >>> mask[:3] = 0
        >>> report = secateur.speedup(net, (torch.ones(1, 4),), masks={"0": {"weight": mask}})
        >>> net[0], report.exact
        (Linear(in_features=4, out_features=5, bias=True), True)
    """
    if isinstance(args, torch.Tensor) or not isinstance(args, (tuple, list)):
        raise TypeError(f"args is the tuple of positional inputs, got {type(args).__name__}: write args=(x,)")
    inner = unwrap(model)
    undo = Undo()
    try:
        found = gather(inner, masks, undo)
        settings = Settings(tuple(leaf_modules or ()), True, "both", tuple(ignore))
        engine = Engine(
            inner, tuple(args), dict(kwargs or {}), found, on_inexact, statistics, verify, settings
        )
        return run(engine)
    except BaseException:
        undo.restore()
        raise


def gather(model: nn.Module, masks: MaskDict | str | Path | None, undo: Undo) -> Masks:
    """The masks that are meant, checked against the model."""
    if masks is None:
        found = prune_masks(model)
        if not found:
            raise MaskError(
                f"{type(model).__name__} has no masks of torch.nn.utils.prune. Give "
                'masks={module: {target: tensor}}, or masks="zeros" to take zeros in the weights for masks.'
            )
        strip_pruning(model, undo)
        return check_masks(found, model)
    if isinstance(masks, str) and masks == "zeros":
        return zero_masks(model)
    if isinstance(masks, (str, Path)):
        return check_masks(read_masks(masks), model)
    return check_masks(masks, model)


def run(engine: Engine) -> SpeedupReport:
    """All stages in order."""
    engine.record()
    engine.infer()
    engine.decide()
    return engine.operate()
