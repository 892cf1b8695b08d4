"""Three bits instead of 32, pruned: quantised after training, with training, and cut with its scales.

python examples/compression/qat_digits.py
"""

import copy

import torch
from common import accuracy, described, evaluator_for, start, train
from digits import DigitNet, Digits

from secateur.compression.pruning import AGPPruner, L1NormPruner
from secateur.compression.quantization import PtqQuantizer, QATQuantizer, Quantizer

PRUNE = [{"op_types": ["Conv2d"], "sparse_ratio": 0.5, "dependency_group_id": "auto"}]
QUANTISE = [
    {
        "op_types": ["Conv2d", "Linear"],
        "target_names": ["_input_", "weight"],
        "quant_dtype": "int3",
        "fuse_names": "auto",
        "target_settings": {
            "_input_": {"quant_dtype": "uint3", "quant_scheme": "affine"},
            "weight": {"granularity": "out_channel"},
        },
    }
]


def after_training(model: DigitNet, digits: Digits) -> Quantizer:
    quantizer = PtqQuantizer(
        copy.deepcopy(model), QUANTISE, is_bias_correction=True, observer="mse", weight_observer="mse",
        dummy_input=digits.test[0][:2],
    )  # fmt: skip
    quantizer.calibrate(digits.train[0][:256].split(64))
    return quantizer


def main() -> None:
    digits = start()
    model = DigitNet(32)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    train(digits, model, optimizer, epochs=5)
    print(described("float  ", model, *digits.test))
    print(described("3 bits after training", after_training(model, digits).bound_model, *digits.test))

    evaluator = evaluator_for(digits, model, optimizer)
    pruner = AGPPruner(L1NormPruner(model, PRUNE, evaluator), interval_steps=10, total_times=5)
    quantizer = QATQuantizer.from_compressor(pruner, QUANTISE, quant_start_step=20)
    quantizer.compress(max_steps=250)
    print(described("3 bits and half of the channels, with training", model, *digits.test))

    images = digits.test[0]
    with torch.no_grad():
        before = model.eval()(images)
        small, _ = quantizer.speedup((images[:8],), on_inexact="keep")
        after = model(images)
    print(described("compact", model, *digits.test))
    print(f"largest difference of an output: {(after - before).abs().max():.1e}")
    scales = {
        name: tuple(targets["weight"]["scale"].shape)
        for name, targets in small.get_calibration_config().items()
    }
    print("scales of the weights that are left:", scales)
    if accuracy(model, *digits.test) < 0.9 or bool((after.argmax(1) != before.argmax(1)).any()):
        raise SystemExit("the compact model predicts something else than the masked one")
    print("every prediction as before")


if __name__ == "__main__":
    main()
