"""Average percentage of zeros: the channels go whose ReLU is mostly silent.

python examples/compression/apoz.py
"""

import torch
from common import accuracy, evaluator_for, shrink, start, train
from digits import DigitNet

from secateur.compression.pruning import ActivationAPoZRankPruner

CONFIG = [{"op_names_re": [r"blocks\..*\.norm1$"], "sparse_ratio": 0.5}]


def main() -> None:
    digits = start()
    model = DigitNet(32)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    train(digits, model, optimizer, epochs=6)
    print(f"trained: accuracy {accuracy(model, *digits.test):.1%}")

    evaluator = evaluator_for(digits, model, optimizer)
    pruner = ActivationAPoZRankPruner(model, CONFIG, evaluator, training_steps=15, activation="relu")
    pruner.compress()
    train(digits, model, optimizer, epochs=6)
    shrink(pruner, digits)


if __name__ == "__main__":
    main()
