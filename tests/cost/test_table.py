"""The latency table: what it measures, remembers, predicts and writes."""

import itertools
import json
import platform
import random
import subprocess
import sys

import pytest
import torch
import torchvision
from torch import nn

from secateur import MeasurementError, PruningIR, UniformLabelSelector, measure_latency
from secateur.cost import LatencyTable
from simulated import Spending, Stopwatch


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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about the allocator of glibc")
def test_memory_that_runs_free_is_not_faulted_in_again_while_measuring():
    code = """
import resource, torch
from secateur import measure_latency

class Large(torch.nn.Module):
    def forward(self, x):
        return [x.expand(1_000_000).clone() for _ in range(10)][0]  # 40 MB at once, and all given back

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

model, x = Large(), torch.ones(1)
model(x)
before = faults()
measure_latency(model, (x,), runs=50)
print(faults() - before)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 100_000  # 10,000 the first time; 415,000 if they came back at each run


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
    table, ir = LatencyTable(runs=3, clock=Ticks()), mlp()
    predict = table.bind(ir.snapshot())
    assert predict({}) == predict.full == 1.0  # four operators of a second each, and a model of one
    assert table.bind(ir.snapshot()) is predict, "measured once"


def test_a_busier_machine_is_not_held_against_the_model():
    watch = Stopwatch(slowing=0.01)
    whole, half = Spending(watch, 1.0), Spending(watch, 0.5)
    table = LatencyTable((torch.ones(1),), runs=20, clock=watch)
    before = table(whole)
    share = table.share(half, whole)
    assert share == pytest.approx(0.5, rel=0.01)
    assert table(half) > 0.55 * before  # what the clock says is another matter


def test_measured_is_on_the_scale_of_the_whole_model():
    ir = mlp()
    table = LatencyTable(runs=2, clock=Ticks())
    assert table.bind(ir.snapshot()).measure(nn.Linear(16, 8)) == 1.0


def test_runs_go_on_until_they_are_precise_or_time_is_up():
    draw = random.Random(0)
    watch = Stopwatch()
    model = Spending(watch, lambda: 1 + 0.1 * draw.random())

    def runs(**settings):
        return measure_latency(model, (torch.ones(1),), runs=5, clock=watch, **settings).runs

    assert runs() == 5
    rough, fine = runs(precision=0.02), runs(precision=0.002)
    assert rough < fine < 2000
    assert runs(precision=1e-9, seconds=0.0) == 5


def test_a_table_measures_each_model_at_its_own_inputs():
    table = LatencyTable(runs=2, clock=Ticks())
    table.bind(mlp().snapshot())
    other = PruningIR(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)))
    other.create_snapshot("main", args=(torch.ones(5, 3),))
    assert table.bind(other.snapshot()).full == 1.0  # measured at its own inputs: 16 wide ones would fail


@pytest.mark.parametrize(
    ("size", "grid"), [(64, [16, 32, 48, 64]), (20, [8, 16, 20]), (3, [3]), (512, [128, 256, 384, 512])]
)
def test_grids_end_at_the_full_size(size, grid):
    assert LatencyTable(levels=4, multiple=8).grid(size) == grid


def test_operators_of_one_axis_are_measured_at_every_step():
    assert LatencyTable(levels=2, multiple=8).grid(36, fine=True) == [8, 16, 24, 32, 36]
    ir = PruningIR(nn.Sequential(nn.Conv2d(3, 64, 1), nn.Conv2d(64, 64, 3, groups=64), nn.Conv2d(64, 4, 1)))
    ir.create_snapshot("main", args=(torch.ones(1, 3, 4, 4),))
    table = LatencyTable(runs=2, levels=2, multiple=8, clock=Ticks())
    predict = table.bind(ir.snapshot())
    predict({"0": 24})
    slow = LatencyTable(runs=2, levels=2, multiple=8, clock=Ticks())
    slow.seconds = {key: 100.0 for key in table.seconds if "float32[24x1x3x3]" in key}
    assert len(slow.seconds) == 1
    assert slow.bind(ir.snapshot())({"0": 24}) > 10 * predict({"0": 24})


def test_between_the_points_of_the_grid_time_is_interpolated():
    table = LatencyTable(runs=2, multiple=8)
    ir = PruningIR(nn.Sequential(nn.Linear(16, 64), nn.Linear(64, 8)))
    ir.create_snapshot("main", args=(torch.ones(4, 16),))
    predict = table.bind(ir.snapshot())
    predict({"0": 36})
    predict({"0": 5})
    known = LatencyTable(runs=2, multiple=8)
    for key in table.seconds:  # as if time were known: a millisecond a unit of width
        width = next(n for n in (8, 32, 40, 64) if f"[4x{n}]" in key or f"[{n}x16]" in key)
        known.seconds[key] = 1e-3 * width
    predict = known.bind(ir.snapshot())
    half, middle, more, full = (predict({"0": width}) for width in (32, 36, 40, 64))
    assert half == pytest.approx(full / 2)
    assert middle == pytest.approx((half + more) / 2)
    assert predict({"0": 5}) == predict({"0": 8})  # below the grid, its first point
    assert known.measured == 0


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
