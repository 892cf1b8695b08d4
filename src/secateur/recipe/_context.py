"""What the steps of a run share: the models, the data, and how figures are taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from .._errors import RecipeError
from ..axes import analyse, has_rule
from ..capture import Detail, record
from ..cost import count_macs, count_parameters, measure_latency
from ..criteria import example_count, model_inputs
from ._names import called
from ._schema import Call, Recipe, Training

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass
class Context:
    """A run at work.

    Attributes:
        recipe: what is to be done.
        folder: where results go.
        original: the model before the first step that compresses it; not changed.
    """

    recipe: Recipe
    folder: Path
    original: nn.Module

    def batches(self, purpose: str) -> Iterable[Any]:
        """An epoch of data for training or calibration, which falls back on that of training."""
        call = getattr(self.recipe.data, purpose) or self.recipe.data.train
        assert call is not None
        return called(call)

    @cached_property
    def inputs(self) -> Inputs:
        """Inputs to record the model at and to measure at: the example, or the first batch there is."""
        data = self.recipe.data
        if data.example is not None:
            return model_inputs(self.original, called(data.example))
        return model_inputs(self.original, next(iter(self.batches("calibrate"))))

    def optimizer(self, model: nn.Module, training: Training) -> Optimizer:
        """The optimizer that a step asks for."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        return called(training.optimizer, parameters)

    def score(self, model: nn.Module) -> dict[str, float]:
        """What the recipe's own function says of a model: a number, or several by name."""
        if self.recipe.evaluate is None:
            return {}
        training = [(module, module.training) for module in model.modules()]
        try:
            model.eval()
            with torch.no_grad():
                found = called(self.recipe.evaluate, model)
        finally:
            for module, flag in training:
                module.training = flag
        if isinstance(found, Mapping):
            return {str(name): float(value) for name, value in found.items()}
        return {"score": float(found)}

    def figures(self, model: nn.Module, file: Path | None = None) -> dict[str, float]:
        """MACs of one example, parameters, bytes, seconds of a forward on one thread, and the score."""
        args, kwargs = self.inputs
        analysis = analyse(record(model, args, kwargs, detail=Detail(has_rule)))
        with torch.random.fork_rng():
            latency = measure_latency(model, args, kwargs, threads=1, runs=20)
        found = {
            "MACs": count_macs(analysis) / example_count(self.inputs),
            "parameters": float(count_parameters(analysis)),
            "latency": latency.median,
        }
        if file is not None:
            found["bytes"] = float(file.stat().st_size)
        return {**self.score(model), **found}


def build(recipe: Recipe) -> nn.Module:
    """The model of a recipe, with the weights that its function gives it.

    Raises:
        RecipeError: if the function gives something else.
    """
    call: Call = recipe.model
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model = called(call)
    if not isinstance(model, nn.Module):
        raise RecipeError("the recipe", [f"model: {call.use} gives {type(model).__name__}, not an nn.Module"])
    return model
