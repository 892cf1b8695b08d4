"""Attention, embeddings and recurrent layers."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur
from speedup.checks import error, masked_copy, randomise, rows, speed_up

X = torch.randn(2, 5, 16)


class SelfAttention(nn.Module):
    """Four heads of width 4, by a fused kernel or by hand, with views by constants or by sizes."""

    def __init__(self, fused: bool, heads: int = 4) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(16, 16) for _ in range(4))
        self.heads, self.fused = heads, fused
        self.width = 16 // heads

    def split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, self.width).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.split(layer(x)) for layer in (self.q, self.k, self.v))
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = F.softmax(q @ k.transpose(-1, -2) * self.width**-0.5, -1) @ v
        return self.o(y.transpose(1, 2).reshape(x.shape[0], x.shape[1], -1))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_a_masked_head_goes_and_its_value_bias_is_folded(fused: bool, bias: bool) -> None:
    net = randomise(SelfAttention(fused))
    head = list(range(4, 8))
    masks = {name: rows(net.get_submodule(name), head, bias=bias) for name in "qkv"}
    report = speed_up(net, masks, X)
    assert net.heads == 3
    assert [layer.out_features for layer in (net.q, net.k, net.v)] == [12, 12, 12]
    assert net.o.in_features == 12
    assert report.exact and bool(report.folded) is not bias


def test_features_of_all_heads() -> None:
    net = randomise(SelfAttention(fused=True))
    gone = [1, 5, 9, 13]
    report = speed_up(net, {name: rows(net.get_submodule(name), gone, bias=True) for name in "qkv"}, X)
    assert net.q.out_features == net.o.in_features == 12 and net.width == 3 and report.exact


def test_features_of_queries_and_keys_alone_stay_where_the_code_wants_equal_widths() -> None:
    net = randomise(SelfAttention(fused=True))
    report = speed_up(
        net, {name: rows(net.get_submodule(name), [1, 5, 9, 13], bias=True) for name in "qk"}, X
    )
    assert net.q.out_features == 16
    assert "q rows 1, 5, 9, 13 stay: the model's code wants parts of equal size" in str(report)


def test_a_head_of_queries_alone_stays_and_says_why() -> None:
    net = randomise(SelfAttention(fused=True))
    report = speed_up(net, {"q": rows(net.q, [0, 1, 2, 3], bias=True)}, X)
    assert net.q.out_features == 16
    assert "q rows 0, 1, 2, 3 stay" in str(report)


class Multihead(nn.Module):
    """``nn.MultiheadAttention`` between two linear layers."""

    def __init__(self, **options: bool) -> None:
        super().__init__()
        self.first = nn.Linear(16, 16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True, **options)
        self.last = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(self.attention(x, x, x, need_weights=False)[0])


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"add_bias_kv": True}, {"add_zero_attn": True}])
def test_multihead_attention_loses_a_masked_head(options: dict[str, bool]) -> None:
    net = randomise(Multihead(**options))
    mask = torch.ones(48, 16)
    for start in (0, 16, 32):
        mask[start + 8 : start + 12] = 0
    masks = {"attention": {"in_proj_weight": mask}}
    report = speed_up(net, masks, X)
    bias = options.get("bias", True)
    if options.get("add_bias_kv"):
        assert net.attention.num_heads == 4  # the extra value is no constant of the others
    elif options.get("add_zero_attn") and bias:
        assert net.attention.num_heads == 4
    else:
        assert net.attention.num_heads == 3 and net.attention.out_proj.weight.shape == (16, 12)
        (change,) = [change for change in report.modules if change.path == "attention"]
        assert "in_proj_weight (48, 16)" in change.before and "in_proj_weight (36, 16)" in change.after
    assert report.exact


def test_twice_in_a_row() -> None:
    net = randomise(Multihead())
    original = net.first.weight.shape
    for _ in range(2):
        width = net.attention.out_proj.weight.shape[1]
        weight = net.attention.in_proj_weight
        mask = torch.ones_like(weight)
        for start in range(0, 3 * width, width):
            mask[start : start + 4] = 0
        reference = masked_copy(net, {"attention": {"in_proj_weight": mask}})
        secateur.speedup(net, (X,), masks={"attention": {"in_proj_weight": mask}})
        assert error(reference, net, X) < 1e-5
    assert net.attention.num_heads == 2 and net.first.weight.shape == original


class Tokens(nn.Module):
    """An embedding with a position, a class token, a norm and two linear layers."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 16)
        self.position = nn.Parameter(torch.randn(1, 6, 16))
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.norm = nn.LayerNorm(16) if norm else nn.Identity()
        self.up, self.down = nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(ids), -1, -1), self.embed(ids)], 1) + self.position
        return self.down(F.gelu(self.up(self.norm(x))))


def token_masks(gone: list[int]) -> dict[str, dict[str, Tensor]]:
    keep = torch.ones(16)
    keep[gone] = 0
    return {"embed": {"weight": keep[None]}, "": {"position": keep[None, None], "token": keep[None, None]}}


def test_embedding_columns_with_position_and_token() -> None:
    ids = torch.randint(0, 11, (2, 5))
    net = randomise(Tokens(norm=False))
    report = speed_up(net, token_masks([2, 3]), ids)
    assert net.embed.embedding_dim == net.up.in_features == 14 and report.exact


def test_layer_norm_keeps_the_stream_unless_told_otherwise() -> None:
    ids = torch.randint(0, 11, (2, 5))
    masks = token_masks([2, 3])
    net = randomise(Tokens(norm=True))
    report = speed_up(net, masks, ids)
    assert net.embed.embedding_dim == 16
    assert "the statistics of a LayerNorm make something of it" in str(report)
    keep = torch.ones(16)
    keep[[2, 3]] = 0
    masks["norm"] = {"weight": keep, "bias": keep}
    report = speed_up(net, masks, ids)
    assert net.embed.embedding_dim == 16 and report.exact
    assert "LayerNorm's mean and variance are taken over it (norm)" in str(report)
    report = speed_up(net, masks, ids, statistics="shrink")
    assert net.embed.embedding_dim == 14 and "LayerNorm" in report.inexact[0]


def test_embedding_rows_stay_with_the_reason() -> None:
    net = randomise(Tokens(norm=False))
    mask = torch.ones(11, 1)
    mask[4] = 0
    report = speed_up(net, {"embed": {"weight": mask}}, torch.randint(0, 11, (2, 5)))
    assert "embed row 4 stays: its positions are addressed by an index tensor" in str(report)


class Recurrent(nn.Module):
    """A recurrent layer between a linear layer and a head."""

    def __init__(self, kind: type, **options: int) -> None:
        super().__init__()
        self.first = nn.Linear(16, 6)
        self.rnn = kind(6, 8, batch_first=True, **options)
        self.last = nn.Linear(8 * (2 if options.get("bidirectional") else 1), 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.rnn(self.first(x))[0])


GATES = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}


def unit_masks(net: Recurrent, kind: type, gone: list[int]) -> dict[str, dict[str, Tensor]]:
    masks = {}
    for name, parameter in net.rnn.named_parameters():
        keep = torch.ones(8)
        keep[gone] = 0
        rows_ = keep.repeat(GATES[kind])
        masks[name] = rows_ if parameter.dim() == 1 else rows_[:, None].expand_as(parameter).clone()
    return {"rnn": masks}


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}])
def test_hidden_units_that_are_masked_go(kind: type, options: dict[str, int]) -> None:
    net = randomise(Recurrent(kind, **options))
    report = speed_up(net, unit_masks(net, kind, [1, 6]), X)
    assert net.rnn.hidden_size == 6 and report.exact


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_constant_inputs_go_into_the_bias_of_a_recurrent_layer(kind: type) -> None:
    net = randomise(Recurrent(kind))
    report = speed_up(net, {"first": rows(net.first, [0, 5])}, X)
    assert net.first.out_features == net.rnn.input_size == 4
    assert [f.bias for f in report.folded] == ["rnn.bias_ih_l0"]


def test_units_whose_biases_stay_are_alive() -> None:
    net = randomise(Recurrent(nn.LSTM))
    masks = unit_masks(net, nn.LSTM, [1])
    masks["rnn"] = {name: mask for name, mask in masks["rnn"].items() if "bias" not in name}
    speed_up(net, masks, X)
    assert net.rnn.hidden_size == 8


def test_cells_in_a_loop() -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.cell, self.last = nn.Linear(16, 6), nn.GRUCell(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x, h = self.first(x), x.new_zeros(len(x), 8 if not hasattr(self, "n") else 0)
            for step in x.unbind(1):
                h = self.cell(step, h)
            return self.last(h)

    net = randomise(Loop())
    speed_up(net, {"first": rows(net.first, [0, 5])}, X)
    assert net.cell.input_size == 4
