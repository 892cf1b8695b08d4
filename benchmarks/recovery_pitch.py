"""CREPE's full model, cut to the cost of its authors' tiny one and recovered without training."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

import torch
from accuracy_pitch import CENTS_PER_BIN, FIRST_CENTS, crepe, pitch_accuracy, tones
from torch import nn
from torch.nn import functional as F

from secateur import KnapsackLabelSelector, PruningIR, ReconstructionCriterion, Recovery, measure_latency
from secateur.cost import LatencyTable, Macs, count_macs

CALIBRATION, TEST, SCORED = 4096, 400, 256
NOISE = (-2.0, 20.0)
"""Signal-to-noise ratios of the tones to calibrate with, in decibels."""
TESTED = (inf, 10.0, 5.0, 0.0)
"""Those of the tests."""


@dataclass
class Row:
    """A line of the table: a model, its accuracies, those right after the cut, CPU time of the recovery."""

    model: nn.Module
    found: str
    cut: str = ""
    seconds: str = ""


def score(ir: PruningIR, frames: torch.Tensor, cents: torch.Tensor) -> None:
    """Scores by the loss that the network was trained with: bumps of 25 cents around the pitch."""
    bins = FIRST_CENTS + CENTS_PER_BIN * torch.arange(360.0)
    wanted = torch.exp(-((bins - cents[:, None]) ** 2) / (2 * 25**2))
    with ReconstructionCriterion(ir) as collect:
        for part, bump in zip(frames.split(32), wanted.split(32), strict=True):
            F.binary_cross_entropy(collect(part).clamp(1e-6, 1 - 1e-6), bump).backward()


def accuracies(model: nn.Module) -> str:
    """At every noise that is tested."""
    tests = [tones(TEST, 1 + number, (ratio, ratio)) for number, ratio in enumerate(TESTED)]
    return " / ".join(f"{pitch_accuracy(model, *test):.1f}" for test in tests)


def recovered(ir: PruningIR, selector: KnapsackLabelSelector, learn: torch.Tensor) -> Row:
    """What a selection leaves of the full model."""
    small = ir.prune(labels=selector.select(ir))
    cut = accuracies(small.model)
    start = time.process_time()
    small.recover(Recovery(learn.split(64)))
    seconds = time.process_time() - start
    return Row(small.model, accuracies(small.model), cut, f"{seconds:.0f}")


def macs(model: nn.Module, frames: torch.Tensor) -> int:
    """Multiply-accumulates of a frame."""
    return count_macs(PruningIR(model).create_snapshot("main", args=(frames[:1],)).analysis)


def pitch_lines() -> Iterable[str]:
    """A section with raw pitch accuracy at the cost of the tiny model."""
    full, tiny = crepe("full"), crepe("tiny")
    learn, known = tones(CALIBRATION, 7, NOISE)
    call = (learn[:16],)
    ir = PruningIR(full)
    ir.create_snapshot("main", args=call)
    score(ir, learn[:SCORED], known[:SCORED])
    table = LatencyTable(call, threads=1, clock=time.process_time)
    targets = {"MACs": (16 * macs(tiny, learn), Macs()), "latency": (table(tiny), table)}
    rows = {
        "full, as it is": Row(full, accuracies(full)),
        "tiny, trained by its authors": Row(tiny, accuracies(tiny)),
    }
    for name, (target, cost) in targets.items():
        selector = KnapsackLabelSelector(target, cost, verbose=False)
        rows[f"full, cut to the {name} of tiny"] = recovered(ir, selector, learn)
    models = {name: row.model for name, row in rows.items()}
    latencies = measure_latency(models, call, threads=1, clock=time.process_time)
    yield "## Pitch of synthesised tones: CREPE\n"
    noises = " / ".join("clean" if ratio == inf else f"{ratio:.0f} dB" for ratio in TESTED)
    yield (
        f"Raw pitch accuracy within 50 cents, in per cent, of {TEST} frames each, clean and with pink noise: "
        f"{noises}. Calibration: {CALIBRATION} other frames, with noise at {NOISE[0]:.0f} to {NOISE[1]:.0f} "
        "dB. Latency is CPU time.\n"
    )
    yield "| model | MACs a frame | latency of 16 frames, ms | after the cut | accuracy | recovery, CPU s |"
    yield "|---|---|---|---|---|---|"
    for name, row in rows.items():
        yield (
            f"| {name} | {macs(row.model, learn) / 1e6:.1f} M | {1000 * latencies[name].median:.1f} | "
            f"{row.cut} | {row.found} | {row.seconds} |"
        )
    yield ""
