"""Simulated annealing on a ResNet-18: which layers can do with how little?

python examples/compression/annealing_resnet18.py
"""

import torch
import torchvision
from common import accuracy, evaluator_for, shrink, start, train
from torch import Tensor
from torch.nn import functional as F

from secateur.compression.pruning import SimulatedAnnealingPruner

# The first convolution of every block: its channels belong to nobody else. A fifth of each stays at least.
CONFIG = [{"op_names_re": [r"layer.*\.conv1$"], "total_sparsity": 0.5, "max_sparsity_per_layer": 0.8}]


def view(images: Tensor) -> Tensor:
    """(batch, 1, 8, 8) to (batch, 3, 24, 24)."""
    return F.interpolate(images, scale_factor=3, mode="bilinear").expand(-1, 3, -1, -1)


def main() -> None:
    digits = start()
    model = torchvision.models.resnet18(weights=None, num_classes=10)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    train(digits, model, optimizer, view=view, epochs=3)
    print(f"trained: accuracy {accuracy(model, view(digits.test[0]), digits.test[1]):.1%}")

    pruner = SimulatedAnnealingPruner(
        model,
        CONFIG,
        evaluator_for(digits, model, optimizer, view),
        stop_temperature=40,
        pruning_algorithm="l1",
    )
    pruner.compress()
    number, _, _, score, _ = pruner.get_best_result()
    print(f"best of {len(pruner.results)} splits: number {number}, accuracy {score:.1%} on training images")
    train(digits, model, optimizer, view=view, epochs=3)
    shrink(pruner, digits, view)


if __name__ == "__main__":
    main()
