"""One of two processes that collect scores together; started by test_distributed.py.

Arguments: rank, port, folder for the result.
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

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


CASES = {"shared": shared, "wrapped": wrapped, "failing": failing, "idle": idle, "unready": unready}


def work(rank: int, port: str, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    try:
        torch.save({name: case(rank) for name, case in CASES.items()}, folder / f"{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    work(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
    # Past the interpreter's shutdown, in which threads of gloo that are still alive can abort a process
    # that has done its work ("terminate called without an active exception", seen on a loaded machine).
    os._exit(0)
