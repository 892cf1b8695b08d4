"""What a notebook shows of a result that nobody assigned: one line, not every tensor."""

import torch
from torch import nn

import secateur


def test_results_are_shown_in_one_line() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    args = (torch.randn(3, 4),)
    _, report = secateur.prune(model, args, ratio=0.5)
    ir = secateur.PruningIR(model)
    ir.create_snapshot("main", args)

    shown = {kind: repr(value) for kind, value in (("report", report), ("plan", report.plan))}
    shown["snapshot"] = repr(ir.snapshot("main"))
    assert all(len(text) < 200 and "\n" not in text for text in shown.values())
    assert "parameters 51.7%" in shown["report"] and "equal" in shown["report"]
    assert shown["plan"] == "Plan(3 tensors, 0 attributes, 4 labels of 1 groups)"
    assert "'main'" in shown["snapshot"]
