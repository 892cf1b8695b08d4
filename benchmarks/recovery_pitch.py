"""CREPE's full model, cut to the cost of its authors' tiny one and recovered without training."""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch
from accuracy_pitch import CENTS_PER_BIN, FIRST_CENTS, crepe, pitch_accuracy, tones
from torch import nn
from torch.nn import functional as F

from secateur import KnapsackLabelSelector, PruningIR, ReconstructionCriterion, Recovery, measure_latency
from secateur.cost import Macs, count_macs

CALIBRATION, TEST, SCORED = 384, 600, 128


def score(ir: PruningIR, frames: torch.Tensor, cents: torch.Tensor) -> None:
    """Scores by the loss that the network was trained with: bumps of 25 cents around the pitch."""
    bins = FIRST_CENTS + CENTS_PER_BIN * torch.arange(360.0)
    wanted = torch.exp(-((bins - cents[:, None]) ** 2) / (2 * 25**2))
    with ReconstructionCriterion(ir) as collect:
        for part, bump in zip(frames.split(32), wanted.split(32), strict=True):
            F.binary_cross_entropy(collect(part).clamp(1e-6, 1 - 1e-6), bump).backward()


def pitch_lines() -> Iterable[str]:
    """A section with raw pitch accuracy at several costs."""
    full, tiny = crepe("full"), crepe("tiny")
    frames, cents = tones(TEST, 1)
    learn, known = tones(CALIBRATION, 7)
    args = (frames[:16],)
    ir = PruningIR(full)
    ir.create_snapshot("main", args=(frames[:1],))
    score(ir, learn[:SCORED], known[:SCORED])
    most = count_macs(ir.snapshot().analysis)
    small_ir = PruningIR(tiny)
    least = count_macs(small_ir.create_snapshot("main", args=(frames[:1],)).analysis)
    yield "## Pitch of synthesised tones: CREPE\n"
    yield f"{TEST} frames to test, {CALIBRATION} others to calibrate; raw pitch accuracy within 50 cents.\n"
    yield "| model | MACs a frame | latency of 16 frames, ms | after the cut | recovered | CPU s |"
    yield "|---|---|---|---|---|---|"
    yield _line("full, as it is", full, most, args, pitch_accuracy(full, frames, cents))
    yield _line("tiny, trained by its authors", tiny, least, args, pitch_accuracy(tiny, frames, cents))
    for target in (2 * least, least):
        labels = KnapsackLabelSelector(target, Macs(), verbose=False).select(ir)
        small = ir.prune(labels=labels)
        cut = pitch_accuracy(small.model, frames, cents)
        start = time.process_time()
        small.recover(Recovery(learn.split(32)))
        seconds = time.process_time() - start
        assert small.report is not None
        found = pitch_accuracy(small.model, frames, cents)
        yield _line(
            "full, cut", small.model, small.report.macs[1], args, found, f"{cut:.1f}", f"{seconds:.0f}"
        )
    yield ""


def _line(
    name: str,
    model: nn.Module,
    macs: int,
    args: tuple[torch.Tensor],
    accuracy: float,
    cut: str = "",
    seconds: str = "",
) -> str:
    latency = 1000 * measure_latency(model, args, threads=1).median
    return f"| {name} | {macs / 1e6:.1f} M | {latency:.1f} | {cut} | {accuracy:.1f} | {seconds} |"
