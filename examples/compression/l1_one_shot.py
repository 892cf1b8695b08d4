"""L1 norms, one shot: train, mask half of all channels, fine-tune with the masks on, make it small.

python examples/compression/l1_one_shot.py
"""

import torch
from common import accuracy, shrink, start, train
from digits import DigitNet

from secateur.compression.pruning import L1NormPruner

CONFIG = [{"op_types": ["Conv2d"], "sparse_ratio": 0.5, "dependency_group_id": "auto"}]


def main() -> None:
    digits = start()
    model = DigitNet(32)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    train(digits, model, optimizer, epochs=6)
    print(f"trained: accuracy {accuracy(model, *digits.test):.1%}")

    pruner = L1NormPruner(model, CONFIG, dummy_input=digits.test[0][:8])
    pruner.compress()
    train(digits, model, optimizer, epochs=6)  # the same loop, the same optimizer
    shrink(pruner, digits)


if __name__ == "__main__":
    main()
