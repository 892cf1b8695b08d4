"""NNI's speed-up tutorial: a mask on three of six channels makes two layers smaller.

python examples/speedup_lenet.py
"""

import torch
from torch import nn
from torch.nn import functional as F

from secateur.compression.speedup import ModelSpeedup


class TorchModel(nn.Module):
    """A LeNet for 28 x 28 digits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, 1)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d((2, 2))
        self.conv2 = nn.Conv2d(6, 16, 5, 1)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d((2, 2))
        self.fc1 = nn.Linear(16 * 4 * 4, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Log probabilities of the ten digits."""
        x = self.pool1(self.relu1(self.conv1(x)))
        x = self.pool2(self.relu2(self.conv2(x)))
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return F.log_softmax(self.fc3(x), dim=-1)


def main() -> None:
    model = TorchModel()
    conv1_mask = torch.ones_like(model.conv1.weight.data)
    conv1_mask[0:3] = 0
    masks = {"conv1": {"weight": conv1_mask}}
    print(model)

    speedup = ModelSpeedup(model, torch.rand(8, 1, 28, 28), masks)
    speedup.speedup_model()
    print(model)
    print(speedup.report)


if __name__ == "__main__":
    main()
