"""Measured latency: wall time of a forward on the device at hand."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import statistics
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..capture import map_tensors, untouched

Clock = Callable[[], float]

LARGEST_KEPT = 31 * 2**20
"""Bytes: glibc keeps freed blocks of up to 32 MiB, once it has seen that such ones are freed."""


@dataclass(frozen=True)
class Latency:
    """Seconds of one forward: median and the quartiles of all counted runs.

    ``times`` are the runs themselves, in their order: those of models that were measured together
    belong together.
    """

    median: float
    low: float
    high: float
    runs: int
    times: tuple[float, ...] = field(default=(), repr=False)

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
    precision: float | None = None,
    seconds: float = 5.0,
    clock: Clock = time.perf_counter,
) -> Any:
    """Measure the forward of one model, or of several in turn.

    Models are run in eval mode without gradients. Several models are interleaved, run by run, so
    that a change in the machine's speed meets all of them. On CUDA the device is synchronised. The memory
    allocator is brought into the state that it comes to in a process that has run larger models, since a
    young one gives memory back to the system and faults it in again at each run: that made mobilenet_v2
    27 % slower, and twice in a row not by the same.

    Args:
        model: a module, or a mapping of names to modules.
        args: positional inputs.
        kwargs: keyword inputs.
        threads: intra-op threads while measuring (default: as they are); given back afterwards.
        device: where to measure; copies of models and inputs are moved there. Default: where they are.
        runs: counted runs of each model.
        warmup: runs before that.
        precision: go on beyond ``runs`` until the standard error of the median, as a share of it, is no
            larger: with several models that of the ratio to the first one, run by run. None: do not.
        seconds: but no longer than this.
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
        _settle_allocator()
        start = time.perf_counter()
        for run in itertools.count():
            if run >= warmup + runs and (
                precision is None
                or _uncertainty(list(times.values())) <= precision
                or time.perf_counter() - start >= seconds
            ):
                break
            for name, module in models.items():
                taken = _time(module, args, kwargs or {}, clock)
                if run >= warmup:
                    times[name].append(taken)
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


def _settle_allocator() -> None:
    """Make the C library keep the memory of freed tensors, as it does by itself after some large ones.

    glibc maps blocks above a threshold anew each time; freeing a mapped block raises the threshold to its
    size. Other allocators are not impressed.
    """
    torch.empty(LARGEST_KEPT, dtype=torch.uint8)


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
    return Latency(statistics.median(values), low, high, len(values), tuple(values))


def _uncertainty(times: Sequence[Sequence[float]]) -> float:
    """The largest standard error among the medians, as a share: of times, or of ratios to the first."""
    first, *others = times
    rows = [paired_ratios(other, first) for other in others] or [first]
    return max(_standard_error(row) for row in rows)


def _standard_error(values: Sequence[float]) -> float:
    """That of the median of normal values, as a share of it, by the distance between quartiles."""
    if len(values) < 2:
        return math.inf
    low, middle, high = statistics.quantiles(values, n=4)
    return 1.2533 * (high - low) / 1.349 / math.sqrt(len(values)) / middle


def paired_ratios(times: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Run by run, how much longer one model took than another that was measured in turn with it.

    >>> paired_ratios([2.0, 3.0], [4.0, 4.0])
    [0.5, 0.75]
    """
    return [time / max(other, 1e-12) for time, other in zip(times, reference, strict=True)]
