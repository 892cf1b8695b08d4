"""Recovery on models that nobody here wrote: it runs, changes no more than values, and does not harm."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
import transformers
from torch import nn

from secateur import PruningIR, UniformLabelSelector

Made = tuple[nn.Module, list[Any]]
WIDTHS = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "vocab_size": 99, "max_position_embeddings": 32,
}  # fmt: skip


def pictures(model: nn.Module, side: int = 32) -> Made:
    return model, [torch.randn(8, 3, side, side) for _ in range(3)]


def tokens(model: nn.Module) -> Made:
    return model, [{"input_ids": torch.randint(0, 99, (8, 12))} for _ in range(3)]


def swin() -> Made:
    kind = torchvision.models.swin_transformer.SwinTransformer
    return pictures(kind([4, 4], 16, [2, 2], [2, 2], [4, 4], num_classes=10), 64)


def vit() -> Made:
    kind = torchvision.models.VisionTransformer
    return pictures(kind(32, 8, 2, 4, 32, 64, num_classes=10))


MODELS: dict[str, Callable[[], Made]] = {
    "shufflenet": lambda: pictures(torchvision.models.shufflenet_v2_x0_5(weights=None)),
    "densenet": lambda: pictures(torchvision.models.DenseNet(8, (2, 2), 16, num_classes=10)),
    "ghostnet": lambda: pictures(timm.create_model("ghostnet_050")),
    "convnext": lambda: pictures(timm.create_model("convnext_atto", depths=(1, 1, 1, 1)), 64),
    "swin": swin,
    "vit": vit,
    "bert": lambda: tokens(transformers.BertModel(transformers.BertConfig(**WIDTHS))),
    "gpt2": lambda: tokens(
        transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                n_embd=32, n_layer=2, n_head=4, vocab_size=99, n_positions=32, bos_token_id=0, eos_token_id=0
            )
        )
    ),
    "llama": lambda: tokens(transformers.LlamaForCausalLM(transformers.LlamaConfig(**WIDTHS))),
    "mixtral": lambda: tokens(
        transformers.MixtralForCausalLM(
            transformers.MixtralConfig(**WIDTHS, num_local_experts=4, num_key_value_heads=2)
        )
    ),
}


def form(model: nn.Module) -> dict[str, Any]:
    return {name: (p.dtype, p.shape, p.requires_grad, p.grad) for name, p in model.named_parameters()}


@pytest.mark.parametrize("name", MODELS)
def test_outputs_come_nearer_and_nothing_else_changes(name: str) -> None:
    torch.manual_seed(0)
    model, loader = MODELS[name]()
    model.train()
    for parameter in model.parameters():  # no zeros that hide what is lost
        parameter.detach().add_(0.05 * torch.randn_like(parameter))
    ir, first = PruningIR(model), loader[0]
    call = {"kwargs": first} if isinstance(first, dict) else {"args": (first,)}
    ir.create_snapshot("main", **call)
    small = ir.prune(labels=UniformLabelSelector(0.3).select(ir))
    before, state = form(small.model), torch.get_rng_state()
    report = small.recover(loader)
    assert report.kept
    assert report.after < report.before
    assert any(stage.what == "solved" for stage in report.stages)
    assert not any(stage.after > stage.before for stage in report.stages)
    assert form(small.model) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in small.model.modules())
