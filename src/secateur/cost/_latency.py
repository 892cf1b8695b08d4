"""Measured latency: wall time of a forward on the device at hand."""

from __future__ import annotations

import contextlib
import copy
import statistics
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..capture import map_tensors, untouched

Clock = Callable[[], float]


@dataclass(frozen=True)
class Latency:
    """Seconds of one forward: median and the quartiles of all counted runs."""

    median: float
    low: float
    high: float
    runs: int

    def __str__(self) -> str:
        return f"{self.median * 1e3:.2f} ms ({self.low * 1e3:.2f} to {self.high * 1e3:.2f}, {self.runs} runs)"


def measure_latency(
    model: nn.Module | Mapping[str, nn.Module],
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    *,
    threads: int | None = None,
    device: torch.device | str | None = None,
    runs: int = 20,
    warmup: int = 3,
    clock: Clock = time.perf_counter,
) -> Any:
    """Measure the forward of one model, or of several in turn.

    Models are run in eval mode without gradients. Several models are interleaved, run by run, so
    that a change in the machine's speed meets all of them. On CUDA the device is synchronised.

    Args:
        model: a module, or a mapping of names to modules.
        args: positional inputs.
        kwargs: keyword inputs.
        threads: intra-op threads while measuring (default: as they are); given back afterwards.
        device: where to measure; copies of models and inputs are moved there. Default: where they are.
        runs: counted runs of each model.
        warmup: runs before that.
        clock: what tells the time, in seconds. ``time.process_time`` counts the time of this process
            alone, on all its threads: steadier with one thread on a machine that others use too.

    Returns:
        A :class:`Latency` in seconds, or a dict of them by name.

    Example:
        >>> import torch
        >>> measure_latency(torch.nn.Linear(8, 8), (torch.ones(1, 8),), runs=3).median > 0
        True
    """
    models = dict(model) if isinstance(model, Mapping) else {"": model}
    if device is not None:
        models = {name: copy.deepcopy(module).to(device) for name, module in models.items()}
        args, kwargs = map_tensors((args, kwargs or {}), lambda tensor: tensor.to(device))
    times: dict[str, list[float]] = {name: [] for name in models}
    with contextlib.ExitStack() as stack:
        for module in models.values():
            stack.enter_context(untouched(module))
        stack.enter_context(threads_set_to(threads))
        for run in range(warmup + runs):
            for name, module in models.items():
                seconds = _time(module, args, kwargs or {}, clock)
                if run >= warmup:
                    times[name].append(seconds)
    results = {name: _summary(values) for name, values in times.items()}
    return results if isinstance(model, Mapping) else results[""]


@contextlib.contextmanager
def threads_set_to(count: int | None) -> Generator[None]:
    """Run the body with that many intra-op threads; None leaves them as they are."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count or before)
        yield
    finally:
        torch.set_num_threads(before)


def _time(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], clock: Clock) -> float:
    cuda = any(p.is_cuda for p in model.parameters())
    if cuda:
        torch.cuda.synchronize()
    start = clock()
    model(*args, **kwargs)
    if cuda:
        torch.cuda.synchronize()
    return clock() - start


def _summary(values: list[float]) -> Latency:
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return Latency(statistics.median(values), low, high, len(values))
