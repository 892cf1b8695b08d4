"""One of two processes that recover a model together; started by test_distributed.py."""

import torch
from torch import nn

from gloo import main
from secateur import PruningIR, Recovery, RecoveryReport, UniformLabelSelector


def batches() -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(5)
    return [torch.randn(32, 6, generator=draw) for _ in range(4)]


def recovered(own: list[torch.Tensor]) -> tuple[nn.Module, RecoveryReport]:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    ir = PruningIR(model)
    ir.create_snapshot("main", args=(batches()[0],))
    small = ir.prune(labels=UniformLabelSelector(0.5).select(ir))
    return small.model, small.recover(Recovery(own, rows_per_feature=1000))


def shared(rank: int) -> dict:
    model, report = recovered(batches()[rank::2])
    return {"state": model.state_dict(), "errors": [report.before, report.after]}


if __name__ == "__main__":
    main({"shared": shared})
