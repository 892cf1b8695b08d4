"""Handwritten digits in small steps: score, cut a little, fine-tune, and again, as long as accuracy holds.

    python examples/iterative_digits.py --out build/iterative

Half of the unseen digits decide when to stop, the other half says what the best model is worth. The model
of every step and three pictures go to the folder ``--out``; the best model is loaded back from there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from digits import DigitNet, Digits, stage, train
from torch import nn
from torch.nn import functional as F

import secateur
from secateur.iterative import Iterative, load_best
from secateur.report import plot_accuracy, plot_scores, plot_widths

Batch = tuple[torch.Tensor, torch.Tensor]


def accuracy(model: nn.Module, batch: Batch) -> float:
    """Share of the images whose digit is recognised."""
    with torch.no_grad():
        return float((model.eval()(batch[0]).argmax(1) == batch[1]).float().mean())


def run(out: Path, epochs: int, tuning: int, width: int, steps: int, target: float) -> None:
    """Train, prune step by step, load the best step back, draw."""
    torch.manual_seed(0)
    digits = Digits()
    images, labels = digits.test
    deciding, judging = (images[::2], labels[::2]), (images[1::2], labels[1::2])

    def factory() -> DigitNet:
        return DigitNet(width)

    model = factory()
    with stage(f"training for {epochs} epochs"):
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
        train(model, optimizer, digits, epochs, lr=0.1)
    before = accuracy(model, deciding)

    calibration = list(digits.batches())

    def score(ir: secateur.PruningIR) -> None:
        with secateur.ReconstructionCriterion(ir) as collect:
            for x, y in calibration:
                F.cross_entropy(collect(x), y).backward()

    def cut(ir: secateur.PruningIR, labels: list[secateur.Label]) -> secateur.PruningIR:
        small = ir.prune(labels=labels, compensate="least_squares", calibration=calibration)
        secateur.recalibrate_batchnorm(small.model, calibration)
        return small

    def finetune(model: nn.Module) -> None:
        optimizer = torch.optim.SGD(model.parameters(), 0.03, momentum=0.9, weight_decay=5e-4)
        train(model, optimizer, digits, tuning, lr=0.03)

    ir = secateur.PruningIR(model)
    with stage(f"pruning to {target:.0%} of the MACs in {steps} steps"):
        result = secateur.prune_iteratively(
            ir,
            target=target,
            steps=steps,
            score=score,
            cut=cut,
            finetune=finetune,
            evaluate=lambda model: accuracy(model, deciding),
            limit=before - 0.01,
            checkpoints=out,
        )
    best, history = load_best(factory, out)
    print(f"the best is step {history.best.number}: {history.best.share:.1%} of the MACs")
    first, now = accuracy(model, judging), accuracy(best, judging)
    print(f"accuracy on the other half: {first:.1%} before, {now:.1%} now")
    draw(ir, result, images[:64], out)


def draw(ir: secateur.PruningIR, result: Iterative, images: torch.Tensor, out: Path) -> None:
    """The scores of the first step, the widths of the best one, and accuracy against latency."""
    steps = result.history.steps
    width = int(ir.model.get_parameter("stem.weight").shape[0])
    models = {
        step.number: secateur.load(lambda: DigitNet(width), out / f"step-{step.number:03}.safetensors").eval()
        for step in steps
    }
    latency = secateur.measure_latency(models, (images,), threads=1, runs=20)
    points = [(1e3 * latency[step.number].median, float(step.metric or 0)) for step in steps]
    plot_scores(ir.scores(), title="scores before the first step").savefig(out / "scores.svg")
    plot_accuracy({"steps": points}, latency="latency of 64 images [ms]").savefig(out / "accuracy.svg")
    if result.ir.report is not None:
        plot_widths(result.ir.report, title="the last cut of the best model").savefig(out / "widths.svg")
    print(f"pictures and checkpoints are in {out}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/iterative"), help="where results go")
    parser.add_argument("--epochs", type=int, default=8, help="of training")
    parser.add_argument("--tuning", type=int, default=2, help="epochs of fine-tuning after each step")
    parser.add_argument("--width", type=int, default=24, help="channels of the first layers")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--target", type=float, default=0.1, help="share of the MACs to be left")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    run(options.out, options.epochs, options.tuning, options.width, options.steps, options.target)


if __name__ == "__main__":
    main()
