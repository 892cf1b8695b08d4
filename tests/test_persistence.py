"""Saving and loading: the same predictions, to the bit, from code that knows the original sizes."""

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

import secateur
from oracle import randomise
from saved_models import INPUT, Factory, Small, on_meta, predictions, pruned
from secateur import PersistenceError, PruningIR
from secateur.persistence import read_recipe
from secateur.persistence._positions import count, from_text, to_text
from secateur.surgery import MultiheadAttention


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "small.safetensors"


# -- the same predictions --------------------------------------------------------------------------


def resnet18() -> nn.Module:
    return pytest.importorskip("torchvision").models.resnet18()


def mobilenet_v3_small() -> nn.Module:
    return pytest.importorskip("torchvision").models.mobilenet_v3_small()


def vit_b_16() -> nn.Module:
    return pytest.importorskip("torchvision").models.vit_b_16(image_size=32)


def vit_xsmall() -> nn.Module:
    return pytest.importorskip("timm").create_model("vit_xsmall_patch16_clip_224")


def llama() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 64, "intermediate_size": 96, "vocab_size": 80}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = transformers.LlamaConfig(**sizes, **heads, tie_word_embeddings=True)
    return transformers.LlamaForCausalLM(config)


IMAGE = {"resnet18": 64, "mobilenet_v3_small": 64, "vit_b_16": 32, "vit_xsmall": 224}


@pytest.mark.parametrize("factory", [resnet18, mobilenet_v3_small, vit_b_16, vit_xsmall, llama])
def test_models_of_others_predict_the_same_after_two_prunings(factory: Factory, path: Path) -> None:
    if factory is llama:
        inputs: dict[str, Any] = {"input_ids": torch.randint(0, 80, (2, 7))}
        args: tuple[Any, ...] = ()
    else:
        inputs, args = {}, (torch.randn(1, 3, *[IMAGE[factory.__name__]] * 2),)
    small = pruned(factory(), *args, times=2, **inputs)
    secateur.save(small, path)
    want = predictions(small.model, *args, **inputs)
    for build in (factory, on_meta(factory)):
        loaded = secateur.load(build, path)
        assert type(loaded) is type(small.model)
        assert torch.equal(predictions(loaded, *args, **inputs), want)


def test_attention_that_was_replaced_is_replaced_again_with_its_scale(path: Path) -> None:
    def factory() -> nn.Module:
        return nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dropout=0.0)

    x = torch.randn(2, 5, 16)
    small = pruned(factory(), x, times=2)
    recipe = secateur.save(small, path)
    loaded = secateur.load(factory, path)
    attention = loaded.get_submodule("self_attn")
    assert isinstance(attention, MultiheadAttention) and attention.scale == 4**-0.5
    assert recipe.refits[0].numbers == {"num_heads": small.model.self_attn.num_heads}
    assert torch.equal(predictions(loaded, x), predictions(small.model, x))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers_know_their_loaded_weights(kind: type[nn.RNNBase], path: Path) -> None:
    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = kind(4, 8, batch_first=True)
            self.head = nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.rnn(x)[0])

    x = torch.randn(2, 5, 4)
    small = pruned(Sequence(), x)
    secateur.save(small, path)
    loaded = secateur.load(on_meta(Sequence), path)
    assert torch.equal(predictions(loaded, x), predictions(small.model, x))
    assert loaded.get_submodule("rnn").hidden_size < 8


def test_buffers_attributes_and_modes(path: Path) -> None:
    small = pruned(Small(), INPUT)
    recipe = secateur.save(small, path)
    assert recipe.plain == ("table",)

    def factory() -> nn.Module:
        model = Small().train()
        model.last.weight.requires_grad_(False)
        return model

    loaded = secateur.load(factory, path)
    assert loaded.training and not loaded.last.weight.requires_grad
    assert loaded.first.weight.requires_grad and isinstance(loaded.first.weight, nn.Parameter)
    assert list(loaded.state_dict()) == list(Small().state_dict())  # "shift" is still not in it
    assert torch.equal(loaded.shift, small.model.shift) and len(loaded.shift) < 8
    assert torch.equal(loaded.table, small.model.table)
    assert loaded.heads == small.model.heads and loaded.last.in_features == len(loaded.shift)
    assert torch.equal(predictions(loaded, INPUT), predictions(small.model, INPUT))


def test_half_precision_in_channels_last(path: Path) -> None:
    def factory() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 4, 1))

    model = factory().to(torch.bfloat16, memory_format=torch.channels_last)
    x = torch.randn(1, 3, 8, 8, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    small = pruned(model, x)
    secateur.save(small, path)
    for build in (factory, on_meta(factory)):
        loaded = secateur.load(build, path)
        assert torch.equal(predictions(loaded, x), predictions(small.model, x))
        for left, right in zip(loaded.parameters(), small.model.parameters(), strict=True):
            assert left.dtype is torch.bfloat16 and left.stride() == right.stride()


def test_the_device_can_be_chosen(path: Path) -> None:
    secateur.save(pruned(Small(), INPUT), path)
    loaded = secateur.load(Small, path, device="meta")
    assert all(tensor.is_meta for tensor in loaded.state_dict().values())


# -- the recipe ------------------------------------------------------------------------------------


def test_recipes_of_several_prunings_compose_to_positions_in_the_original(path: Path) -> None:
    original = randomise(Small(32))
    small = pruned(copy.deepcopy(original), INPUT, times=3)
    secateur.save(small, path)
    recipe = read_recipe(path)
    weights = load_file(path)
    for name in ("first.weight", "norm.running_mean", "last.weight", "shift", "table"):
        kept, tensor = recipe.tensors[name], getattr_path(original, name)
        assert kept.before == tuple(tensor.shape) and kept.after == tuple(weights[name].shape)
        for dim, text in enumerate(kept.positions):
            if text is not None:
                tensor = tensor.index_select(dim, torch.from_numpy(from_text(text)))
        assert torch.equal(tensor, weights[name])
    (heads,) = recipe.attributes
    assert (str(heads.place), heads.before, heads.after) == ("heads", 16, small.model.heads)
    assert "first.weight" in str(recipe) and "(32, 4)" in str(recipe)


def getattr_path(module: Any, name: str) -> torch.Tensor:
    for step in name.split("."):
        module = getattr(module, step)
    return module.detach()


def test_the_file_is_plain_safetensors_with_tied_weights_once(path: Path) -> None:
    small = pruned(llama(), input_ids=torch.randint(0, 80, (2, 7)))
    recipe = secateur.save(small, path)
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
        metadata = file.metadata()
    assert recipe.tied == {"lm_head.weight": "model.embed_tokens.weight"}
    assert names | {"lm_head.weight"} >= set(small.model.state_dict())
    assert "lm_head.weight" not in names
    assert json.loads(metadata["secateur"])["version"] == 1
    loaded = secateur.load(llama, path)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight


def test_weights_tied_after_the_factory_are_tied_again(path: Path) -> None:
    def factory() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))

    model = factory()
    model[2].weight = model[0].weight
    secateur.save(model, path)
    loaded = secateur.load(factory, path)
    assert loaded[2].weight is loaded[0].weight
    assert torch.equal(predictions(loaded, INPUT), predictions(model, INPUT))


def test_a_config_that_models_share_is_left_alone(path: Path) -> None:
    class Config:
        heads = 4

    config = Config()
    config.heads = 4

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = config
            self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.up(x).view(-1, self.config.heads, 2)
            return self.down(x.flatten(1))

    def factory() -> nn.Module:
        return nn.Sequential(Block(), Block())

    # Two modules read one number, and a cut may have found it through either.
    ir = PruningIR(randomise(factory()).eval())
    ir.create_snapshot("main", (INPUT,))
    for seed in range(2):
        removed = [label for group in ir.groups() for label in group.labels[: len(group.labels) // 3]]
        ir = ir.prune(labels=removed)
        assert ir.report is not None and ir.report.plan.attributes, seed
    recipe = secateur.save(ir, path)
    assert {(change.before, change.after) for change in recipe.attributes} == {(4, 2)}
    for _ in range(2):
        loaded = secateur.load(factory, path)
        assert torch.equal(predictions(loaded, INPUT), predictions(ir.model, INPUT))
    assert config.heads == 4


def test_what_was_done_to_a_model_goes_where_the_model_goes(path: Path) -> None:
    small = pruned(Small(), INPUT).model
    averaged = torch.optim.swa_utils.AveragedModel(small)
    copies = {
        "deepcopy": copy.deepcopy(small),
        "pickle": pickle.loads(pickle.dumps(small)),
        "average": averaged.module,
        "DataParallel": nn.DataParallel(small),
    }
    for kind, model in copies.items():
        secateur.save(model, path)
        loaded = secateur.load(Small, path)
        assert torch.equal(predictions(loaded, INPUT), predictions(small, INPUT)), kind


def test_parts_and_wholes_can_be_saved(path: Path) -> None:
    part = pruned(Small(), INPUT).model

    def whole() -> nn.Module:
        return nn.Sequential(Small(), nn.Linear(3, 2))

    model = nn.Sequential(part, nn.Linear(3, 2))
    secateur.save(model, path)
    assert torch.equal(predictions(secateur.load(whole, path), INPUT), predictions(model, INPUT))

    small = pruned(whole(), INPUT).model
    secateur.save(small[0], path)
    loaded = secateur.load(Small, path)
    assert torch.equal(predictions(loaded, INPUT), predictions(small[0], INPUT))
    assert loaded.last.out_features < 3


def test_a_pruning_that_is_taken_back_leaves_no_note(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise secateur.VerificationError("no")

    monkeypatch.setattr("secateur._cutting._judge", refuse)
    model = Small()
    with pytest.raises(secateur.VerificationError):
        secateur.prune(model, (INPUT,), inplace=True)
    assert not secateur.save(model, path).tensors


def test_a_layer_put_in_afterwards_is_the_factorys_business(path: Path) -> None:
    small = pruned(Small(), INPUT).model
    width = small.last.in_features
    small.last = nn.Linear(width, 7)
    secateur.save(small, path)

    def factory() -> nn.Module:
        model = Small()
        model.last = nn.Linear(width, 7)
        return model

    assert torch.equal(predictions(secateur.load(factory, path), INPUT), predictions(small, INPUT))
    with pytest.raises(PersistenceError, match=r"last.weight: \(3, 8\) .* model, \(7, \d\) in the file"):
        secateur.load(Small, path)


def test_a_bias_that_a_fold_made_is_put_in_its_place(path: Path) -> None:
    def factory() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1, bias=False)
        )

    x = torch.randn(1, 3, 4, 4)
    model = randomise(factory()).eval()
    nn.utils.prune.ln_structured(model[0], "weight", 0.5, n=2, dim=0)
    secateur.speedup(model, (x,))
    assert model[0].out_channels == 4 and model[2].bias is not None
    secateur.save(model, path)
    loaded = secateur.load(factory, path)
    assert isinstance(loaded[2].bias, nn.Parameter)
    assert torch.equal(predictions(loaded, x), predictions(model, x))


@given(st.sets(st.integers(0, 60)))
def test_positions_survive_as_text(positions: set[int]) -> None:
    text = to_text(sorted(positions))
    assert from_text(text).tolist() == sorted(positions) and count(text) == len(positions)


def test_a_loaded_model_is_saved_and_loaded_again(tmp_path: Path) -> None:
    def factory() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))

    x = torch.randn(1, 3, 8, 8)
    small, _ = secateur.prune(factory().eval(), (x,), ratio=0.5)
    first = secateur.save(small, tmp_path / "first.safetensors")
    loaded = secateur.load(factory, tmp_path / "first.safetensors").eval()
    second = secateur.save(loaded, tmp_path / "second.safetensors")
    assert second.tensors == first.tensors
    again = secateur.load(factory, tmp_path / "second.safetensors").eval()
    assert torch.equal(again(x), small(x))
