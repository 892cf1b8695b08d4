"""Two processes train one projection."""

from pathlib import Path

import pytest
import torch
from torch import nn

from gloo import run_two
from secateur.compression.distillation import Adaptive1dLayerwiseDistiller


@pytest.mark.slow
def test_projections_begin_the_same_and_get_the_same_gradients(tmp_path: Path) -> None:
    first, second = (r["distilled"] for r in run_two(Path(__file__).parent / "two_distillers.py", tmp_path))
    assert torch.equal(first["weight"], second["weight"])
    assert torch.equal(first["gradient"], second["gradient"])
    torch.manual_seed(3)
    student, teacher = nn.Sequential(nn.Linear(4, 3)), nn.Sequential(nn.Linear(4, 5))
    alone = Adaptive1dLayerwiseDistiller(
        student, [{"op_names": ["0"]}], None, teacher, lambda batch, teacher: teacher(batch)
    )
    for row in torch.arange(16.0).view(4, 4) / 8 - 1:
        (alone.patch_loss(student(row[None]).mean(), row[None]) / 2).backward()
    assert torch.allclose(alone.parameters()[0].grad, first["gradient"], atol=1e-6)  # type: ignore[arg-type]
