"""Network slimming: BatchNorm factors are pushed towards zero, the smallest of the whole network go.

python examples/compression/slim.py
"""

import torch
from common import accuracy, evaluator_for, shrink, start, train
from digits import DigitNet

from secateur.compression.pruning import SlimPruner

# The norms inside of the blocks: their channels belong to nobody else.
CONFIG = [{"op_names_re": [r"blocks\..*\.norm1$"], "total_sparsity": 0.6, "max_sparse_ratio": 0.9}]


def main() -> None:
    digits = start()
    model = DigitNet(32)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    train(digits, model, optimizer, epochs=6)
    print(f"trained: accuracy {accuracy(model, *digits.test):.1%}")

    pruner = SlimPruner(
        model, CONFIG, evaluator_for(digits, model, optimizer), training_steps=60, regular_scale=0.02
    )
    pruner.compress()
    train(digits, model, optimizer, epochs=6)
    shrink(pruner, digits)


if __name__ == "__main__":
    main()
