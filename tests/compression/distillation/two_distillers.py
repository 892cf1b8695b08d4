"""One of two processes that distil together; started by test_distributed.py."""

from typing import Any

import torch
from torch import nn

from gloo import main
from secateur.compression.distillation import Adaptive1dLayerwiseDistiller


def distilled(rank: int) -> Any:
    """The gradients of a projection, in two backward passes of each process, and what it began with."""
    torch.manual_seed(3)
    student, teacher = nn.Sequential(nn.Linear(4, 3)), nn.Sequential(nn.Linear(4, 5))
    torch.manual_seed(rank)  # processes draw different numbers, and still begin the same
    distiller = Adaptive1dLayerwiseDistiller(
        student, [{"op_names": ["0"]}], None, teacher, lambda batch, teacher: teacher(batch)
    )
    own = torch.arange(16.0).view(4, 4)[rank::2] / 8 - 1
    distiller.track_forward(own)
    for row in own:
        distiller.patch_loss(student(row[None]).mean(), row[None]).backward()
    return {
        "weight": distiller.parameters()[0].detach(),
        "gradient": distiller.parameters()[0].grad,
    }


if __name__ == "__main__":
    main({"distilled": distilled})
