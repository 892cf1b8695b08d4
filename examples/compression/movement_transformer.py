"""Movement pruning of a small transformer: whole heads, and hidden units of the feed-forward parts.

python examples/compression/movement_transformer.py
"""

import torch
from common import Digits, accuracy, evaluator_for, shrink, start, train
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.compression.pruning import MovementPruner


class Block(nn.Module):
    """Attention and feed-forward part, each with a norm before it and a shortcut around it."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, rows, width) to the same."""
        y = self.norm1(x)
        heads = (self.num_heads, self.head_dim)
        q, k, v = (p(y).unflatten(-1, heads).transpose(1, 2) for p in (self.query, self.key, self.value))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class RowTransformer(nn.Module):
    """Reads an image row by row."""

    def __init__(self, width: int = 48, heads: int = 4, hidden: int = 160, depth: int = 2) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.position = nn.Parameter(0.02 * torch.randn(8, width))
        self.blocks = nn.Sequential(*(Block(width, heads, hidden) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 1, 8, 8) to (batch, 10)."""
        x = self.embed(images.flatten(1, 2)) + self.position
        return self.head(self.norm(self.blocks(x)).mean(1))


def config(model: RowTransformer) -> list[dict[str, object]]:
    attention = [
        {
            "op_names": [f"blocks.{number}.{name}" for name in ("query", "key", "value")],
            "sparse_ratio": 0.5,
            "granularity": "heads",
            "dependency_group_id": f"heads of block {number}",
        }
        for number in range(len(model.blocks))
    ]
    return [*attention, {"op_names_re": [r"blocks\..*\.fc1$"], "sparse_ratio": 0.6}]


def main() -> None:
    digits: Digits = start()
    model = RowTransformer()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    train(digits, model, optimizer, epochs=25)
    print(f"trained: accuracy {accuracy(model, *digits.test):.1%}")

    evaluator = evaluator_for(digits, model, optimizer)
    pruner = MovementPruner(model, config(model), evaluator, warmup_step=20, cooldown_begin_step=150)
    pruner.compress(max_steps=300)
    shrink(pruner, digits)


if __name__ == "__main__":
    main()
