"""Two processes with half of the data each recover what one does with all of it."""

import sys
from pathlib import Path

import torch

from gloo import run_two

sys.path.insert(0, str(Path(__file__).parent))
from two_recoveries import batches, recovered


def test_two_processes_recover_what_one_does(tmp_path: Path) -> None:
    first, second = (r["shared"] for r in run_two(Path(__file__).parent / "two_recoveries.py", tmp_path))
    alone, report = recovered(batches())
    for name, value in alone.state_dict().items():
        assert torch.equal(first["state"][name], second["state"][name])
        torch.testing.assert_close(first["state"][name], value, rtol=1e-3, atol=1e-5)
    assert first["errors"] == second["errors"]
    assert first["errors"][1] < first["errors"][0]
    assert report.after < report.before
