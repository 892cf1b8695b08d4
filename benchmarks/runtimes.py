"""One model in every runtime that Secateur writes files for: size, time, and agreement with the simulation.

    python benchmarks/runtimes.py                       # both models, about 10 minutes
    python benchmarks/runtimes.py --model digits --way onnx --way executorch
    python benchmarks/runtimes.py --table docs/benchmarks-runtimes.md

Models: a residual network on scikit-learn's digits (64 images at a time), and EfficientNet-Lite0 with its
ImageNet weights on crops of photographs (one at a time). Both get 8 bits from ``PtqQuantizer`` with
``int8_config_list``, without training. Everything runs on one thread.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accuracy_digits import DigitsNet, digits, train
from accuracy_photos import CALIBRATION, TEST, Photos, crops, lite0, photographs
from processes import version_line
from torch import Tensor, nn

from secateur.compression.quantization import PtqQuantizer
from secateur.deploy import (
    DeployReport,
    int8_config_list,
    to_executorch,
    to_integers,
    to_onnx,
    to_openvino,
    to_pt2,
    to_torch_int8,
)

HEAD = """# Runtimes

Printed by `python benchmarks/runtimes.py --table docs/benchmarks-runtimes.md`; its module docstring says what
is measured and how.

- **kB**, **ms**: of the file, on one thread, the median of runs in turn with those of the float original in
  the same runtime; **faster** and **smaller** are against that.
- **integers**, **floats**: the file against the simulation in PyTorch, with integer arithmetic
  (`secateur.deploy.to_integers`) and with floats: rows whose largest value is at the same place, and values
  that are no further apart than one step of 8 bits. See
  [deployment](deploy.md#the-simulation-integer-for-integer) for why the two differ in deep networks.
- **integer kernels**: which of the runtime's kernels compute with integers, where it tells.
"""
WAYS: dict[str, tuple[Callable[..., DeployReport], str]] = {
    "onnx": (to_onnx, "onnx"),
    "openvino": (to_openvino, "xml"),
    "executorch": (to_executorch, "pte"),
    "torch_int8": (to_torch_int8, "pt2"),
    "pt2": (to_pt2, "pt2"),
}
INTEGERS = ("QLinear", "QGemm", "MatMulInteger", "xnnpack.int8.", "onednn.q")
PART = 64


@dataclass
class Case:
    """A float model, what it is calibrated and measured on, and what outputs are compared at."""

    name: str
    model: nn.Module
    calibration: Tensor
    example: Tensor
    test: Tensor


def digits_case() -> Case:
    """The network, trained for 15 epochs."""
    torch.manual_seed(0)
    learn, test = digits(0)
    model = DigitsNet()
    train(model, learn, 15, 0.05, 0)
    return Case("Residual network, scikit-learn's digits", model, learn[0][:256], test[0][:PART], test[0])


def photos_case() -> Case:
    """The network with its weights; crops from the other half of each picture are for the comparison."""
    shown, hidden = Photos().parts(photographs())
    test = crops(hidden, TEST, 1000)
    return Case(
        "EfficientNet-Lite0, crops of photographs", lite0(), crops(shown, CALIBRATION, 0), test[:1], test
    )


CASES = {"digits": digits_case, "photos": photos_case}


def table(case: Case, ways: list[str], runs: int) -> list[str]:
    """A Markdown table, a way in each line."""
    model = copy.deepcopy(case.model).eval()
    quantizer = PtqQuantizer(model, int8_config_list(model, (case.example,)))
    simulated, _ = quantizer.calibrate([*case.calibration.split(32)])
    parts = case.test.split(PART)
    with torch.no_grad():
        floats = torch.cat([simulated(part) for part in parts])
        exact = to_integers(simulated, (case.test[:2],))
        integers = torch.cat([exact(part) for part in parts])
    lines = [
        f"## {case.name}\n",
        "| way | runtime | kB | smaller | ms | faster | integers | floats | integer kernels |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for way in ways:
        deploy, suffix = WAYS[way]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"model.{suffix}"
            report = deploy(simulated, (case.example,), path, original=case.model, runs=runs)
            assert report.model is not None
            with torch.no_grad():
                made = torch.cat([report.model(part) for part in parts])
        lines.append(row(way, report, agreement(integers, made), agreement(floats, made)))
        print(lines[-1], flush=True)
    return lines


def row(way: str, report: DeployReport, integers: str, floats: str) -> str:
    """The figures of one way."""
    kernels = {name: count for name, count in report.kernels.items() if name.startswith(INTEGERS)}
    told = ", ".join(f"{count} {name}" for name, count in kernels.items())
    return (
        f"| `to_{way}` | {report.runtime} | {report.bytes / 1e3:.0f} | {report.smaller:.1f}× | "
        f"{1e3 * report.latency.median:.2f} | {report.faster:.1f}× | {integers} | {floats} | {told} |"
    )


def agreement(wanted: Tensor, made: Tensor) -> str:
    """Share of rows with the same largest value, and of values within one step, in per cent."""
    step = (wanted.max() - wanted.min()) / 255
    same = (wanted.argmax(1) == made.argmax(1)).double().mean()
    near = ((wanted - made).abs() <= step).double().mean()
    return f"{100 * same:.1f}%, {100 * near:.1f}%"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", choices=CASES, action="append", help="by default all")
    parser.add_argument("--way", choices=WAYS, action="append", help="by default all")
    parser.add_argument("--runs", type=int, default=100, help="timed runs of each file")
    parser.add_argument("--table", type=Path, help="a Markdown file to write")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")  # of the runtimes, for people
    made = [table(CASES[name](), given.way or [*WAYS], given.runs) for name in given.model or CASES]
    text = "\n\n".join([HEAD.strip(), *("\n".join(lines) for lines in made), version_line()])
    if given.table:
        given.table.write_text(f"{text}\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
