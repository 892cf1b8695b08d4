"""Handwritten digits: train a network, prune it, verify, recover, fine-tune, save, load it back.

Run it with ``make demo``. Everything is real: 1797 images of digits that people wrote (they come
with scikit-learn), a fixed split of which a third is never trained on, and latencies that are
measured, run by run in turn. The pruned model goes to the folder ``--out``, and so do the table and a
picture of it, unless ``--images`` names another one (``docs/images`` is what README shows).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F

import secateur

STAGES = ("before", "after the cut", "recovered, untrained", "after fine-tuning")
COLUMNS = ("accuracy", "MACs", "parameters", "latency")


# -- the network: an ordinary one, which knows nothing of pruning ----------------------------------


class Block(nn.Module):
    """Two convolutions with a shortcut around them."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, inputs, h, w) to (batch, outputs, h / stride, w / stride)."""
        inner = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


class DigitNet(nn.Module):
    """A small residual network for images of 8 by 8 pixels."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.blocks = nn.Sequential(
            Block(width, width),
            Block(width, width),
            Block(width, 2 * width, stride=2),
            Block(2 * width, 2 * width),
        )
        self.head = nn.Linear(2 * width, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, 1, 8, 8) to (batch, 10): a score for each digit."""
        features = self.blocks(F.relu(self.stem(images)))
        return self.head(features.mean((2, 3)))


# -- data, training, and what is measured ----------------------------------------------------------


class Digits:
    """The images, split once and for all."""

    def __init__(self) -> None:
        images, labels = load_digits(return_X_y=True)
        images = torch.from_numpy(images).float().reshape(-1, 1, 8, 8) / 16
        labels = torch.from_numpy(labels)
        train, test = train_test_split(range(len(labels)), test_size=1 / 3, random_state=0, stratify=labels)
        self.train = images[train], labels[train]
        self.test = images[test], labels[test]

    def batches(self, size: int = 64) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """One epoch of shuffled training batches, each image moved by up to a pixel."""
        images, labels = self.train
        for rows in torch.randperm(len(labels)).split(size):
            down, right = torch.randint(3, (2,)).tolist()
            padded = F.pad(images[rows], (1, 1, 1, 1))
            yield padded[:, :, down : down + 8, right : right + 8], labels[rows]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, digits: Digits, epochs: int, lr: float) -> None:
    """Train for some epochs at a learning rate that falls from ``lr`` to nothing."""
    model.train()
    for epoch in range(epochs):
        for images, labels in digits.batches():
            for group in optimizer.param_groups:
                group["lr"] = lr * (1 - epoch / epochs)
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, digits: Digits) -> float:
    """Share of the test images whose digit is recognised."""
    images, labels = digits.test
    return (model(images).argmax(1) == labels).float().mean().item()


@contextmanager
def stage(title: str) -> Iterator[None]:
    print(f"{title} ...", flush=True)
    start = time.perf_counter()
    yield
    print(f"  {time.perf_counter() - start:.1f} s", flush=True)


# -- results ---------------------------------------------------------------------------------------


def table(rows: dict[str, dict[str, float]]) -> str:
    """The results as a Markdown table."""
    lines = ["| | accuracy on unseen digits | MACs | parameters | latency of 64 images |"]
    lines.append("|---|---|---|---|---|")
    for name, row in rows.items():
        cells = [name, *(text_of(column, row[column]) for column in COLUMNS)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def text_of(column: str, value: float) -> str:
    """A number as it is shown in its column."""
    unit, text = {
        "accuracy": (1, "{:.1%}"),
        "MACs": (1e-6, "{:.2f} M"),
        "parameters": (1e-3, "{:.0f} k"),
        "latency": (1e3, "{:.1f} ms"),
    }[column]
    return text.format(value * unit)


def draw(rows: dict[str, dict[str, float]], path: Path) -> None:
    """The results as bars: what each stage has of what there was before."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.8), layout="constrained")
    panels = zip(figure.subplots(1, 4), COLUMNS, strict=True)
    for axes, column in panels:
        values = [rows[name][column] for name in STAGES]
        bars = axes.barh(STAGES, values, color=["#9aa5b1", "#e0a030", "#4c9fb0", "#2f855a"])
        axes.bar_label(bars, [text_of(column, value) for value in values], padding=3)
        axes.set_title(column)
        axes.set_xlim(0, max(values) * 1.6)
        axes.invert_yaxis()
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.set_xticks([])
        axes.tick_params("y", length=0, labelleft=column == COLUMNS[0])
    # The same file for the same numbers; text stays text.
    with mpl.rc_context({"svg.hashsalt": "digits", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})


# -- the main job ----------------------------------------------------------------------------------


def run(out: Path, epochs: int, tuning: int, width: int) -> dict[str, dict[str, float]]:
    """Train, prune, fine-tune, save, load; returns the numbers of each stage."""
    torch.manual_seed(0)
    digits = Digits()
    x = digits.test[0][:64]

    def factory() -> DigitNet:
        return DigitNet(width)

    model = factory()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    with stage(f"training on {len(digits.train[1])} digits for {epochs} epochs"):
        train(model, optimizer, digits, epochs, lr=0.1)

    with stage("pruning half of every group of channels"):
        ir = secateur.PruningIR(model)
        ir.create_snapshot("main", args=(x,))
        pruned = ir.prune(labels=secateur.UniformLabelSelector(0.5).select(ir))
        small, report = pruned.model, pruned.report
        print(f"  {report.verification}")
    cut = secateur.load(factory, saved(small, out / "cut.safetensors"))

    with stage("solving for the layers behind the cut, without labels or training"):
        pruned.recover(digits.batches())
    recovered = secateur.load(factory, saved(small, out / "recovered.safetensors"))

    with stage(f"fine-tuning for {tuning} epochs, with the same optimizer"):
        secateur.carry_optimizer(optimizer, report)
        train(small, optimizer, digits, tuning, lr=0.02)

    path = saved(small, out / "digits.safetensors")
    again = secateur.load(factory, path)
    with torch.no_grad():
        if not torch.equal(again.eval()(digits.test[0]), small(digits.test[0])):
            raise SystemExit("the model that was loaded predicts something else than the one saved")
    print(f"loaded from {path} ({path.stat().st_size / 1e3:.0f} kB): the same predictions")

    models = dict(zip(STAGES, (model, cut.eval(), recovered.eval(), small), strict=True))
    with stage("measuring latency on one thread"):
        latency = secateur.measure_latency(models, (x,), threads=1, runs=100)
    return {
        name: {
            "accuracy": accuracy(network, digits),
            "MACs": report.macs[network is not model] / len(x),
            "parameters": report.parameters[network is not model],
            "latency": latency[name].median,
        }
        for name, network in models.items()
    }


def saved(model: nn.Module, path: Path) -> Path:
    """The file that a model was saved to."""
    secateur.save(model, path)
    return path


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/digits"), help="where results go")
    parser.add_argument("--images", type=Path, help="where table and picture go instead")
    parser.add_argument("--epochs", type=int, default=12, help="of training")
    parser.add_argument("--tuning", type=int, default=5, help="epochs of fine-tuning")
    parser.add_argument("--width", type=int, default=64, help="channels of the first layers")
    options = parser.parse_args(arguments)
    images = options.images or options.out
    for folder in (options.out, images):
        folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # the same numbers everywhere, also where others are at work
    rows = run(options.out, options.epochs, options.tuning, options.width)
    text = table(rows)
    (images / "digits.md").write_text(text + "\n", encoding="utf-8")
    draw(rows, images / "digits.svg")
    print(f"\n{text}\n\nThe picture is in {images / 'digits.svg'}")


if __name__ == "__main__":
    main()
