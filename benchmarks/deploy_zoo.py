"""Models that nobody here wrote, calibrated to 8 bits and run by ONNX Runtime in one call of ``to_onnx``.

    python benchmarks/deploy_zoo.py --table docs/deploy-zoo.md    # what is in --out is not run again
    python benchmarks/deploy_zoo.py --only 'timm/*' --again

Random weights, and batches of random inputs: two to calibrate on, eight rows to compare at. Layers are the
convolutions and linear layers that the runtime runs, integer ones those among them whose kernel multiplies
integers. *File against simulation* is `DeployReport.agreement`, against the integer arithmetic of
`to_integers`, and in brackets `float_agreement`, against the simulation in floats: rows of the same top-1,
and values within one step of 8 bits. The error is the relative L2 distance between the outputs of the file
and of the float model. Faster is against the float model in ONNX Runtime, on one thread, medians of runs in
turn.
"""

from __future__ import annotations

import argparse
import fnmatch
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from models import load
from processes import Record, append_line, read_lines, run_all, version_line
from torch import Tensor

from secateur.capture import map_tensors
from secateur.deploy import to_onnx
from secateur.deploy._compare import agreement

_TORCHVISION = """
resnet18 resnet50 vgg11_bn mobilenet_v2 mobilenet_v3_small efficientnet_b0 squeezenet1_1
shufflenet_v2_x1_0 densenet121 googlenet mnasnet1_0 regnet_y_400mf convnext_tiny swin_t vit_b_16
"""
_TIMM = """
res2net50_26w_4s dla34 cspresnet50 hrnet_w18_small ghostnet_100 repvgg_a0 mobilenetv4_conv_small
mobilevit_xs levit_128s deit_tiny_patch16_224 mixer_s32_224 poolformer_s12 xcit_tiny_12_p8_224
fastvit_t8 edgenext_xx_small tf_efficientnet_lite0
"""
_TRANSFORMERS = "bert distilbert gpt2 llama t5 bart vit"
NAMES = [
    *(f"torchvision/{name}" for name in _TORCHVISION.split()),
    *(f"timm/{name}" for name in _TIMM.split()),
    *(f"transformers/{name}" for name in _TRANSFORMERS.split()),
]
INTEGER = ("QLinearConv", "QGemm", "MatMulIntegerToFloat", "QLinearMatMul", "ConvInteger")
FLOAT = ("Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMulNBits")
COLUMNS = (
    "model",
    "layers",
    "integer",
    "file against simulation: top-1",
    "within one step",
    "error to float",
    "smaller",
    "faster",
)


def drawn(inputs: Any, seed: int) -> Any:
    """Other inputs of the same kind, of two rows: floats are normal, integers as large as those given."""
    draw = torch.Generator().manual_seed(seed)

    def change(x: Tensor) -> Tensor:
        shape = (2, *x.shape[1:])
        if x.is_floating_point():
            return torch.randn(shape, generator=draw)
        low, high = int(x.min()), int(x.max())
        if x.dtype is torch.bool or low == high:  # a mask
            return x[:1].expand(shape).clone()
        return torch.randint(low, high + 1, shape, generator=draw)

    return map_tensors(inputs, change)


def measure(name: str) -> Record:
    """One line of the table."""
    warnings.simplefilter("ignore")  # of other people's constructors and exporters
    loaded = load(name)
    inputs = [drawn((loaded.args, loaded.kwargs), seed) for seed in range(6)]
    samples = [kwargs or args for args, kwargs in inputs]
    args, kwargs = inputs[0]
    with tempfile.TemporaryDirectory() as folder:
        report = to_onnx(
            loaded.model,
            args,
            Path(folder) / "model.onnx",
            kwargs,
            quantize=samples[:2],
            original=loaded.model,
            samples=samples[2:],
            runs=20,
        )
        assert report.model is not None
        error = agreement(loaded.model, report.model, inputs[2:3]).relative_error
    integer, other = (sum(report.kernels.get(kernel, 0) for kernel in kinds) for kinds in (INTEGER, FLOAT))
    return {
        "integer": integer,
        "layers": integer + other,
        "top1": report.agreement.top1,
        "near": report.agreement.within_one_step,
        "float_top1": report.float_agreement.top1,
        "float_near": report.float_agreement.within_one_step,
        "error": error,
        "smaller": report.smaller,
        "faster": report.faster,
        "versions": version_line(),
    }


def row(name: str, record: Mapping[str, Any]) -> str:
    if "failure" in record:
        cells = [name, f"{record['failure']}: {record['message'].splitlines()[0]}", *[""] * 6]
    else:
        cells = [
            name,
            f"{record['layers']}",
            f"{record['integer']}",
            f"{record['top1']:.1%} ({record['float_top1']:.1%})",
            f"{record['near']:.1%} ({record['float_near']:.1%})",
            f"{record['error']:.3f}",
            f"{record['smaller']:.2f}×",
            f"{record['faster']:.2f}×",
        ]
    return "| " + " | ".join(cells) + " |"


def page(records: Mapping[str, Record]) -> str:
    """Markdown."""
    known = {name: records[name] for name in NAMES if name in records}
    done = [record for record in known.values() if "failure" not in record]
    whole = sum(record["integer"] == record["layers"] for record in done)
    exact = sum(record["top1"] >= 0.995 and record["near"] >= 0.99 for record in done)
    lines = [
        "# Models of three libraries in 8 bits",
        "",
        "Printed by `python benchmarks/deploy_zoo.py --table docs/deploy-zoo.md`; its module docstring says "
        "what is measured and how.",
        "",
        f"{len(done)} of {len(known)} models deployed; in {whole} of them every convolution and linear layer "
        f"has an integer kernel; {exact} files agree with the simulation in 99.5 % of top-1 and 99 % of "
        f"values within one step. {median(line['faster'] for line in done):.1f} times faster in the median.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|---" * len(COLUMNS) + "|",
        *(row(name, record) for name, record in known.items()),
        "",
        *sorted({record["versions"] for record in done}),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default="*", help="a pattern of names")
    parser.add_argument("--again", action="store_true", help="run what is recorded too")
    parser.add_argument("--out", type=Path, default=Path("build/deploy_zoo.jsonl"))
    parser.add_argument("--table", type=Path, help="write the page")
    options = parser.parse_args()
    known = {} if options.again else read_lines(options.out)
    wanted = [name for name in NAMES if fnmatch.fnmatch(name, options.only) and name not in known]
    for record in run_all(measure, [(name, (name,)) for name in wanted], limit=400):
        append_line(options.out, record)
        print(row(record["name"], record), flush=True)
    if options.table is not None:
        options.table.write_text(page(read_lines(options.out)), encoding="utf-8")


if __name__ == "__main__":
    main()
