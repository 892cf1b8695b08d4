"""Memory: layers whose sums would be too large, and what was freed."""

import platform
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from secateur import PruningIR, Recovery
from secateur.recovery._memory import release_memory


def test_of_a_layer_with_very_many_weights_the_channels_are_mixed() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 12, 1), nn.Tanh(), nn.Conv1d(12, 4, 9, padding=4)).eval()
    with torch.no_grad():  # half of the channels repeat the others, nearly
        model[0].weight[6:] = model[0].weight[:6] + 0.05 * torch.randn(6, 2, 1)
        model[0].bias[6:] = model[0].bias[:6]
    loader = [torch.randn(16, 2, 40) for _ in range(4)]
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(loader[0],))
    labels = ir.groups()[0].labels[6:]
    # So little memory that 6 x 9 unknowns an output are too many.
    report = ir.prune(labels=labels, recover=Recovery(loader, max_memory=2 * 5 * 8 * 30**2)).report
    assert report is not None
    assert report.recovery is not None
    (stage,) = report.recovery.stages
    assert (stage.what, stage.features) == ("solved", 6)
    assert report.recovery.after < 0.2 * report.recovery.before


def test_of_a_linear_layer_with_very_many_weights_the_mean_is_put_right() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 3))
    loader = [torch.randn(64, 6) for _ in range(4)]
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(loader[0],))
    labels = ir.groups()[0].labels[:16]
    report = ir.prune(labels=labels, recover=Recovery(loader, max_memory=2 * 5 * 8 * 40**2)).report
    assert report is not None
    assert report.recovery is not None
    assert [stage.what for stage in report.recovery.stages] == ["bias"]
    assert report.recovery.skipped == {
        "2": "its second moments do not fit into max_memory, only its mean was put right"
    }
    assert report.recovery.after < report.recovery.before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked to give memory back")
def test_what_was_freed_in_another_thread_goes_back_to_the_system() -> None:
    kept: list[bytearray] = []

    def work() -> None:
        blocks = [bytearray(64_000) for _ in range(2_000)]
        kept.append(blocks[-1])  # on top: so what is below stays with the allocator

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    before = resident_bytes()
    release_memory()
    assert resident_bytes() < before - 60_000_000


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
