"""Embeddings: a scale for each row, gradients of the rows that were read, and what becomes of it in a cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compression.quantization.nets import entry
from secateur import QuantizationError
from secateur.compression.quantization import (
    BNNQuantizer,
    DoReFaQuantizer,
    LsqPlusQuantizer,
    LsqQuantizer,
    PtqQuantizer,
    QATQuantizer,
    Quantizer,
)

ROWS = torch.tensor([[127.0, -1.4, 0.6], [0.0, 0.0, 0.0], [0.5, -2.54, 1.0], [3.0, 2.0, 1.0]])
READ = torch.tensor([[0, 2], [2, 1]])


def words(**settings: Any) -> nn.Sequential:
    torch.manual_seed(0)
    table = nn.Embedding(4, 3, padding_idx=1, _weight=ROWS.clone(), **settings)
    return nn.Sequential(table, nn.Flatten(), nn.Linear(6, 2))


def table_entry(**settings: Any) -> dict[str, Any]:
    return entry(["0"], "weight", **{"granularity": "out_channel", **settings})


def trained(kind: type[Quantizer], net: nn.Sequential) -> Tensor:
    """How far each row of the table moves in two steps."""
    weight = net.get_parameter("0.weight")
    quantizer = kind(net, [table_entry()])
    before = weight.detach().clone()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        net(READ).square().mean().backward()
        optimizer.step()
        quantizer.step()
    return (weight.detach() - before).abs().sum(1)


def test_each_row_has_its_own_steps() -> None:
    """Steps of 1, of 0.02 and of 3/127; a row of zeros stays zero."""
    net = words()
    _, config = PtqQuantizer(net, [table_entry()]).calibrate([READ])
    assert config["0"]["weight"]["scale"].shape == (4, 1)
    expected = torch.tensor([[127.0, -1, 1], [0, 0, 0], [0.5, -2.54, 1]])
    torch.testing.assert_close(net[0](torch.arange(3)).detach(), expected)


@pytest.mark.parametrize("kind", [QATQuantizer, LsqQuantizer, LsqPlusQuantizer])
def test_rows_that_were_read_are_trained(kind: type[Quantizer]) -> None:
    moved = trained(kind, words())
    assert (moved > 0).tolist() == [True, False, True, False]  # row 1 is for padding, nothing read row 3


def test_sparse_gradients_pass_torchs_rounding() -> None:
    assert torch.equal(trained(QATQuantizer, words(sparse=True)), trained(QATQuantizer, words()))


@pytest.mark.parametrize("kind", [LsqQuantizer, LsqPlusQuantizer, DoReFaQuantizer, BNNQuantizer])
def test_sparse_gradients_that_do_not_pass_are_refused(kind: type[Quantizer]) -> None:
    net = words(sparse=True)
    with pytest.raises(QuantizationError, match=r"0\.weight: '0' has sparse gradients.*QATQuantizer"):
        kind(net, [table_entry()])
    assert torch.equal(net.get_parameter("0.weight"), ROWS)


@pytest.mark.parametrize("kind", [PtqQuantizer, QATQuantizer])
def test_a_table_that_is_written_to_is_refused(kind: type[Quantizer]) -> None:
    with pytest.raises(QuantizationError, match=r"0\.weight: '0' has max_norm=2.0.*set max_norm to None"):
        kind(words(max_norm=2.0), [table_entry()])


def test_a_tied_table_is_refused_by_the_name_of_the_head() -> None:
    head, table = nn.Linear(3, 4, bias=False), nn.Embedding(4, 3, max_norm=1.0)
    head.weight = table.weight
    net = nn.ModuleDict({"head": head, "table": table})
    with pytest.raises(QuantizationError, match=r"head\.weight: 'table' has max_norm"):
        PtqQuantizer(net, [entry(["head"], "weight")])


def test_ids_are_no_target() -> None:
    net = words()
    _, config = PtqQuantizer(net, [{"op_types": ["Embedding"], "quant_dtype": "int8"}]).calibrate([READ])
    assert list(config["0"]) == ["weight", "_output_0"]


@pytest.mark.parametrize("kind", [PtqQuantizer, QATQuantizer, LsqQuantizer])
def test_scales_of_rows_stay_when_columns_go(kind: type[Quantizer]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 3))
    rows = torch.arange(20).reshape(2, 10)
    quantizer = kind(net, [table_entry()])
    if isinstance(quantizer, PtqQuantizer):
        quantizer.calibrate([rows])
    scale = quantizer.get_calibration_config()["0"]["weight"]["scale"]
    keep = torch.tensor([1.0, 0, 1, 1, 0, 1, 0, 1])
    with torch.no_grad():
        masked = net[1](net[0](rows) * keep)
    small, _ = quantizer.speedup((rows,), masks={"0": {"weight": keep.expand(20, 8)}})
    assert (net[0].embedding_dim, net[1].in_features) == (5, 5)
    assert torch.equal(small.get_calibration_config()["0"]["weight"]["scale"], scale)
    torch.testing.assert_close(net(rows), masked, atol=1e-6, rtol=1e-6)
    small.unwrap_model()
