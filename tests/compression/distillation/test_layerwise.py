"""The layer-wise distillers: what is compared, with what, and by how much it counts."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur
from compression.distillation.students import Around, Two, evaluator_for, predict
from secateur.compression.distillation import (
    Adaptive1dLayerwiseDistiller,
    DynamicLayerwiseDistiller,
    attention_transfer,
    kl,
    mse,
)

X = torch.linspace(-1, 1, 20).view(5, 4)


def pair(hidden: int = 6) -> tuple[Two, Two]:
    torch.manual_seed(0)
    return Two(), Two(hidden)


def test_the_loss_is_the_users_times_its_lambda_plus_all_distances_times_theirs() -> None:
    student, teacher = pair()
    config_list = [
        {"op_names": ["fc1"], "lambda": 0.75},
        {"op_names": ["fc2"], "lambda": 2, "apply_method": "kl", "link": "fc2"},
    ]
    distiller = DynamicLayerwiseDistiller(student, config_list, None, teacher, predict, 0.5)
    total = distiller.patch_loss(student(X).square().mean(), X)
    with torch.no_grad():
        expected = 0.5 * student(X).square().mean()
        expected += 0.75 * mse(student.fc1(X), teacher.fc1(X)) + 2 * kl(student(X), teacher(X))
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    total.backward()
    assert all(p.grad is not None for p in student.parameters())
    assert all(p.grad is None for p in teacher.parameters())


def test_of_several_links_the_nearest_counts() -> None:
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(4, 4), nn.Identity(), nn.Identity())
    teacher = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    far, near = mse(student[0](X), teacher[0](X)), mse(student[0](X), teacher[:3](X))
    distances = [mse(student[0](X), teacher[:n](X)).item() for n in (1, 2, 3)]
    config_list = [{"op_names": ["0"], "link": ["0", "1", "2"]}]
    distiller = DynamicLayerwiseDistiller(student, config_list, None, teacher, predict)
    student(X)
    assert distiller.distances(X).item() == pytest.approx(min(distances), rel=1e-6)
    assert min(distances) < max(far.item(), near.item())


@pytest.mark.parametrize(("form", "read", "target"), [
    (lambda x: x, lambda out: out, "_output_"),
    (lambda x: (x - 1, [x]), lambda out: out[0], "_output_0"),
    (lambda x: (0, x), lambda out: out[1], "_output_1"),
    (lambda x: {"hidden": x}, lambda out: out["hidden"], "_output_hidden"),
    (lambda x: {"hidden": x}, lambda out: out["hidden"], "_output_"),
    (lambda x: x, lambda out: out, "_input_"),
    (lambda x: x, lambda out: out, "_input_x"),
], ids=["tensor", "tuple", "nested", "key", "dict", "input", "named input"])  # fmt: skip
def test_every_kind_of_output_and_input_is_compared(form: Any, read: Any, target: str) -> None:
    torch.manual_seed(0)
    student, teacher = Around(form, read), Around(form, read)
    config_list = [{"op_names": ["say"], "target_names": [target]}]
    distiller = DynamicLayerwiseDistiller(student, config_list, None, teacher, predict)
    with torch.no_grad():
        distance = mse(student.fc(X), teacher.fc(X)).item()
    student(X)
    factor = 1 if "input" in target else 4  # the output is twice the input
    assert distiller.distances(X).item() == pytest.approx(factor * distance, rel=1e-5)


def test_a_keyword_input_and_an_output_of_transformers() -> None:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8
    )
    student, teacher = BertModel(config).eval(), BertModel(config).eval()
    ids = torch.randint(0, 50, (2, 5))
    config_list = [
        {"op_names": [""], "target_names": ["_output_last_hidden_state", "_output_pooler_output"]},
        {"op_names": ["encoder.layer.1.attention"], "target_names": ["_input_hidden_states"]},
    ]
    distiller = DynamicLayerwiseDistiller(
        student,
        config_list,
        None,
        teacher,
        lambda batch, model: model(input_ids=batch),
    )
    student(input_ids=ids)
    found = distiller.distances(ids).item()
    with torch.no_grad():
        ours, theirs = (model(input_ids=ids, output_hidden_states=True) for model in (student, teacher))
    expected = mse(ours.last_hidden_state, theirs.last_hidden_state)
    expected += mse(ours.pooler_output, theirs.pooler_output)
    expected += mse(ours.hidden_states[1], theirs.hidden_states[1])
    assert found == pytest.approx(expected.item(), rel=1e-5)


def test_a_function_of_ones_own_is_the_loss() -> None:
    student, teacher = pair()
    config_list = [{"op_names": ["fc1"], "apply_method": lambda s, t: (s - t).abs().sum()}]
    distiller = DynamicLayerwiseDistiller(student, config_list, None, teacher, predict)
    student(X)
    with torch.no_grad():  # what runs without gradients is not kept
        expected = (student.fc1(X) - teacher.fc1(X)).abs().sum().item()
    assert distiller.distances(X).item() == pytest.approx(expected, rel=1e-6)
    wrong = DynamicLayerwiseDistiller(
        pair()[0], [{"op_names": ["fc1"], "apply_method": lambda s, t: s - t}], None, teacher, predict
    )
    wrong.bound_model(X)
    with pytest.raises(secateur.DistillationError, match=r"'fc1' of the student.*it gave \(5, 6\)"):
        wrong.distances(X)


def test_a_module_that_runs_several_times_is_compared_call_by_call() -> None:
    class Twice(Two):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + super().forward(-x)

    torch.manual_seed(0)
    student, teacher = Twice(), Twice()
    distiller = DynamicLayerwiseDistiller(student, [{"op_names": ["fc1"]}], None, teacher, predict)
    student(X)
    calls = [mse(student.fc1(x), teacher.fc1(x)).item() for x in (X, -X)]
    with pytest.raises(secateur.DistillationError, match=r"was run 4 times for this loss.* 2 times"):
        distiller.distances(X)
    student(X)
    assert distiller.distances(X).item() == pytest.approx(sum(calls) / 2, rel=1e-6)


def test_nothing_is_kept_without_gradients_or_in_the_backward_pass() -> None:
    class Checkpointed(Two):
        def forward(self, x: Tensor) -> Tensor:
            return torch.utils.checkpoint.checkpoint(super().forward, x, use_reentrant=False)

    torch.manual_seed(0)
    student, teacher = Checkpointed(), Two()
    distiller = DynamicLayerwiseDistiller(student, [{"op_types": ["Linear"]}], None, teacher, predict)
    with torch.no_grad():
        loss = torch.tensor(3.0)
        student(X)
        assert distiller.patch_loss(loss, X) is loss
    for _ in range(
        2
    ):  # the first backward pass runs fc1 and fc2 again, which must not be kept for the second
        distiller.patch_loss(student(X).mean(), X).backward()
    assert not distiller.links[0].student.values


def test_gradients_accumulate_and_autocast_is_no_obstacle() -> None:
    student, teacher = pair()
    distiller = DynamicLayerwiseDistiller(student, [{"op_types": ["Linear"]}], None, teacher, predict)
    parts = X.split([2, 3])
    for part in parts:
        (distiller.patch_loss(student(part).mean() * 0, part) * len(part) / len(X)).backward()
    halves = [p.grad.clone() for p in student.parameters() if p.grad is not None]
    student.zero_grad()
    distiller.patch_loss(student(X).mean() * 0, X).backward()
    for half, parameter in zip(halves, student.parameters(), strict=True):
        assert torch.allclose(half, parameter.grad, atol=1e-6)  # type: ignore[arg-type]
    with torch.autocast("cpu", torch.bfloat16):
        loss = distiller.patch_loss(student(X).mean(), X)
    assert loss.dtype == torch.float32
    loss.backward()


def test_the_teacher_comes_back_as_it_was() -> None:
    student = Two()
    teacher = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.9), nn.BatchNorm1d(6), nn.Linear(6, 3))
    teacher[2].eval()
    flags, state = [m.training for m in teacher.modules()], copy.deepcopy(teacher.state_dict())
    config_list = [{"op_names": ["fc2"], "link": "3"}]
    distiller = DynamicLayerwiseDistiller(student, config_list, None, teacher, predict)
    losses = [distiller.patch_loss(student(X).mean(), X).item() for _ in range(2)]
    assert losses[0] == losses[1]  # dropout would show
    assert [m.training for m in teacher.modules()] == flags
    assert all(torch.equal(value, state[name]) for name, value in teacher.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in teacher.modules())
    distiller.unwrap_model()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in student.modules())


def test_copies_and_pickles_of_the_student_are_silent() -> None:
    student, teacher = pair()
    config_list = [{"op_names": ["fc1"]}, {"op_names": ["fc2"], "target_names": ["_input_"]}]
    distiller = DynamicLayerwiseDistiller(student, config_list, None, teacher, predict)
    output = student(X)
    for other in (copy.deepcopy(student), pickle.loads(pickle.dumps(student))):
        assert torch.equal(other(X), output)
    assert [len(link.student.values) for link in distiller.links] == [1, 1]


def test_a_student_learns_what_its_teacher_computes_inside() -> None:
    student, teacher = pair()
    optimizer = torch.optim.Adam(student.parameters(), 0.02)
    batches = [torch.randn(32, 4) for _ in range(4)]
    evaluator = evaluator_for(student, optimizer, lambda batch, model: model(batch).sum() * 0, batches)
    distiller = DynamicLayerwiseDistiller(student, [{"op_types": ["Linear"]}], evaluator, teacher, predict)
    with torch.no_grad():
        before = mse(student(X), teacher(X)).item(), mse(student.fc1(X), teacher.fc1(X)).item()
    assert distiller.compress(max_steps=150) is student
    distiller.unwrap_model()
    after = mse(student(X), teacher(X)).item(), mse(student.fc1(X), teacher.fc1(X)).item()
    assert after[0] < 0.1 * before[0] and after[1] < 0.1 * before[1]


# -- projections -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dummy", [True, False], ids=["dummy input", "first batch"])
def test_a_projection_is_trained_beside_the_student_and_gone_from_the_optimizer_at_the_end(
    dummy: bool,
) -> None:
    student, teacher = pair(hidden=10)
    names = list(student.state_dict())
    optimizer = torch.optim.Adam([
        {"params": [*student.fc1.parameters()], "lr": 0.01}, {"params": [*student.fc2.parameters()]}
    ])  # fmt: skip
    seen: list[int] = []

    def loss(batch: Tensor, model: nn.Module) -> Tensor:
        seen.append(sum(map(len, (group["params"] for group in optimizer.param_groups))))
        return model(batch).sum() * 0

    evaluator = evaluator_for(student, optimizer, loss, [X, -X], dummy_input=X if dummy else None)
    distiller = Adaptive1dLayerwiseDistiller(student, [{"op_names": ["fc1"]}], evaluator, teacher, predict)
    rng = torch.get_rng_state()
    distiller.compress(max_steps=60)
    assert torch.equal(rng, torch.get_rng_state())
    assert seen[:2] == ([6, 6] if dummy else [4, 6])  # there before the first step in both cases
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 2]
    assert set(optimizer.state) == set(student.parameters())
    assert list(student.state_dict()) == names
    weight, bias = distiller.parameters()
    assert weight.shape == (10, 6) and bias.shape == (10,)
    student(X)
    learned = distiller.distances(X).item()
    fresh = Adaptive1dLayerwiseDistiller(Two(), [{"op_names": ["fc1"]}], None, teacher, predict)
    fresh.bound_model(X)
    assert learned < 0.2 * fresh.distances(X).item()


def test_a_projection_of_images_is_along_channels_and_equal_widths_have_none() -> None:
    torch.manual_seed(0)
    student = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(1), nn.Linear(12, 5))
    teacher = nn.Sequential(nn.Conv2d(1, 7, 3), nn.Flatten(1), nn.Linear(28, 5))
    x = torch.randn(2, 1, 4, 4)
    config_list = [{"op_types": ["Conv2d", "Linear"]}]
    distiller = Adaptive1dLayerwiseDistiller(student, config_list, None, teacher, predict)
    distiller.track_forward(x)
    weight, bias = distiller.parameters()
    assert weight.shape == (7, 3)
    with torch.no_grad():
        projected = nn.functional.conv2d(student[0](x), weight[..., None, None], bias)
        expected = mse(projected, teacher[0](x)) + mse(student(x), teacher(x))
    student(x)
    assert distiller.distances(x).item() == pytest.approx(expected.item(), rel=1e-5)


def test_attention_transfer_needs_no_projection() -> None:
    torch.manual_seed(0)
    student, teacher = nn.Sequential(nn.Conv2d(1, 3, 3)), nn.Sequential(nn.Conv2d(1, 7, 3))
    x = torch.randn(2, 1, 6, 6)
    for kind in (DynamicLayerwiseDistiller, Adaptive1dLayerwiseDistiller):
        config_list = [{"op_names": ["0"], "apply_method": "attention_transfer"}]
        distiller = kind(student, config_list, None, teacher, predict)
        output = student(x)
        assert distiller.distances(x).item() == pytest.approx(
            attention_transfer(output, teacher(x), 1).item()
        )
        assert not distiller.parameters()
        distiller.unwrap_model()


def test_a_projection_goes_on_after_an_interruption() -> None:
    student, teacher = pair(hidden=10)
    one = Adaptive1dLayerwiseDistiller(student, [{"op_names": ["fc1"]}], None, teacher, predict)
    one.track_forward(X)
    with torch.no_grad():
        one.parameters()[0].mul_(3)
    state = pickle.loads(pickle.dumps(one.state_dict()))
    other = Adaptive1dLayerwiseDistiller(
        copy.deepcopy(student), [{"op_names": ["fc1"]}], None, teacher, predict
    )
    other.load_state_dict(state)
    assert torch.equal(one.parameters()[0], other.parameters()[0])


# -- mistakes --------------------------------------------------------------------------------------


def test_links_that_the_teacher_does_not_have_are_named_together() -> None:
    student, teacher = pair()
    config_list = [
        {"op_names": ["fc1"], "link": "fc3"},
        {"op_names": ["fc2"], "link": ["fc2", "head"], "target_names": ["_output_"]},
        {"op_names": ["fc2"], "target_names": ["weight"]},
    ]
    with pytest.raises(secateur.ConfigError) as error:
        DynamicLayerwiseDistiller(student, config_list, None, teacher, predict)
    assert error.value.problems == (
        "entry 0, key 'link' ('fc3'): the teacher has no module 'fc3'; did you mean 'fc2'?",
        "entry 1, key 'link' ('head'): the teacher has no module 'head'",
        "entry 2: fc2.weight is a parameter, and only inputs and outputs are distilled",
    )
    assert not any(m._forward_hooks for m in student.modules())


def test_a_link_that_is_not_there_by_name_and_one_too_many() -> None:
    student, teacher = pair()[0], nn.Sequential(nn.Linear(4, 6))
    with pytest.raises(secateur.ConfigError, match=r"\('auto', for 'fc1'\): the teacher has no module 'fc1'"):
        DynamicLayerwiseDistiller(student, [{"op_names": ["fc1"]}], None, teacher, predict)
    with pytest.raises(secateur.ConfigError, match="one module is expected; DynamicLayerwiseDistiller takes"):
        config_list = [{"op_names": ["fc1"], "link": ["fc1", "fc2"]}]
        Adaptive1dLayerwiseDistiller(student, config_list, None, Two(), predict)


def test_shapes_that_do_not_fit_are_named_before_training() -> None:
    student, teacher = pair(hidden=10)
    steps: list[int] = []
    optimizer = torch.optim.SGD(student.parameters(), 0.1)
    evaluator = evaluator_for(
        student, optimizer, lambda batch, model: steps.append(1) or model(batch).mean(), [X], dummy_input=X
    )
    distiller = DynamicLayerwiseDistiller(student, [{"op_names": ["fc1"]}], evaluator, teacher, predict)
    message = (
        r"'fc1' of the student, target '_output_0' has 6 features and module 'fc1' of the teacher.* 10: take "
    )
    with pytest.raises(secateur.DistillationError, match=message):
        distiller.compress(max_steps=1)
    assert not steps
    wide = nn.Sequential(nn.Linear(4, 6), nn.Unflatten(1, (2, 3)))
    other = Adaptive1dLayerwiseDistiller(Two(), [{"op_names": ["fc1"], "link": "1"}], None, wide, predict)
    with pytest.raises(
        secateur.DistillationError, match=r"has shape \(5, 6\) and .*'1'.* \(5, 2, 3\): 'mse' "
    ):
        other.track_forward(X)


def test_a_teacher_that_takes_other_inputs_is_seen_at_the_first_batch() -> None:
    student, teacher = Two(), nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 6))
    optimizer = torch.optim.SGD(student.parameters(), 0.1)
    evaluator = evaluator_for(
        student, optimizer, lambda batch, model: model(batch).mean(), [X], dummy_input=X
    )
    config_list = [{"op_names": ["fc1"], "link": "1"}]
    ids = torch.arange(5)
    distiller = DynamicLayerwiseDistiller(
        student, config_list, evaluator, teacher, lambda batch, model: model(ids)
    )
    distiller.compress(max_steps=1)
    missing = DynamicLayerwiseDistiller(Two(), config_list, None, teacher, lambda batch, model: model[0](ids))
    missing.bound_model(X)
    with pytest.raises(secateur.DistillationError, match=r"'1' of the teacher.*was not run for this loss"):
        missing.distances(X)


def test_a_teacher_that_is_the_student_and_other_nonsense() -> None:
    student = Two()
    with pytest.raises(secateur.DistillationError, match="the student has this very module"):
        DynamicLayerwiseDistiller(student, [{"op_names": ["fc1"]}], None, student, predict)
    with pytest.raises(secateur.DistillationError, match="a number from 0 on, got -1"):
        DynamicLayerwiseDistiller(student, [{"op_names": ["fc1"]}], None, Two(), predict, -1)
    distiller = DynamicLayerwiseDistiller(student, [{"op_names": ["fc1"]}], None, Two(), predict)
    with pytest.raises(secateur.DistillationError, match=r"'fc1' of the student.*not run for this loss"):
        distiller.patch_loss(torch.tensor(1.0), X)
    with pytest.raises(secateur.DistillationError, match="give an evaluator"):
        distiller.compress(max_steps=1)
