"""Scores of two processes are the scores of one."""

import sys
from pathlib import Path

import pytest
import torch

from gloo import run_two
from secateur import PruningIR
from secateur.calibration import measure_scores

sys.path.insert(0, str(Path(__file__).parent))
from two_processes import batches, mean_square, model, score

WORKER = Path(__file__).parent / "two_processes.py"


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[dict]:
    """What each of two processes gives."""
    return run_two(WORKER, tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("case", ["shared", "wrapped", "idle"])
def test_two_processes_give_what_one_gives(case, results):
    alone = score(PruningIR(model()), batches()).scores
    first, second = (result[case]["scores"]["0"] for result in results)
    torch.testing.assert_close(first, alone["0"], rtol=1e-6, atol=0)
    assert torch.equal(first, second)


def test_two_processes_measure_what_one_measures(results):
    ir = PruningIR(model())
    ir.create_snapshot("main", args=(batches()[0],))
    alone = measure_scores(ir, batches(), mean_square, compensate=None).scores
    first, second = (result["measured"]["scores"]["0"] for result in results)
    torch.testing.assert_close(first, alone["0"], rtol=1e-6, atol=0)
    assert torch.equal(first, second)


def test_a_process_with_too_few_samples_ends_both(results):
    for result in results:
        assert "at least 2 samples are needed" in result["short"]["error"]


def test_two_processes_select_the_same_labels(results):
    first, second = (result["shared"] for result in results)
    assert first["batches"] == second["batches"] == 4
    assert first["labels"] == second["labels"] != []


def test_a_failure_of_one_process_ends_both(results):
    first, second = (result["failing"] for result in results)
    assert "1 other processes failed" in first["error"]
    assert "is not finite in batch 1" in second["error"]


def test_a_process_without_data_or_snapshot_is_told(results):
    for result in results:
        assert "1 processes got no batch and have not recorded the model" in result["unready"]["error"]
