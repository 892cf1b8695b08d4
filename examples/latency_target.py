"""A ResNet that takes half of its time on this machine, found by a knapsack over measured operators.

    python examples/latency_target.py
    python examples/latency_target.py --model resnet50 --share 0.3

Prints what was requested, predicted and measured in each round, and measures the result anew, in turn with
the whole model. The weights are random: with trained ones, collect scores with a criterion first.
"""

from __future__ import annotations

import argparse

import torch
import torchvision

import secateur


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Cut a model to a share of its latency.")
    parser.add_argument("--model", default="resnet18", help="name of a torchvision model")
    parser.add_argument("--share", type=float, default=0.5, help="of its measured latency")
    parser.add_argument("--side", type=int, default=224, help="pixels of an image")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = torchvision.models.get_model(given.model, weights=None).eval()

    ir = secateur.PruningIR(model)
    snapshot = ir.create_snapshot("main", args=(torch.randn(1, 3, given.side, given.side),))
    table = secateur.cost.LatencyTable(threads=1)
    whole = table.bind(snapshot).full
    print(f"{given.model} takes {whole * 1e3:.2f} ms; the target is {given.share * whole * 1e3:.2f} ms")

    labels = secateur.KnapsackLabelSelector(given.share * whole, table).select(ir)
    small = ir.prune(labels=labels)
    share = table.share(small.model, model)
    print(f"{len(labels)} labels removed; measured anew: {share:.1%} of the whole model's time")
    print(small.report)


if __name__ == "__main__":
    main()
