"""A teacher that is asked once for a batch that comes again."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compression.distillation.students import Two, predict
from secateur.compression.distillation import DynamicLayerwiseDistiller, LogitsDistillation, distill


class Counting(nn.Module):
    """Counts how often it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.count = Two(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return self.net(x)


@pytest.mark.parametrize(("remembers", "calls"), [(True, 3), (False, 12)])
def test_epochs_over_a_list_ask_once_a_batch(remembers: bool, calls: int) -> None:
    torch.manual_seed(0)
    teacher, student = Counting().eval(), Two().eval()
    batches = list(torch.randn(3, 8, 4))
    losses = []
    for again in (remembers, False):
        copied = copy.deepcopy(student)
        optimizer = torch.optim.SGD(copied.parameters(), 0.1)
        losses.append(distill(copied, teacher, batches, optimizer, epochs=4, remember_teacher=again))
    assert teacher.count == calls + 12
    assert losses[0] == losses[1]


def test_other_values_and_other_tensors_are_asked_for() -> None:
    teacher, x = Counting().eval(), torch.randn(8, 4)
    distillation = LogitsDistillation(teacher, method="mse", remember_teacher=True)
    output = torch.zeros(8, 3)
    first = distillation(output, x)
    assert distillation(output, x) == first
    assert teacher.count == 1
    x.mul_(2)
    assert distillation(output, x) != first
    distillation(output, x.clone())
    assert teacher.count == 3


def test_what_is_remembered_goes_with_its_batch() -> None:
    distillation: Any = LogitsDistillation(Counting().eval(), remember_teacher=True)
    for _ in range(5):
        distillation(torch.zeros(8, 3), torch.randn(8, 4))
    assert len(distillation._memory._known) == 0


def test_a_distiller_remembers_all_layers() -> None:
    torch.manual_seed(0)
    teacher, student, x = Counting().eval(), Two(), torch.randn(8, 4)
    config_list = [{"op_names": ["fc1"], "link": "net.fc1"}, {"op_names": ["fc2"], "link": "net.fc2"}]
    distiller = DynamicLayerwiseDistiller(student, config_list, None, teacher, predict, remember_teacher=True)
    found = [distiller.patch_loss(student(x).mean(), x) for _ in range(3)]
    assert teacher.count == 1
    assert len({loss.item() for loss in found}) == 1
    found[-1].backward()
    distiller.unwrap_model()
