"""Scores of two processes are the scores of one."""

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing, nn

import secateur
from secateur import LossAwareCriterion, PruningIR


def model() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def batches() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(size, 4, generator=generator) for size in (4, 6, 3, 5)]


def score(ir: PruningIR, own: list[torch.Tensor], *, bad: bool = False, **settings) -> LossAwareCriterion:
    with LossAwareCriterion(ir, **settings) as collect:
        for batch in own:
            loss = collect(batch).square().mean()
            (loss * float("nan") if bad else loss).backward()
    return collect


def work(rank: int, port: int, folder: str, case: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    try:
        result = cases[case](rank)
        torch.save(result, Path(folder) / f"{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


def shared(rank: int) -> dict:
    ir = PruningIR(model())
    collect = score(ir, batches()[rank::2])
    labels = secateur.GlobalScoreLabelSelector(0.4).select(ir)
    return {"scores": collect.scores, "batches": collect.batches, "labels": [label.index for label in labels]}


def wrapped(rank: int) -> dict:
    own = nn.parallel.DistributedDataParallel(model())
    return {"scores": score(PruningIR(own), batches()[rank::2]).scores}


def failing(rank: int) -> dict:
    try:
        score(PruningIR(model()), batches()[rank::2], bad=rank == 1)
    except secateur.ScoreError as error:
        return {"error": str(error)}
    return {}


def idle(rank: int) -> dict:
    ir = PruningIR(model())
    ir.create_snapshot("main", args=(batches()[0],))
    return {"scores": score(ir, batches() if rank == 0 else []).scores}


def unready(rank: int) -> dict:
    try:
        score(PruningIR(model()), batches() if rank == 0 else [])
    except secateur.ScoreError as error:
        return {"error": str(error)}
    return {}


cases = {"shared": shared, "wrapped": wrapped, "failing": failing, "idle": idle, "unready": unready}


def run(case: str, folder: Path) -> list[dict]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.spawn(work, (port, str(folder), case), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("case", ["shared", "wrapped", "idle"])
def test_two_processes_give_what_one_gives(case, tmp_path):
    results = run(case, tmp_path)
    alone = score(PruningIR(model()), batches()).scores
    for result in results:
        torch.testing.assert_close(result["scores"]["0"], alone["0"], rtol=1e-6, atol=0)
    assert torch.equal(results[0]["scores"]["0"], results[1]["scores"]["0"])
    if case == "shared":
        assert [result["batches"] for result in results] == [4, 4]
        assert results[0]["labels"] == results[1]["labels"]


def test_a_failure_of_one_process_ends_both(tmp_path):
    first, second = run("failing", tmp_path)
    assert "1 other processes failed" in first["error"]
    assert "is not finite in batch 1" in second["error"]


def test_a_process_without_data_or_snapshot_is_told(tmp_path):
    for result in run("unready", tmp_path):
        assert "1 processes got no batch and have not recorded the model" in result["error"]
