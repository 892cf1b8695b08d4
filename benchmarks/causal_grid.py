"""Causal language models at every ratio of query to key/value heads, as a table.

For each family, ratio and head width: half of every exact group (heads, widths of the feed-forward
and of experts) is cut; the result has to equal the masked model, in logits and in what it generates
with a cache, and to come back from ``save_pretrained`` and ``from_pretrained``.

    python benchmarks/causal_grid.py                     # the whole grid
    python benchmarks/causal_grid.py Llama Mixtral       # some families
    python benchmarks/causal_grid.py --ratios 8:4 14:2   # some ratios
    python benchmarks/causal_grid.py --deep              # and a Qwen3-8B on meta: seconds for groups
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import secateur

FAMILIES = ("Llama", "Qwen2", "Qwen3", "Mistral", "Gemma2", "Phi3", "Mixtral")
RATIOS = ("8:8", "8:4", "8:2", "16:8", "14:2", "28:4", "32:8", "40:8")
HEAD_WIDTH = 16
VOCABULARY = 96


@dataclass
class Row:
    """What became of one model. ``error`` is the relative error of the logits, in float32."""

    name: str
    heads: str = ""
    left: float = float("nan")
    error: float = float("nan")
    generates: bool = False
    reloads: bool = False
    seconds: float = float("nan")
    config: str = ""

    @property
    def passed(self) -> bool:
        """Whether the model was cut, computes and generates the same, and comes back."""
        return self.left < 1 and self.error < 1e-4 and self.generates and self.reloads


def build(family: str, ratio: str, wide: bool) -> nn.Module:
    """A model of two layers with random weights; with ``wide`` heads are wider than hidden/heads."""
    import transformers

    queries, keys = map(int, ratio.split(":"))
    sizes: dict[str, Any] = {
        "hidden_size": queries * HEAD_WIDTH // (2 if wide else 1),
        "num_hidden_layers": 2,
        "num_attention_heads": queries,
        "num_key_value_heads": keys,
        "intermediate_size": 128,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 128,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": None,
    }
    if wide or family in ("Qwen3", "Gemma2"):
        sizes["head_dim"] = HEAD_WIDTH
    if family == "Mixtral":
        sizes["num_local_experts"] = 4
    config = getattr(transformers, f"{family}Config")(**sizes)
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():  # norms are ones, and a check must be able to fail
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.1 * noise if parameter.dim() == 1 else 0.05 * noise)
    return model


def try_model(family: str, ratio: str, wide: bool) -> Row:
    """Cut half of every exact group of one model, and hold the result against the masked model."""
    model = build(family, ratio, wide)
    row = Row(f"{family} {ratio} {'wide' if wide else 'even'}")
    ids = torch.randint(2, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(1))
    start = time.perf_counter()
    ir = secateur.PruningIR(model, attention="heads")
    ir.create_snapshot(kwargs={"input_ids": ids})
    groups = [group for group in ir.groups() if group.exact]
    labels = [label for group in groups for label in _half(group)]
    small = ir.prune(labels=labels)
    row.seconds = time.perf_counter() - start
    assert small.report is not None and small.report.verification is not None
    row.left = small.report.parameters[1] / small.report.parameters[0]
    row.error = small.report.verification.error
    row.config = small.report.config
    heads = [group for group in groups if group.role == "heads"]
    row.heads = f"{sum(len(_half(g)) for g in heads)} of {sum(g.size for g in heads)}"
    row.generates = _generate(small.model, ids).equal(_generate(ir.masked(labels=labels), ids))
    row.reloads = _reloads(small.model, ids)
    return row


def _half(group: secateur.Group) -> list[secateur.Label]:
    """Every second label; an odd number of heads stays, since configs want hidden to be a multiple."""
    return [] if group.role and group.size % 2 else group.labels[1::2]


def _generate(model: Any, ids: torch.Tensor) -> torch.Tensor:
    return model.generate(ids, max_new_tokens=8, do_sample=False, use_cache=True)


def _reloads(model: Any, ids: torch.Tensor) -> bool:
    """Whether the model comes back from files with the same logits."""
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        model.save_pretrained(folder)
        try:
            again = type(model).from_pretrained(folder).eval()
        except RuntimeError:  # shapes that the config does not say
            return False
        return torch.equal(again(ids).logits, model(ids).logits)


def deep_stack(layers: int = 36) -> str:
    """Seconds to find the groups of a Qwen3-8B without weights."""
    import transformers

    config = transformers.Qwen3Config(
        hidden_size=4096, num_hidden_layers=layers, num_attention_heads=32, num_key_value_heads=8,
        head_dim=128, intermediate_size=12288, vocab_size=151936,
    )  # fmt: skip
    with torch.device("meta"):
        model = transformers.Qwen3ForCausalLM(config).eval()
        ids = torch.zeros(1, 16, dtype=torch.int64)
    start, work = time.perf_counter(), time.process_time()
    ir = secateur.PruningIR(model)
    snapshot = ir.create_snapshot(kwargs={"input_ids": ids})
    count = len(ir.groups())
    stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in snapshot.seconds.items())
    return (
        f"Qwen3-8B on meta, {layers} layers: {count} groups of {len(snapshot.graph.nodes)} operators in "
        f"{time.perf_counter() - start:.2f} s ({time.process_time() - work:.2f} s of CPU; {stages})"
    )


def grid(families: list[str], ratios: list[str]) -> Iterator[Row]:
    for family in families:
        for ratio in ratios:
            for wide in (False, True):
                yield try_model(family, ratio, wide)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", default=list(FAMILIES))
    parser.add_argument("--ratios", nargs="+", default=list(RATIOS))
    parser.add_argument("--deep", action="store_true", help="only a Qwen3-8B-like stack on meta")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if options.deep:
        print(deep_stack())
        return
    print("| model | heads cut | parameters left | error | generates | reloads | seconds |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    for row in grid(options.families, options.ratios):
        rows.append(row)
        words = ["no", "yes"]
        print(
            f"| {row.name} | {row.heads} | {row.left:.1%} | {row.error:.0e} | {words[row.generates]} "
            f"| {words[row.reloads]} | {row.seconds:.2f} |",
            flush=True,
        )
        if not row.reloads:
            print(f"  {row.config}")
    print(f"\n{sum(row.passed for row in rows)} of {len(rows)} models pass")


if __name__ == "__main__":
    main()
