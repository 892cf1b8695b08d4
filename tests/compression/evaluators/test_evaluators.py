"""Evaluators: what is patched, how often it is called, and that nothing of it stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.pruning.nets import TorchModel, evaluator_of
from secateur import CompressionError, PruningError
from secateur.compression import TorchEvaluator
from secateur.compression.pruning import AGPPruner, L1NormPruner, SlimPruner, TaylorFOWeightPruner
from secateur.compression.utils import BackwardHook, ForwardHook, TensorHook


def counting(buffer: list[Any]) -> Any:
    def hook(*args: Any) -> None:
        buffer.append(1)

    return hook


def test_patches_and_hooks_are_called_once_a_step() -> None:
    net = TorchModel()
    evaluator = evaluator_of(net, steps=50)
    evaluator.bind_model(net)
    counts = {"loss": 0, "before": 0, "after": 0}

    def count(name: str) -> None:
        counts[name] += 1

    def patch(loss: Tensor, batch: Any) -> Tensor:
        count("loss")
        return loss

    hooks = [
        TensorHook(net.conv1.weight, "conv1.weight", counting),
        ForwardHook(net.conv1, "conv1", counting),
        BackwardHook(net.conv2, "conv2", counting),
    ]
    evaluator.patch_loss(patch)
    evaluator.patch_optimizer_step([lambda: count("before")], [lambda: count("after")])
    evaluator.register_hooks(hooks)
    evaluator.train(max_steps=1)
    assert counts == {"loss": 1, "before": 1, "after": 1}
    assert [len(hook.buffer) for hook in hooks] == [1, 1, 1]
    evaluator.remove_all_hooks()
    evaluator.train(max_steps=3)
    assert [len(hook.buffer) for hook in hooks] == [1, 1, 1]
    for hook in hooks:
        hook.buffer.clear()
    evaluator.register_hooks(hooks)
    evaluator.revert_loss()
    evaluator.revert_optimizer_step()
    evaluator.finetune()
    assert [len(hook.buffer) for hook in hooks] == [50, 50, 50]
    assert counts == {"loss": 4, "before": 4, "after": 4}
    evaluator.unbind_model()
    assert not net.conv1._forward_hooks and not net.conv2._backward_hooks
    (optimizer,) = evaluator.optimizers()
    assert not optimizer._optimizer_step_post_hooks


@pytest.mark.parametrize("shape", ["tensor", "tuple", "dict"])
def test_later_patches_get_the_loss_first(shape: str) -> None:
    evaluator = evaluator_of(TorchModel())
    evaluator.patch_loss(lambda loss, batch: loss + 1)
    evaluator.patch_loss(lambda loss, batch: loss * batch)
    loss = torch.tensor(2.0)
    given = {"tensor": loss, "tuple": (loss, "more"), "dict": {"loss": loss, "more": 1}}[shape]
    result = evaluator.patched_loss(given, 10)
    found = result["loss"] if isinstance(result, dict) else result[0] if isinstance(result, tuple) else result
    assert float(found) == 21


def test_two_compressors_take_part_in_one_training() -> None:
    net = TorchModel()
    slim = SlimPruner(net, [{"op_names": ["conv1"], "sparse_ratio": 0.4}], evaluator_of(net), 5)
    taylor = TaylorFOWeightPruner.from_compressor(
        slim, [{"op_names": ["fc1"], "sparse_ratio": 0.5}], training_steps=5
    )
    masks = taylor.compress()[1]
    assert int((masks["conv1"]["bias"] == 0).sum()) == 2 and int((masks["fc1"]["bias"] == 0).sum()) == 50


def test_parameters_join_the_group_that_trains_their_module() -> None:
    net = TorchModel()
    groups = [{"params": list(net.conv1.parameters())}, {"params": list(net.fc1.parameters()), "lr": 1.0}]
    optimizer = torch.optim.SGD(groups, 0.1)
    evaluator = TorchEvaluator(lambda *_: None, optimizer, lambda batch: batch)
    evaluator.bind_model(net)
    new = nn.Parameter(torch.ones(2))
    evaluator.patch_optim_param_group({"fc1": [new]})
    assert optimizer.param_groups[1]["params"][-1] is new and len(optimizer.param_groups[0]["params"]) == 2


def test_what_cannot_work_is_refused() -> None:
    net = TorchModel()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with pytest.raises(CompressionError, match="optimizers is an optimizer of torch"):
        TorchEvaluator(lambda *_: None, [torch.optim.SGD], lambda batch: batch)  # type: ignore[list-item]
    with pytest.raises(CompressionError, match="takes the batch first"):
        TorchEvaluator(lambda *_: None, optimizer, lambda: None)
    evaluator = TorchEvaluator(lambda *_: None, optimizer, lambda batch: batch)
    with pytest.raises(CompressionError, match="bind_model"):
        evaluator.train()
    evaluator.bind_model(net)
    with pytest.raises(CompressionError, match="evaluating_func"):
        evaluator.evaluate()
    wrong = TorchEvaluator(lambda *_: None, optimizer, lambda b: b, evaluating_func=lambda m: {"top5": 1})
    wrong.bind_model(net)
    with pytest.raises(CompressionError, match="'default'"):
        wrong.score()
    pruner = AGPPruner(L1NormPruner(net, [{"op_names": ["fc1"], "sparse_ratio": 0.5}]), 1, 5, evaluator)
    with pytest.raises(PruningError, match="0 of 5 steps"):
        pruner.compress(max_steps=5)
    with pytest.raises(PruningError, match="train for at least 5"):
        pruner.compress(max_steps=3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_transformers_trainer(tmp_path: Any) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from secateur.compression import TransformersEvaluator

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
            logits = self.fc2(self.fc1(x).relu())
            return {"logits": logits} | ({} if labels is None else {"loss": F.cross_entropy(logits, labels)})

    net = Net()
    data = [{"x": torch.randn(4), "labels": torch.tensor(i % 2)} for i in range(32)]
    arguments = transformers.TrainingArguments(
        str(tmp_path), per_device_train_batch_size=8, report_to=[], save_strategy="no", use_cpu=True,
        disable_tqdm=True, logging_strategy="no", num_train_epochs=1,
    )  # fmt: skip
    trainer = transformers.Trainer(net, arguments, train_dataset=data, eval_dataset=data)
    evaluator = TransformersEvaluator(trainer)
    config = [{"op_names": ["fc1"], "sparse_ratio": 0.5}]
    ids = [id(p) for p in net.parameters()]
    pruner = AGPPruner(TaylorFOWeightPruner(net, config, evaluator, 1), 2, 3)
    masks = pruner.compress(max_steps=6)[1]
    assert pruner.steps == 6 and int(masks["fc1"]["bias"].sum()) == 4
    assert [id(p) for p in net.parameters()] == ids
    assert "compute_loss" not in vars(trainer) and arguments.max_steps == -1
    evaluator.bind_model(net)
    assert evaluator.score() < 0
    evaluator.finetune()
    assert trainer.state.global_step == 4


@pytest.mark.filterwarnings("ignore")  # of Lightning: workers, logging intervals
def test_lightning_trainer(tmp_path: Any) -> None:
    lightning = pytest.importorskip("lightning.pytorch")
    from secateur.compression import LightningEvaluator

    class Net(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc2(self.fc1(x).relu())

        def training_step(self, batch: Any, index: int) -> Tensor:
            return F.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch: Any, index: int) -> None:
            self.log("default", (self(batch[0]).argmax(1) == batch[1]).float().mean())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    net = Net()
    data = torch.utils.data.TensorDataset(torch.randn(32, 4), torch.arange(32) % 2)
    loader = torch.utils.data.DataLoader(data, 8)
    trainer = lightning.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
        enable_model_summary=False, default_root_dir=str(tmp_path),
    )  # fmt: skip
    evaluator = LightningEvaluator(trainer, loader)
    ids = [id(p) for p in net.parameters()]
    config = [{"op_names": ["fc1"], "sparse_ratio": 0.5}]
    pruner = AGPPruner(TaylorFOWeightPruner(net, config, evaluator, 1), 2, 3)
    masks = pruner.compress(max_steps=6)[1]
    assert pruner.steps == 6 and int(masks["fc1"]["bias"].sum()) == 4
    assert [id(p) for p in net.parameters()] == ids
    assert "training_step" not in vars(net) and trainer.fit_loop.max_epochs == 1
    evaluator.bind_model(net)
    assert 0 <= evaluator.score() <= 1
