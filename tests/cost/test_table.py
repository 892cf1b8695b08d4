"""The latency table: what it measures, remembers, predicts and writes."""

import itertools
import json

import pytest
import torch
import torchvision
from torch import nn

from secateur import MeasurementError, PruningIR, UniformLabelSelector, measure_latency
from secateur.cost import LatencyTable


class Ticks:
    """A clock that goes on by one second whenever it is read."""

    def __init__(self) -> None:
        self.count = itertools.count()

    def __call__(self) -> float:
        return float(next(self.count))


def mlp(width: int = 64) -> PruningIR:
    ir = PruningIR(
        nn.Sequential(nn.Linear(16, width), nn.ReLU(), nn.Linear(width, width), nn.Linear(width, 8))
    )
    ir.create_snapshot("main", args=(torch.ones(4, 16),))
    return ir


def test_latency_is_measured_by_the_clock_and_leaves_the_model_alone():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout()).train()
    latency = measure_latency(model, (torch.ones(1, 4),), runs=5, clock=Ticks())
    assert (latency.median, latency.low, latency.high, latency.runs) == (1.0, 1.0, 1.0, 5)
    assert model.training
    assert "1000.00 ms" in str(latency)


def test_several_models_are_measured_in_turn():
    order = []

    class Noting(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            order.append(self.name)
            return x

    models = {"a": Noting("a"), "b": Noting("b")}
    results = measure_latency(models, (torch.ones(1),), runs=3, warmup=1)
    assert order == ["a", "b"] * 4
    assert set(results) == {"a", "b"}


def test_threads_are_given_back():
    before = torch.get_num_threads()
    measure_latency(nn.Linear(2, 2), (torch.ones(1, 2),), threads=before + 1, runs=2)
    assert torch.get_num_threads() == before


def test_another_device_gets_copies():
    model = nn.Linear(2, 2)
    latency = measure_latency(model, (torch.ones(1, 2),), device="cpu", runs=2)
    assert latency.runs == 2


def test_operators_are_measured_once_for_equal_shapes():
    table = LatencyTable(runs=2, clock=Ticks())
    predict = table.bind(mlp().snapshot())
    assert table.measured == len(table.seconds) == 4  # three layers of different shapes, one ReLU
    predict({})
    predict({"0": 32})
    measured = table.measured
    predict({"0": 32})
    LatencyTable.bind(table, mlp().snapshot())({"0": 32})
    assert table.measured == measured


def test_the_whole_models_time_corrects_the_sum():
    table = LatencyTable(runs=3, clock=Ticks())
    predict = table.bind(mlp().snapshot())
    assert predict({}) == predict.full == 1.0  # four operators of a second each, and a model of one


@pytest.mark.parametrize(
    ("size", "grid"), [(64, [16, 32, 48, 64]), (20, [8, 16, 20]), (3, [3]), (512, [128, 256, 384, 512])]
)
def test_grids_end_at_the_full_size(size, grid):
    assert LatencyTable(levels=4, multiple=8).grid(size) == grid


def test_between_the_points_of_the_grid_time_is_interpolated():
    table = LatencyTable(runs=2, levels=2, multiple=8)
    ir = PruningIR(nn.Sequential(nn.Linear(16, 64), nn.Linear(64, 8)))
    ir.create_snapshot("main", args=(torch.ones(4, 16),))
    predict = table.bind(ir.snapshot())
    predict({"0": 32})
    for key in table.seconds:  # as if time were known: a millisecond a unit of width
        width = 32 if "[4x32]" in key or "[32x16]" in key else 64
        table.seconds[key] = width * 1e-3
    predict = table.bind(ir.snapshot())
    half, middle, full = (predict({"0": width}) for width in (32, 48, 64))
    assert half == pytest.approx(full / 2)
    assert middle == pytest.approx((half + full) / 2)
    assert predict({"0": 5}) == half  # below the grid, its first point


def test_curves_are_the_same_as_single_questions():
    ir = PruningIR(torchvision.models.resnet18(weights=None))
    ir.create_snapshot("main", args=(torch.zeros(1, 3, 32, 32),))
    predict = LatencyTable(runs=2, levels=2).bind(ir.snapshot())
    base = {"layer1.0.conv1": 32, "conv1": 40}
    alternatives = [{"layer2.0.conv1": 64}, {"conv1": 64}, {}]
    expected = [predict({**base, **other}) for other in alternatives]
    assert predict.curve(base, alternatives) == pytest.approx(expected)


def test_predictions_follow_the_sizes_of_a_convolution_net():
    ir = PruningIR(torchvision.models.mobilenet_v2(weights=None))
    snapshot = ir.create_snapshot("main", args=(torch.zeros(1, 3, 96, 96),))
    predict = LatencyTable(runs=3, levels=2, threads=1).bind(snapshot)
    half = {g.name: g.size // 2 for g in ir.groups()}
    assert 0.1 * predict.full < predict(half) < 0.8 * predict.full


def test_whole_modules_are_taken_in_proportion_to_their_work():
    ir = PruningIR(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True))
    snapshot = ir.create_snapshot("main", args=(torch.randn(2, 9, 32),))
    predict = LatencyTable(runs=3).bind(snapshot)
    heads = next(g for g in ir.groups() if g.role == "heads")
    assert predict({heads.name: 1}) < predict({})


def test_a_table_survives_a_file(tmp_path):
    table = LatencyTable(runs=2, levels=3)
    ir = mlp()
    table.bind(ir.snapshot())({"0": 20})
    table.save(tmp_path / "table.json")
    content = json.loads((tmp_path / "table.json").read_text())
    assert content["device"]["torch"] == torch.__version__
    assert any("aten.linear.default" in key for key in content["seconds"])
    back = LatencyTable.load(tmp_path / "table.json", runs=2)
    assert back.seconds == table.seconds
    assert back.levels == 3
    back.bind(ir.snapshot())({"0": 20})
    assert back.measured == 0


def test_a_table_of_another_device_is_told(tmp_path):
    table = LatencyTable()
    table.device["processor"] = "an abacus"
    table.save(tmp_path / "table.json")
    with pytest.warns(UserWarning, match="measured elsewhere .processor: an abacus there"):
        LatencyTable.load(tmp_path / "table.json")


@pytest.mark.parametrize("text", ["", "[]", '{"format": 9}', '{"format": 1, "seconds": {"a": "fast"}}'])
def test_other_files_are_refused(text, tmp_path):
    (tmp_path / "table.json").write_text(text)
    with pytest.raises(MeasurementError, match="table"):
        LatencyTable.load(tmp_path / "table.json")


def test_a_table_without_inputs_cannot_measure_models():
    with pytest.raises(MeasurementError, match="the table has no inputs"):
        LatencyTable()(nn.Linear(2, 2))


def test_operator_times_follow_balances():
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(8, 64), nn.Linear(32, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a, b = self.up(x).chunk(2, -1)
            return self.down(a * torch.sigmoid(b))

    ir = PruningIR(Halves())
    ir.create_snapshot("main", args=(torch.ones(4, 8),))
    labels = UniformLabelSelector(0.5).select(ir)
    predict = LatencyTable(runs=2, clock=Ticks()).bind(ir.snapshot())
    widths = {g.name: g.size // 2 for g in ir.groups()}
    assert predict(widths) == predict({})  # a second each, however small
    assert labels
