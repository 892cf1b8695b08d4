"""Saving and loading: the same predictions, to the bit, from code that knows the original sizes."""

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import secateur
from oracle import random_labels, randomise
from secateur import PersistenceError, PruningIR
from secateur.persistence import read_recipe
from secateur.persistence._positions import count, from_text, to_text
from secateur.surgery import MultiheadAttention

Factory = Callable[[], nn.Module]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "small.safetensors"


def pruned(model: nn.Module, *args: Any, times: int = 1, **kwargs: Any) -> PruningIR:
    """The model in evaluation mode with about half of every group gone, ``times`` times."""
    ir = PruningIR(randomise(model).eval())
    ir.create_snapshot("main", args, kwargs)
    for seed in range(times):
        ir = ir.prune(labels=random_labels(ir.groups(), seed))
    return ir


def predictions(model: nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
    with torch.no_grad():
        result = model.eval()(*args, **kwargs)
    return result.logits if hasattr(result, "logits") else result


def on_meta(factory: Factory) -> Factory:
    def build() -> nn.Module:
        with torch.device("meta"):
            return factory()

    return build


class Small(nn.Module):
    """Everything a module can keep a size in: parameters, buffers, attributes, and a view."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first = nn.Linear(4, width)
        self.norm = nn.BatchNorm1d(width)
        self.last = nn.Linear(width, 3)
        self.heads = width // 2
        self.register_buffer("shift", torch.arange(width) / 8, persistent=False)
        self.table = torch.linspace(1, 2, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.first(x)) + self.shift
        x = x.view(-1, self.heads, 2).flatten(1)
        return self.last(x * self.table)


INPUT = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


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


# -- what does not fit -----------------------------------------------------------------------------


class Other(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x)


def with_one_more() -> nn.Module:
    model = Small()
    model.extra = nn.Parameter(torch.ones(2))
    return model


def with_one_less() -> nn.Module:
    model = Small()
    del model.norm
    return model


def with_other_heads() -> nn.Module:
    model = Small()
    model.heads = 2
    return model


def with_a_tie() -> nn.Module:
    model = Small()
    model.norm.bias = model.first.bias
    return model


MISMATCHES: dict[str, tuple[Factory, str]] = {
    "class": (Other, r"class: the factory builds .*\.Other, the file holds .*\.Small"),
    "width": (lambda: Small(16), r"first.weight: \(16, 4\) .* the file's was cut from \(8, 4\)"),
    "missing": (with_one_more, r"extra: the factory's model has it, \(2,\); the file does not"),
    "unexpected": (
        with_one_less,
        r"norm.weight: the file has it, \(\d,\); the factory's",
    ),
    "attribute": (with_other_heads, r"heads: 2 in the factory's model, 4 in the recipe"),
    "tie": (with_a_tie, r"norm.bias and first.bias: one tensor in the factory's model, two in the"),
}


@pytest.mark.parametrize("kind", MISMATCHES)
def test_a_factory_that_does_not_fit_is_told_both_sides(kind: str, path: Path) -> None:
    secateur.save(pruned(Small(), INPUT), path)
    factory, message = MISMATCHES[kind]
    with pytest.raises(PersistenceError, match=message):
        secateur.load(factory, path)
    with pytest.raises(PersistenceError, match="as it was before its first pruning"):
        secateur.load(factory, path)


def test_attention_of_another_class_does_not_fit(path: Path) -> None:
    def factory() -> nn.Module:
        return nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)

    class Mine(nn.MultiheadAttention):
        pass

    def other() -> nn.Module:
        layer = factory()
        layer.self_attn.__class__ = Mine
        return layer

    secateur.save(pruned(factory(), torch.randn(2, 5, 16)), path)
    with pytest.raises(PersistenceError, match=r"self_attn: .*Mine.* in the factory's model"):
        secateur.load(other, path)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (Small(), "is a function that builds the original model, got Small"),
        ("Small", "is a function that builds the original model, got str"),
        (lambda: None, "returned NoneType, and an nn.Module is needed"),
    ],
)
def test_a_factory_has_to_be_one(factory: Any, message: str, path: Path) -> None:
    secateur.save(Small(), path)
    with pytest.raises(TypeError, match=message):
        secateur.load(factory, path)


def rewritten(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """The file with another recipe in it."""
    with safe_open(path, framework="pt") as file:
        tree = json.loads(file.metadata()["secateur"])
    tree = change(tree) or tree
    save_file(load_file(path), path, {"secateur": json.dumps(tree)})


DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "version": (lambda t: t.update(version=2), "version 2, and this Secateur reads version 1"),
    "no object": (lambda t: [1], "the recipe is damaged"),
    "missing": (lambda t: t.pop("tensors") and None, "damaged .*KeyError: 'tensors'"),
    "kept": (
        lambda t: t["tensors"]["first.weight"].update(kept=["0-99", None]),
        "'0-99' are no positions of a dimension of 8",
    ),
    "order": (
        lambda t: t["tensors"]["first.weight"].update(kept=["3,1", None]),
        "'3,1' are no positions of a dimension of 8",
    ),
    "type": (lambda t: t["attributes"][0].update(before="4"), "expected a number, got '4'"),
    "path": (lambda t: t["attributes"][0].update(path=["__class__"]), "no path to an attribute"),
    "refit": (
        lambda t: t["refits"].append({"type": "os.system"}),
        "nothing is known of .*system",
    ),
    "after": (
        lambda t: t["tensors"]["first.weight"].update(kept=["0", None]),
        r"first.weight: \(\d, 4\) in the file, \(1, 4\) in its recipe",
    ),
    "strides": (lambda t: t["strides"].update({"first.weight": [99, 1]}), "do not fit the shape"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_recipe_is_refused(kind: str, path: Path) -> None:
    secateur.save(pruned(Small(), INPUT), path)
    change, message = DAMAGES[kind]
    rewritten(path, change)
    with pytest.raises(PersistenceError, match=message):
        secateur.load(Small, path)


def test_files_of_other_kinds_are_refused(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        secateur.load(Small, path)
    path.write_bytes(pickle.dumps(Small().state_dict()))
    with pytest.raises(PersistenceError, match="is no safetensors file"):
        secateur.load(Small, path)
    save_file(Small().state_dict(), path)
    with pytest.raises(PersistenceError, match="tensors but no recipe"):
        secateur.load(Small, path)


def test_what_cannot_be_saved_says_why_and_leaves_the_old_file(path: Path) -> None:
    secateur.save(Small(), path)
    before = path.read_bytes()
    with pytest.raises(PersistenceError, match="shift is on the meta device"):
        secateur.save(on_meta(Small)(), path)
    with pytest.raises(PersistenceError, match="GraphModule has its sizes in its code"):
        secateur.save(torch.fx.symbolic_trace(Small()), path)
    model = Small()
    model.odd = torch.eye(3).to_sparse()
    with pytest.raises(PersistenceError, match="odd is a sparse_coo tensor"):
        secateur.save(model, path)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_a_file_may_be_read_by_whoever_may_read_others(path: Path) -> None:
    secateur.save(Small(), path)
    other = path.with_name("other")
    other.touch()
    assert path.stat().st_mode == other.stat().st_mode


def test_views_of_one_memory_are_saved_apart(path: Path) -> None:
    model = Small()
    base = torch.arange(16.0)
    model.table, model.shift = base[:8], base[8:]
    secateur.save(model, path)
    assert torch.equal(secateur.load(Small, path).shift, base[8:])


@given(st.sets(st.integers(0, 60)))
def test_positions_survive_as_text(positions: set[int]) -> None:
    text = to_text(sorted(positions))
    assert from_text(text).tolist() == sorted(positions) and count(text) == len(positions)
