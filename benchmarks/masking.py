"""What masks cost while a model is trained, and what it takes to make them anew.

    python benchmarks/masking.py [--rounds 15] [--step-limit 1.05] [--masks-limit 0.5]

One thread. A step is forward, loss, backward and optimizer; steps with and without masks are taken in turn
on two copies of the same model, and the figure is the median of the ratios. Masks cover all weights but
those of the last layer, whole channels at a ratio of 0.5. Ends with 1 if a limit is exceeded.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.compression.pruning import L1NormPruner, LevelPruner, Pruner

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from digits import DigitNet

Step = Callable[[], float]


def config(model: nn.Module) -> list[dict[str, object]]:
    last = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
    return [{"op_types": ["Conv2d", "Linear"], "exclude_op_names": [last], "sparse_ratio": 0.5}]


def stepper(model: nn.Module, x: Tensor, labels: Tensor) -> Step:
    """Takes one step of training and returns its seconds."""
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    model.train()

    def step() -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()
        return time.perf_counter() - start

    return step


def step_ratio(model: nn.Module, x: Tensor, rounds: int) -> tuple[float, float, float]:
    """Median seconds of a plain and of a masked step, and the median of their ratios."""
    labels = torch.arange(len(x)) % 10
    masked = copy.deepcopy(model)
    L1NormPruner(masked, config(masked)).compress()
    plain_step, masked_step = stepper(model, x, labels), stepper(masked, x, labels)
    pairs = []
    for number in range(rounds + 2):
        pair = (plain_step(), masked_step()) if number % 2 else (masked_step(), plain_step())[::-1]
        if number >= 2:  # the first two warm up
            pairs.append(pair)
    plain, other = zip(*pairs, strict=True)
    ratio = statistics.median(b / a for a, b in pairs)
    return statistics.median(plain), statistics.median(other), ratio


def masks_seconds(make: type[Pruner], rounds: int = 5) -> float:
    """Median seconds to make all masks of a ResNet-50 anew."""
    model = torchvision.models.resnet50(weights=None)
    pruner = make(model, config(model))
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        pruner.generate_masks()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="pairs of steps")
    parser.add_argument("--step-limit", type=float, default=1.05, help="of a masked step, in plain steps")
    parser.add_argument("--masks-limit", type=float, default=0.5, help="of making masks, in seconds")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    models = {
        "digits CNN, 64 images": (DigitNet(), torch.randn(64, 1, 8, 8)),
        "vit_xsmall, 8 images of 224 x 224": (
            timm.create_model("vit_xsmall_patch16_clip_224", num_classes=10), torch.randn(8, 3, 224, 224),
        ),
    }  # fmt: skip
    good = True
    print("| step of training | plain (ms) | masked (ms) | ratio |\n|---|---|---|---|")
    for name, (model, x) in models.items():
        plain, masked, ratio = step_ratio(model, x, options.rounds)
        good &= ratio <= options.step_limit
        print(f"| {name} | {plain * 1e3:.1f} | {masked * 1e3:.1f} | {ratio:.3f} |", flush=True)
    print("\n| masks of resnet50 | seconds |\n|---|---|")
    for kind, make in {"filters, L1": L1NormPruner, "elements, level": LevelPruner}.items():
        seconds = masks_seconds(make)
        good &= seconds <= options.masks_limit
        print(f"| {kind} | {seconds:.3f} |", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
