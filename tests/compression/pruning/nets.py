"""What the tests of pruners share: NNI's two reference networks, small examples, and a way to train them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.compression import TorchEvaluator
from secateur.compression.speedup import ModelSpeedup

SIDE = 10


class SimpleTorchModel(nn.Module):
    """NNI's network S: a residual sum of a grouped and a plain convolution, then two linear layers."""

    def __init__(self, side: int = SIDE) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 32, 3, groups=4), nn.BatchNorm2d(32)
        self.conv3, self.bn3 = nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32)
        self.fc1, self.fc2 = nn.Linear(32 * (side - 4) ** 2, 100), nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x))
        x = self.bn2(self.conv2(x)) + self.bn3(self.conv3(x))
        return F.log_softmax(self.fc2(self.fc1(x.reshape(x.shape[0], -1))), -1)


class TorchModel(nn.Module):
    """NNI's network T: two convolutions with norms and pooling, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 5, 5), nn.BatchNorm2d(5)
        self.conv2, self.bn2 = nn.Conv2d(5, 10, 5), nn.BatchNorm2d(10)
        self.fc1, self.fc2 = nn.Linear(160, 100), nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        return self.fc2(F.relu(self.fc1(x.view(-1, 160))))


class SmallTransformer(nn.Module):
    """One block of attention and a feed-forward part, with head and class token."""

    def __init__(self, width: int = 24, heads: int = 4, hidden: int = 20) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.embed = nn.Linear(6, width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        y = self.norm1(x)
        split = [p(y).unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
                 for p in (self.query, self.key, self.value)]  # fmt: skip
        attended = F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        x = x + self.out(attended)
        x = x + self.fc2(F.relu(self.fc1(self.norm2(x))))
        return self.head(x.mean(1))


S_CONFIG = [
    {"op_types": ["Linear"], "exclude_op_names": ["fc2"], "sparse_ratio": 0.75},
    {
        "op_names": ["conv1", "conv2", "conv3"],
        "sparse_ratio": 0.75,
        "granularity": "out_channel",
        "dependency_group_id": "auto",
    },
]


def images(count: int = 8, side: int = SIDE) -> Tensor:
    return torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(3))


def batch_of(model: nn.Module, count: int = 8) -> Tensor:
    if isinstance(model, SmallTransformer):
        return torch.randn(count, 5, 6, generator=torch.Generator().manual_seed(3))
    return images(count, 28 if isinstance(model, TorchModel) else SIDE)


def evaluator_of(
    model: nn.Module, steps: int = 4, evaluate: Callable[[nn.Module], Any] | None = None, rate: float = 0.05
) -> TorchEvaluator:
    """Trains on the same random batches whenever it is called; ``steps`` is the user's own length."""

    def training_step(batch: tuple[Tensor, Tensor], model: nn.Module) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    def train(
        model: nn.Module, optimizer: Any, step: Any, scheduler: Any, max_steps: Any, max_epochs: Any
    ) -> None:
        generator = torch.Generator().manual_seed(5)
        model.train()
        total = max_steps if max_steps is not None else steps * (max_epochs or 1)
        x = batch_of(model)
        for _ in range(total):
            batch = x + 0.1 * torch.randn(x.shape, generator=generator)
            labels = torch.randint(10, (len(x),), generator=generator)
            optimizer.zero_grad()
            step((batch, labels), model).backward()
            optimizer.step()

    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9)
    return TorchEvaluator(
        train, optimizer, training_step, None, batch_of(model), evaluate or closeness(model)
    )


def closeness(model: nn.Module) -> Callable[[nn.Module], float]:
    """An evaluation: how near the outputs are to those of the model as it is now."""
    x = batch_of(model)
    with torch.no_grad():
        wanted = copy.deepcopy(model).eval()(x)

    def evaluate(model: nn.Module) -> float:
        with torch.no_grad():
            return -float((model.eval()(x) - wanted).norm() / wanted.norm())

    return evaluate


def sparsity(mask: Tensor) -> float:
    return 1.0 - float((mask != 0).double().mean())


def compact_equals_masked(pruner: Any, x: Tensor, **options: Any) -> nn.Module:
    """Speed the model up by the pruner's masks; both predict the same, to the last prediction."""
    model = pruner.bound_model.eval()
    with torch.no_grad():
        masked = model(x)
    masks = pruner.get_masks()
    pruner.unwrap_model()
    small = ModelSpeedup(model, x, masks, on_inexact="keep", **options).speedup_model()
    with torch.no_grad():
        compact = small.eval()(x)
    assert torch.equal(masked.argmax(-1), compact.argmax(-1))
    assert float((masked - compact).norm() / masked.norm()) < 1e-4
    return small


def parameters_of(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def copies(masks: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    return {module: {name: mask.clone() for name, mask in t.items()} for module, t in masks.items()}
