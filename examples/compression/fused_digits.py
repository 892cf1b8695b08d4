"""Pruned, quantised and distilled in one training, cut, and deployed as int8 to ONNX Runtime.

python examples/compression/fused_digits.py   # takes pip install "secateur[deploy]"
"""

import copy
import tempfile

import torch
from common import accuracy, evaluator_for, start, train
from digits import DigitNet

from secateur.compression.distillation import DynamicLayerwiseDistiller
from secateur.compression.pruning import AGPPruner, TaylorPruner
from secateur.compression.quantization import QATQuantizer
from secateur.deploy import int8_config_list, to_onnx

PRUNE = [{"op_types": ["Conv2d"], "sparse_ratio": 0.6, "dependency_group_id": "auto"}]
DISTILL = [{"op_names": [""], "apply_method": "kl"}]  # "": the model itself, its logits


def main() -> None:
    digits = start()
    model = DigitNet(32)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    train(digits, model, optimizer, epochs=5)
    original = copy.deepcopy(model).eval()
    print(f"trained: accuracy {accuracy(model, *digits.test):.1%}")

    # Found in the plain model, before anything is masked.
    int8 = int8_config_list(model, (digits.test[0][:8],))
    evaluator = evaluator_for(digits, model, optimizer)
    distiller = DynamicLayerwiseDistiller(
        model, DISTILL, evaluator, original, lambda batch, teacher: teacher(batch[0])
    )
    taylor = TaylorPruner.from_compressor(distiller, PRUNE, training_steps=8)
    pruner = AGPPruner(taylor, interval_steps=10, total_times=6)
    quantizer = QATQuantizer.from_compressor(pruner, int8, quant_start_step=60)
    quantizer.compress(max_steps=120)
    print(f"masked and rounded: accuracy {accuracy(model, *digits.test):.1%}")

    images = digits.test[0]
    quantizer, _ = quantizer.speedup((images[:8],), on_inexact="keep")
    small = quantizer.bound_model.eval()
    print(f"cut: accuracy {accuracy(small, *digits.test):.1%}")
    with tempfile.TemporaryDirectory() as folder:
        report = to_onnx(
            small, (images[:64],), f"{folder}/digits.onnx", original=original, samples=images.split(64)
        )
        assert report.model is not None
        print(f"deployed: accuracy {accuracy(report.model, *digits.test):.1%}")
    print(report)


if __name__ == "__main__":
    main()
