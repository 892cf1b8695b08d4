"""AGP over Taylor scores, in a training loop of one's own: ``pruner.step()`` is all there is to add.

python examples/compression/agp_taylor.py
"""

import torch
from common import accuracy, shrink, start, train, training_step
from digits import DigitNet

from secateur.compression.pruning import AGPPruner, TaylorFOWeightPruner

CONFIG = [{"op_types": ["Conv2d"], "sparse_ratio": 0.6, "dependency_group_id": "auto"}]


def main() -> None:
    digits = start()
    model = DigitNet(32)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    train(digits, model, optimizer, epochs=5)
    print(f"trained: accuracy {accuracy(model, *digits.test):.1%}")

    taylor = TaylorFOWeightPruner(model, CONFIG, training_steps=8, dummy_input=digits.test[0][:8])
    pruner = AGPPruner(taylor, interval_steps=10, total_times=8)
    model.train()
    for _ in range(6):
        for batch in digits.batches():
            optimizer.zero_grad()
            training_step(batch, model).backward()
            optimizer.step()
            pruner.step()
    shrink(pruner, digits)


if __name__ == "__main__":
    main()
