"""The plain way: a small model learns from the one that it was made from."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur
from secateur.compression.distillation import LogitsDistillation, distill, kl


def net(hidden: int = 16) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, hidden), nn.ReLU(), nn.Dropout(0.5), nn.Linear(hidden, 4))


def test_a_pruned_model_learns_from_its_original_without_labels() -> None:
    torch.manual_seed(0)
    model = net().eval()
    data = torch.randn(256, 6)
    small, _ = secateur.prune(model, (data[:8],), ratio=0.5)
    optimizer = torch.optim.Adam(small.parameters(), 1e-2)
    before = kl(small(data), model(data)).item()
    losses = distill(small, model, data.split(32), optimizer, epochs=10)
    after = kl(small(data), model(data)).item()
    assert len(losses) == 10
    assert after < 0.3 * before
    assert not small.training


def test_the_teacher_answers_in_eval_mode_and_is_left_as_it_was() -> None:
    torch.manual_seed(0)
    teacher = net()
    teacher[2].eval()
    flags = [module.training for module in teacher.modules()]
    x = torch.randn(8, 6)
    distillation = LogitsDistillation(teacher)
    output = torch.zeros(8, 4, requires_grad=True)
    loss = distillation(output, (x, torch.zeros(8)))
    loss.backward()
    assert [module.training for module in teacher.modules()] == flags
    assert all(parameter.grad is None for parameter in teacher.parameters())
    with torch.no_grad():
        assert loss.item() == pytest.approx(kl(output, copy.deepcopy(teacher).eval()(x)).item())


def test_labels_count_with_a_loss_of_their_own() -> None:
    torch.manual_seed(0)
    teacher, x, y = net().eval(), torch.randn(8, 6), torch.randint(0, 4, (8,))
    start = net().eval()
    results = []
    for weight, loss in ((0.5, F.cross_entropy), (0.5, None)):
        student = copy.deepcopy(start)
        optimizer = torch.optim.SGD(student.parameters(), 0.0)
        labels = None if loss is None else (lambda output, batch: F.cross_entropy(output, batch[1]))
        results += distill(student, teacher, [(x, y)], optimizer, weight=weight, loss=labels)
    with torch.no_grad():
        expected = 0.5 * kl(start(x), teacher(x)), F.cross_entropy(start(x), y)
    assert results == pytest.approx([float(sum(expected)), float(expected[0])], rel=1e-5)


@pytest.mark.parametrize("wrapped", [
    lambda logits: logits,
    lambda logits: SimpleNamespace(logits=logits, hidden_states=None),
    lambda logits: {"hidden": torch.zeros(3), "logits": logits},
    lambda logits: {"scores": logits},
    lambda logits: (logits, torch.zeros(3)),
])  # fmt: skip
def test_logits_are_found_in_every_kind_of_output(wrapped: Any) -> None:
    class Answer(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return wrapped(x * 2)

    x = torch.randn(3, 4)
    assert LogitsDistillation(Answer())(wrapped(x), x).item() == pytest.approx(kl(x, 2 * x).item())


def test_dicts_are_keyword_arguments_and_schedulers_step() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
            return self.fc(x) * scale

    student, teacher = Named(), Named()
    optimizer = torch.optim.SGD(student.parameters(), 1.0)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=2)
    batch = {"x": torch.randn(4, 3), "labels": torch.zeros(4)}
    distill(student, teacher, [batch, batch], optimizer, scheduler=scheduler, method="mse")
    assert scheduler.get_last_lr() == [0.0]


def test_what_cannot_be_compared_is_refused() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x = torch.randn(2, 6)
    with pytest.raises(secateur.DistillationError, match="one model: give a copy"):
        distill(model, model, [x], optimizer)
    with pytest.raises(secateur.DistillationError, match="gave no batch"):
        distill(model, net(), [], optimizer)
    with pytest.raises(secateur.DistillationError, match="did you mean 'cosine'"):
        LogitsDistillation(model, method="cosin")
    with pytest.raises(secateur.DistillationError, match="temperature is above 0"):
        LogitsDistillation(model, temperature=0.0)
    with pytest.raises(secateur.DistillationError, match=r"gives \(2, 3\) and the teacher \(2, 4\)"):
        LogitsDistillation(model)(torch.zeros(2, 3), x)
    with pytest.raises(secateur.DistillationError, match="no tensor in an output of type str"):
        LogitsDistillation(model)("nothing", x)
