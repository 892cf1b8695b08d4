"""Gate gradients are the derivatives that they claim to be, to first and to second order."""

import pytest
import torch
from torch import nn

from scored import Residual, collected, image_net, mlp, squared
from secateur import FisherCriterion, LossAwareCriterion, PruningIR, ScoreError
from secateur.criteria import find_gates


class Gate(nn.Module):
    """Multiplies by one factor a channel: what the formula claims the derivative of."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(size))
        self.dim = dim

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = [1] * x.dim()
        shape[self.dim] = -1
        return x * self.factor.view(shape)


@pytest.mark.parametrize(
    ("build", "shape", "readers"),
    [
        (mlp, (7, 4), {"0": (2, -1), "2": (4, -1)}),
        (image_net, (5, 3, 6, 6), {"0": (6, 1), "6": (10, -1)}),
    ],
)
def test_scores_are_squared_derivatives_of_real_gates(build, shape, readers):
    model = build().eval()
    batches = [torch.randn(shape) for _ in range(3)]
    scores = collected(model, batches)
    assert set(scores) == set(readers)
    for group, (reader, dim) in readers.items():
        gate = Gate(len(scores[group]), dim)
        gated = nn.Sequential(*model[:reader], gate, *model[reader:])
        expected = torch.zeros(len(scores[group]), dtype=torch.float64)
        for batch in batches:
            (grad,) = torch.autograd.grad(squared(gated(batch)), gate.factor)
            expected += grad.double().square() / len(batches)
        torch.testing.assert_close(scores[group], expected, rtol=1e-4, atol=1e-12)


def test_absolute_spread_is_the_mean_of_absolute_derivatives():
    model = mlp()
    batch = torch.randn(6, 4)
    scores = collected(model, [batch], spread="absolute")
    square = collected(model, [batch])
    for name in scores:
        torch.testing.assert_close(scores[name].square(), square[name])


def test_a_tied_embedding_is_scored_at_its_reader_alone():
    model = Residual()
    tokens = torch.randint(0, 11, (4, 7))
    ir = PruningIR(model)
    with LossAwareCriterion(ir) as collect:
        squared(collect(tokens)).backward()
    stream = next(group for group in ir.groups() if group.size == 6)
    assert collect.gates[stream.name].exact
    gate = torch.ones(6, requires_grad=True)
    (grad,) = torch.autograd.grad(squared(model(tokens, gate)), gate)
    torch.testing.assert_close(collect.scores[stream.name], grad.double().square(), rtol=1e-4, atol=0)


class Attention(nn.Module):
    """Fused query, key and value; gates on the queries' features and on what the heads give."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.project = nn.Linear(12, 36), nn.Linear(12, 12)
        self.heads, self.width = 3, 4

    def forward(self, x: torch.Tensor, query_gate=1.0, value_gate=1.0) -> torch.Tensor:
        shape = (*x.shape[:2], 3, self.heads, self.width)
        q, k, v = self.qkv(x).reshape(shape).permute(2, 0, 3, 1, 4).unbind(0)
        out = nn.functional.scaled_dot_product_attention(q * query_gate, k, v)
        return self.project((out * value_gate).transpose(1, 2).flatten(2))


def test_attention_features_take_the_rows_of_the_queries():
    model = Attention()
    x = torch.randn(2, 5, 12)
    ir = PruningIR(model)
    with LossAwareCriterion(ir) as collect:
        squared(collect(x)).backward()
    heads = next(group for group in ir.groups() if group.size == 3)
    features = next(group for group in ir.groups() if group.size == 4)
    gate = torch.ones(4, requires_grad=True)
    (grad,) = torch.autograd.grad(squared(model(x, gate, gate)), gate)
    torch.testing.assert_close(collect.scores[features.name], grad.double().square(), rtol=1e-4, atol=0)
    gate = torch.ones(3, 1, 1, requires_grad=True)
    (grad,) = torch.autograd.grad(squared(model(x, 1.0, gate)), gate)
    expected = grad.flatten().double().square()
    torch.testing.assert_close(collect.scores[heads.name], expected, rtol=1e-4, atol=0)


def test_the_module_attention_of_torch_is_covered():
    model = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    ir = PruningIR(model)
    structure = ir.create_snapshot("main", args=(torch.randn(2, 5, 16),)).structure
    gates = find_gates(structure)
    assert all(gate.exact for gate in gates.values())
    queries = [str(t) for gate in gates.values() for t in gate.terms if "in_proj" in str(t)]
    assert queries == ["self_attn.in_proj_weight[0], 16 positions", "self_attn.in_proj_bias[0], 16 positions"]


def test_what_cannot_be_told_exactly_is_marked():
    class Modulated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(4, 6), nn.Linear(4, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(self.left(x)) @ torch.tanh(self.right(x)).t()

    ir = PruningIR(Modulated())
    gates = find_gates(ir.create_snapshot("main", args=(torch.randn(3, 4),)).structure)
    (gate,) = gates.values()
    assert not gate.exact
    assert "does not pass a factor on unchanged" in gate.reason


# -- second order ----------------------------------------------------------------------------------


def gate_gradients(model: nn.Sequential, reader: int, size: int, batches: list[torch.Tensor]) -> torch.Tensor:
    gate = Gate(size, -1)
    gated = nn.Sequential(*model[:reader], gate, *model[reader:])
    return torch.stack([torch.autograd.grad(squared(gated(b)), gate.factor)[0] for b in batches]).double()


def fisher(model: nn.Module, batches: list[torch.Tensor], **settings: object) -> torch.Tensor:
    with FisherCriterion(PruningIR(model), **settings) as collect:
        for batch in batches:
            squared(collect(batch)).backward()
    return collect.scores["0"]


def test_fisher_scores_follow_from_the_gate_gradients():
    model, batches = mlp(), [torch.randn(3, 4) for _ in range(12)]
    g = gate_gradients(model, 2, 8, batches)
    matrix = g.T @ g / len(g)
    diagonal = fisher(model, batches, blocked=False)
    torch.testing.assert_close(diagonal, matrix.diagonal() / 2, rtol=1e-4, atol=1e-12)
    damped = matrix + 0.01 * matrix.diagonal().mean() * torch.eye(8, dtype=torch.float64)
    expected = 0.5 / torch.linalg.inv(damped).diagonal()
    torch.testing.assert_close(fisher(model, batches, damping=0.01), expected, rtol=1e-3, atol=1e-12)


def test_two_labels_that_do_the_same_are_cheap_together():
    model = mlp()
    with torch.no_grad():
        for parameter in (model[0].weight, model[0].bias):
            parameter[1] = parameter[0]
        model[2].weight[:, 1] = model[2].weight[:, 0]
    batches = [torch.randn(3, 4) for _ in range(40)]
    alone, together = fisher(model, batches, blocked=False), fisher(model, batches, damping=1e-3)
    torch.testing.assert_close(together[0], together[1])
    assert together[0] / alone[0] < 0.6 * float((together / alone)[2:].max())


def test_damping_is_positive():
    with pytest.raises(ScoreError, match="damping is a positive share"):
        FisherCriterion(PruningIR(mlp()), damping=0)
