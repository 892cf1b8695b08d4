"""One of two processes that collect scores together; started by test_distributed.py."""

import torch
from torch import nn

import secateur
from gloo import main
from secateur import LossAwareCriterion, PruningIR
from secateur.calibration import measure_scores


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


def mean_square(output: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
    return output.square().mean()


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


def measured(rank: int) -> dict:
    ir = PruningIR(model())
    ir.create_snapshot("main", args=(batches()[0],))
    return {"scores": measure_scores(ir, batches()[rank::2], mean_square, compensate=None).scores}


def short(rank: int) -> dict:
    ir = PruningIR(model())
    ir.create_snapshot("main", args=(batches()[0],))
    try:
        measure_scores(ir, batches()[: 1 + rank], mean_square)
    except secateur.ScoreError as error:
        return {"error": str(error)}
    return {}


CASES = {
    "measured": measured,
    "short": short,
    "shared": shared,
    "wrapped": wrapped,
    "failing": failing,
    "idle": idle,
    "unready": unready,
}


if __name__ == "__main__":
    main(CASES)
