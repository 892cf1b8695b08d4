"""Configs that follow a cut: what is saved with one comes back with the same outputs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import secateur

transformers = pytest.importorskip("transformers")

IDS = torch.tensor([[3, 14, 15, 9, 26, 5, 35, 8], [9, 7, 9, 3, 23, 8, 46, 2]])
PIXELS = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
TEXT = SIZES | {"vocab_size": 50, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
CAUSAL = TEXT | {"num_key_value_heads": 2}
T5 = {"vocab_size": 50, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 4,
      "decoder_start_token_id": 0}  # fmt: skip
GPT2 = {"vocab_size": 50, "n_embd": 64, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2}

# (class, its config's sizes, inputs, which groups to halve, fields of the config afterwards)
EXPRESSIBLE = {
    "llama": ("Llama", "ForCausalLM", CAUSAL, "all", {"hidden_size": 32, "num_key_value_heads": 1,
              "num_attention_heads": 1, "intermediate_size": 48, "head_dim": 16}),
    "qwen2 without head_dim": ("Qwen2", "ForCausalLM", CAUSAL, "exact",
              {"num_attention_heads": 1, "head_dim": 16, "hidden_size": 32}),
    "phi3 fused": ("Phi3", "ForCausalLM", CAUSAL, "all", {"hidden_size": 32, "head_dim": 16}),
    "gemma2": ("Gemma2", "ForCausalLM", CAUSAL | {"head_dim": 16}, "exact", {"intermediate_size": 48}),
    "mixtral experts": ("Mixtral", "ForCausalLM", CAUSAL | {"num_local_experts": 4}, "all",
              {"intermediate_size": 48, "num_local_experts": 2, "hidden_size": 32}),
    "gpt2": ("GPT2", "LMHeadModel", GPT2, "all", {"n_embd": 32, "n_head": 2, "n_inner": None}),
    "bert": ("Bert", "ForSequenceClassification", TEXT, "all", {"hidden_size": 32, "num_attention_heads": 2}),
    "vit": ("ViT", "ForImageClassification", SIZES | {"image_size": 32, "patch_size": 8}, "all",
              {"hidden_size": 32, "intermediate_size": 48}),
    "t5": ("T5", "ForConditionalGeneration", T5, "all", {"d_ff": 48, "num_heads": 2, "d_model": 64}),
}  # fmt: skip


def build(family: str, head: str, sizes: dict[str, Any]) -> nn.Module:
    """A small model with random weights, norms included."""
    config = getattr(transformers, f"{family}Config")(**sizes)
    torch.manual_seed(0)
    model = getattr(transformers, family + head)(config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.1 * noise if parameter.dim() == 1 else 0.1 * noise)
    return model


def inputs_of(model: Any) -> dict[str, torch.Tensor]:
    if model.main_input_name == "pixel_values":
        return {"pixel_values": PIXELS}
    return {"input_ids": IDS} | ({"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {})


def halve(
    model: nn.Module, what: str = "all", *, attention: str = "heads", **options: Any
) -> secateur.PruningIR:
    """Cut half of all groups, or of the exact ones."""
    ir = secateur.PruningIR(model, attention=attention)
    ir.create_snapshot(kwargs=inputs_of(model))
    groups = [group for group in ir.groups() if what == "all" or group.exact]
    return ir.prune(labels=[label for g in groups for label in g.labels[: g.size // 2]], **options)


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs_of(model)).logits


@pytest.mark.parametrize("name", EXPRESSIBLE)
def test_pruned_model_comes_back_from_pretrained(name: str, tmp_path: Path) -> None:
    family, head, sizes, what, fields = EXPRESSIBLE[name]
    small = halve(build(family, head, sizes), what)
    assert small.report is not None and small.report.config.startswith("config: ")
    small.model.save_pretrained(tmp_path)
    again = type(small.model).from_pretrained(tmp_path).eval()
    assert torch.equal(logits(small.model), logits(again))
    assert fields == {field: getattr(again.config, field) for field in fields}


def test_field_that_was_not_set_gets_a_value() -> None:
    ir = secateur.PruningIR(build("GPT2", "LMHeadModel", GPT2))
    ir.create_snapshot(kwargs={"input_ids": IDS})
    inner = [group for group in ir.groups() if group.size == 4 * 64]
    labels = [label for group in inner for label in group.labels[:100]]
    config = ir.prune(labels=labels).model.config
    assert (config.n_inner, config.n_embd) == (156, 64)


def test_original_keeps_its_config() -> None:
    model = build("Llama", "ForCausalLM", CAUSAL)
    before = model.config.to_dict()
    halve(model)
    assert model.config.to_dict() == before


def test_submodules_share_the_changed_config() -> None:
    small = halve(build("Llama", "ForCausalLM", CAUSAL)).model
    assert {id(m.config) for m in small.modules() if hasattr(m, "config")} == {id(small.config)}


def test_inplace_changes_the_config_and_a_refused_cut_gives_it_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = build("Qwen2", "ForCausalLM", CAUSAL)
    before = model.config.to_dict()
    with monkeypatch.context() as patch:
        message = "refused after surgery"
        patch.setattr("secateur._cutting._judge", lambda *_: pytest.fail(message))
        with pytest.raises(BaseException, match=message):
            halve(model, "exact", inplace=True)
    assert model.config.to_dict() == before
    assert not hasattr(model.config, "head_dim")
    halve(model, "exact", inplace=True)
    assert model.config.head_dim == 16 and model.config.intermediate_size == 48


def test_layers_that_differ_leave_the_config_and_say_so() -> None:
    model = build("Llama", "ForCausalLM", CAUSAL)
    ir = secateur.PruningIR(model)
    ir.create_snapshot(kwargs={"input_ids": IDS})
    group = next(g for g in ir.groups() if g.name == "model.layers.0.mlp.gate_proj")
    small = ir.prune(labels=group.labels[:8])
    assert small.model.config.to_dict() == model.config.to_dict()
    assert small.report is not None
    assert "layers differ (model.layers.0.mlp" in small.report.config
    assert "secateur.save" in small.report.config


def test_frequencies_that_no_config_computes_are_refused() -> None:
    """Narrower rotary heads have the right shapes, but another table of frequencies after reloading."""
    small = halve(build("Llama", "ForCausalLM", CAUSAL), "exact", attention="both")
    assert small.report is not None
    assert "inv_freq" in small.report.config
    assert small.model.config.num_attention_heads == 4


def test_scale_that_reloading_would_change_is_refused() -> None:
    """Gemma multiplies embeddings by the root of the hidden size, which is no longer what it was."""
    small = halve(build("Gemma2", "ForCausalLM", CAUSAL | {"head_dim": 16}), "all")
    assert small.report is not None and "embed_scale" in small.report.config


def test_second_cut_goes_on_from_the_first(tmp_path: Path) -> None:
    once = halve(build("Llama", "ForCausalLM", CAUSAL | {"num_key_value_heads": 4}), "exact").model
    twice = halve(once, "exact").model
    assert (once.config.num_attention_heads, twice.config.num_attention_heads) == (2, 1)
    twice.save_pretrained(tmp_path)
    assert torch.equal(logits(type(twice).from_pretrained(tmp_path).eval()), logits(twice))


def test_secateur_load_restores_the_config(tmp_path: Path) -> None:
    model = build("Qwen2", "ForCausalLM", CAUSAL)
    small = halve(model, "exact").model
    secateur.save(small, tmp_path / "small.safetensors")
    loaded = secateur.load(lambda: model, tmp_path / "small.safetensors")
    assert loaded.config.to_dict() == small.config.to_dict()
    assert torch.equal(logits(loaded), logits(small))


@dataclass
class Sizes:
    """A config that has nothing to do with transformers."""

    widths: list[int] = field(default_factory=lambda: [12, 20])
    classes: int = 12


class Stages(nn.Module):
    """Anything with a config and ``save_pretrained`` will do."""

    def __init__(self, config: Sizes) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.Sequential(
            nn.Linear(5, config.widths[0]), nn.ReLU(),
            nn.Linear(config.widths[0], config.widths[1]), nn.ReLU(),
            nn.Linear(config.widths[1], config.classes),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)

    def save_pretrained(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self.config)))


class Holder(nn.Module):
    """A model of the user's that has such a module inside."""

    def __init__(self) -> None:
        super().__init__()
        self.part = Stages(Sizes())
        self.head = nn.Linear(12, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.part(x))


@pytest.mark.parametrize("verify", [True, False])
def test_lists_of_widths_in_a_plain_config(verify: bool) -> None:
    ir = secateur.PruningIR(Stages(Sizes()))
    ir.create_snapshot(args=(torch.randn(2, 5),))
    labels = [label for group in ir.groups() for label in group.labels[:5]]
    small = ir.prune(labels=labels, verify=verify).model
    assert small.config == Sizes(widths=[7, 15], classes=12)
    assert ir.model.config == Sizes()


def test_module_with_a_config_inside_another_model() -> None:
    ir = secateur.PruningIR(Holder())
    ir.create_snapshot(args=(torch.randn(2, 5),))
    labels = [label for group in ir.groups() for label in group.labels[:5]]
    assert ir.prune(labels=labels).model.part.config == Sizes(widths=[7, 15], classes=7)


def test_models_without_a_config_say_nothing() -> None:
    _, report = secateur.prune(
        nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), (torch.ones(1, 4),), ratio=0.5
    )
    assert report.config == ""
