"""Grouped queries at the ratios that other tools hang on: cut, run, generate, reload."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import secateur

transformers = pytest.importorskip("transformers")

WIDTH = 16
IDS = torch.tensor([[3, 14, 15, 9, 26, 5, 35], [9, 7, 9, 3, 23, 8, 46]])

# A part of the grid of benchmarks/causal_grid.py: every family, every ratio, both head widths.
GRID = [
    ("Llama", 8, 4, False), ("Llama", 40, 8, True), ("Qwen2", 14, 2, False), ("Qwen3", 16, 8, True),
    ("Mistral", 32, 8, False), ("Gemma2", 8, 8, False), ("Phi3", 28, 4, False), ("Mixtral", 8, 2, True),
]  # fmt: skip


def build(family: str, queries: int, keys: int, wide: bool) -> Any:
    sizes: dict[str, Any] = {
        "hidden_size": queries * WIDTH // (2 if wide else 1),
        "num_hidden_layers": 2, "num_attention_heads": queries, "num_key_value_heads": keys,
        "intermediate_size": 96, "vocab_size": 50,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None,
    }  # fmt: skip
    if wide or family in ("Qwen3", "Gemma2"):
        sizes["head_dim"] = WIDTH
    if family == "Mixtral":
        sizes["num_local_experts"] = 4
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(getattr(transformers, f"{family}Config")(**sizes))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.1 * noise if parameter.dim() == 1 else 0.05 * noise)
    return model.eval()


def halves(group: secateur.Group) -> list[secateur.Label]:
    """Half of a group; an odd number of heads stays, since configs want multiples."""
    return [] if group.role and group.size % 2 else group.labels[1::2]


def generated(model: Any) -> torch.Tensor:
    return model.generate(IDS, max_new_tokens=6, do_sample=False, use_cache=True)


@pytest.mark.parametrize(("family", "queries", "keys", "wide"), GRID)
def test_heads_and_widths_are_cut_and_the_model_lives_on(
    family: str, queries: int, keys: int, wide: bool, tmp_path: Path
) -> None:
    model = build(family, queries, keys, wide)
    ir = secateur.PruningIR(model, attention="heads")
    ir.create_snapshot(kwargs={"input_ids": IDS})
    labels = [label for g in ir.groups() if g.exact for label in halves(g)]
    small = ir.prune(labels=labels)
    masked = ir.masked(labels=labels)

    assert small.report is not None and small.report.verification is not None
    assert small.report.verification.error < 1e-5
    assert small.model.config.num_key_value_heads == keys // 2
    assert small.model.config.intermediate_size == 48
    assert torch.equal(generated(small.model), generated(masked))
    small.model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(again(IDS).logits, small.model(IDS).logits)


def test_inner_width_of_fused_experts_is_one_group() -> None:
    model = build("Mixtral", 8, 2, False)
    ir = secateur.PruningIR(model)
    ir.create_snapshot(kwargs={"input_ids": IDS})
    inner = [g for g in ir.groups() if len(g.parameters) == 2 and ".mlp.experts." in str(g.parameters)]
    assert all(g.exact for g in inner)
    assert [g.size for g in inner] == [96 // 4] * 2  # grouped_mm wants rows of whole 16 bytes
    prefix = "model.layers.0.mlp.experts."
    assert {(f"{prefix}gate_up_proj", 1), (f"{prefix}down_proj", 2)} == set(inner[0].parameters)
