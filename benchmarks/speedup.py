"""The tables of NNI's ModelSpeedup documentation, as ratios on the machine at hand.

    python benchmarks/speedup.py                          # all four networks, then ResNet-18 over ratios
    python benchmarks/speedup.py --only 'l1*' --batches 1 --repeat 9
    python benchmarks/speedup.py --table docs/speedup-latency.md

Masked model against small model in the same process, runs interleaved, medians. Weights are random
(no trained weights are needed for a latency): BatchNorm factors and statistics are drawn, so that
slimming and constants mean something. ``batches`` are batches of 64 x 3 x 32 x 32 (64 x 1 x 28 x 28 for
the MNIST network), one after the other.
"""

from __future__ import annotations

import argparse
import fnmatch
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from models import randomise
from processes import version_line
from speedup_zoo import build, grouped, masked_copy, masked_layers
from torch import Tensor, nn
from torch.nn import functional as F

import secateur

BATCHES = (1, 2, 4, 8, 16, 32)
RATIOS = (0.1, 0.3, 0.5, 0.7, 0.9)
NNI = {"slim": 0.97, "l1": 1.44, "apoz": 1.45, "fpgm": 1.55}
"""Masked over compact with NNI 3.0 on one CPU thread, as measured for this project."""

Masks = Mapping[str, Mapping[str, Tensor]]
Case = tuple[nn.Module, Masks, Tensor]

_VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)
_VGG19 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512)


class Vgg(nn.Module):
    """VGG for images of 32 x 32, with BatchNorm; the numbers are widths, 0 is a pool."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in widths:
            if not width:
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.feature = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(self.feature(x), 2)
        return self.classifier(x.view(x.size(0), -1))


class Mnist(nn.Module):
    """The MNIST network of NNI's FPGM example."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5, 1), nn.Conv2d(20, 50, 5, 1)
        self.fc1, self.fc2 = nn.Linear(4 * 4 * 50, 500), nn.Linear(500, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2, 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2, 2)
        x = x.view(-1, x.size()[1:].numel())
        return F.log_softmax(self.fc2(F.relu(self.fc1(x))), dim=1)


def _rows(module: nn.Module, keep: Tensor) -> dict[str, Tensor]:
    weight = module.get_parameter("weight")
    keep = keep.float()
    masks = {"weight": keep.reshape(-1, *[1] * (weight.dim() - 1)).expand_as(weight).clone()}
    return masks if module._parameters.get("bias") is None else masks | {"bias": keep}


def _best(scores: Tensor, ratio: float) -> Tensor:
    keep = torch.ones_like(scores, dtype=torch.bool)
    keep[scores.argsort()[: int(len(scores) * ratio)]] = False
    return keep


def slim() -> Case:
    """VGG-19, 70 % of all BatchNorm factors, by one threshold."""
    model = randomise(Vgg(_VGG19)).eval()
    norms = {name: m for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    factors = {name: norm.weight.detach().abs() for name, norm in norms.items()}
    threshold = torch.cat(list(factors.values())).quantile(0.7)
    keep = {name: (f >= threshold) | (f == f.max()) for name, f in factors.items()}  # no layer is empty
    return model, {name: _rows(norms[name], k) for name, k in keep.items()}, torch.randn(64, 3, 32, 32)


_CHOSEN = [f"feature.{index}" for index in (0, 24, 27, 30, 34, 37)]


def l1() -> Case:
    """VGG-16, half of the filters of six layers, by their L1 norms."""
    model = randomise(Vgg(_VGG16)).eval()
    masks = {}
    for name in _CHOSEN:
        module = model.get_submodule(name)
        masks[name] = _rows(
            module, _best(module.get_parameter("weight").detach().abs().flatten(1).sum(1), 0.5)
        )
    return model, masks, torch.randn(64, 3, 32, 32)


def apoz() -> Case:
    """VGG-16, half of the filters of six layers, by how often ReLU leaves nothing of them."""
    model, _, x = l1()
    zeros: dict[str, Tensor] = {}

    def count(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: object, output: Tensor) -> None:
            zeros[name] = (output <= 0).double().mean((0, 2, 3))

        return hook

    index = {name: f"feature.{int(name.split('.')[1]) + 1}" for name in _CHOSEN}  # the norm after it
    handles = [model.get_submodule(norm).register_forward_hook(count(name)) for name, norm in index.items()]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return model, {n: _rows(model.get_submodule(n), _best(1 - zeros[n], 0.5)) for n in _CHOSEN}, x


def fpgm() -> Case:
    """The MNIST network, half of the filters of both convolutions, by distance to the others."""
    model = randomise(Mnist()).eval()
    masks = {}
    for name in ("conv1", "conv2"):
        module = model.get_submodule(name)
        filters = module.get_parameter("weight").detach().flatten(1)
        masks[name] = _rows(module, _best(torch.cdist(filters, filters).sum(1), 0.5))
    return model, masks, torch.randn(64, 1, 28, 28)


CASES: dict[str, Callable[[], Case]] = {"slim": slim, "l1": l1, "apoz": apoz, "fpgm": fpgm}


def resnet18(ratio: float) -> Case:
    """ResNet-18, a share of the channels of every group, by the sum of the L1 norms."""
    model = build("resnet18")
    x = torch.randn(8, 3, 128, 128)
    return model, grouped(model, masked_layers("resnet18", model), (x,), ratio), x


def interleaved(
    first: nn.Module, second: nn.Module, x: Tensor, batches: int, repeat: int
) -> tuple[float, float]:
    """Median seconds of both, measured in turns."""
    seconds: tuple[list[float], list[float]] = ([], [])
    with torch.no_grad():
        for turn in range(repeat + 1):
            for model, own in zip((first, second), seconds, strict=True):
                start = time.perf_counter()
                for _ in range(batches):
                    model(x)
                if turn:  # the first warms up
                    own.append(time.perf_counter() - start)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def compare(name: str, case: Case, counts: tuple[int, ...], repeat: int) -> Iterator[str]:
    """Rows of a table."""
    model, masks, x = case
    masked = masked_copy(model, masks)
    report = secateur.speedup(model, (x,), masks=masks)
    sizes = f"{report.parameters[0] / 1e6:.2f} → {report.parameters[1] / 1e6:.2f}"
    work = f"{report.macs[0] / len(x) / 1e6:.0f} → {report.macs[1] / len(x) / 1e6:.0f}"
    for batches in counts:
        before, after = interleaved(masked, model, x, batches, max(3, repeat // batches))
        yield (
            f"| {name} | {batches} | {sizes} | {work} | {before * 1e3:.1f} | {after * 1e3:.1f} "
            f"| {before / after:.2f} | {NNI.get(name, '')} | {report.error:.1e} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="*", help="names, as a shell pattern")
    parser.add_argument(
        "--repeat", type=int, default=11, help="runs of one batch; fewer of more batches, but three at least"
    )
    parser.add_argument(
        "--batches", type=int, nargs="+", default=BATCHES, help="how many, one after the other"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", type=Path, help="write the table there as well")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    lines = [
        "# Latency of masked and small models",
        "",
        "`python benchmarks/speedup.py` prints this; what is measured, and how, is said there.",
        "",
        f"Measured with {version_line()}. Medians of {given.repeat} runs of one batch, of three at least.",
        "",
        "| network | batches | parameters M | MMACs an image | masked ms | small ms "
        "| ratio | NNI 3.0 | error |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    jobs = [(name, make, tuple(given.batches)) for name, make in CASES.items()]
    jobs += [(f"resnet18 {r:.0%}", lambda r=r: resnet18(r), (1,)) for r in RATIOS]
    for name, make, counts in jobs:
        if fnmatch.fnmatch(name, given.only):
            for line in compare(name, make(), counts, given.repeat):
                print(line, flush=True)
                lines.append(line)
    if given.table is not None:
        given.table.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
