"""The models of ``fusion.py``: what is trained, on what, how it is cut, and what counts as good."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from fusion_cost import IntegerTime
from torch import Tensor, nn
from torch.nn import functional as F

import secateur
from secateur.folding import fold_batch_norm
from secateur.recovery import output_probe

CHANNELS = 16
"""Integer kernels work on so many at a time."""


@dataclass
class Case:
    """A trained model, and everything that a way of compressing it needs.

    Attributes:
        name: for the table.
        quality_name: what ``quality`` is, in per cent.
        model: the float original, in eval mode.
        args: positional inputs at which latency is measured.
        kwargs: keyword inputs.
        batches: to train with, one after the other and again.
        calibration: batches for recovery and for ranges.
        test: batches on which the deployed model is compared with its simulation.
        loss: the user's own, of an output and a batch.
        quality: of a model, in per cent.
        method: of distillation, on the model's output.
        rates: learning rates at the start of trainings one after another, and of one run with everything at
            work; they fall to nothing by a cosine.
        steps: the budget of training.
        selector: says what is cut.
        weights: of the user's own loss and of the distance to the teacher, where there is one.
        scored: the loss that labels are scored by; by default ``loss``.
        folded: whether BatchNorm is folded into the layers before any training, as suits few and unusual
            pictures, whose statistics are no better than its own; channels are then last in memory.
        ignored: modules that are not cut.
    """

    name: str
    quality_name: str
    model: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    batches: list[Any]
    calibration: list[Any]
    test: list[Any]
    loss: Callable[[Any, Any], Tensor]
    quality: Callable[[nn.Module], float]
    method: str
    rates: tuple[float, float]
    steps: int
    selector: Any
    weights: tuple[float, float] = (0.5, 1.0)
    scored: Callable[[Any, Any], Tensor] | None = None
    folded: bool = False
    ignored: tuple[str, ...] = field(default=())

    @cached_property
    def cut(self) -> nn.Module:
        """The model after the cut: channels that others can stand in for are gone; recovered."""
        ir = secateur.PruningIR(self.model, ignore=self.ignored)
        ir.create_snapshot("main", args=self.args, kwargs=self.kwargs)
        with secateur.ReconstructionCriterion(ir) as collect:
            for batch in self.calibration[:4]:
                (self.scored or self.loss)(collect(batch), batch).backward()
        small = ir.prune(labels=self.selector.select(ir), recover=self.calibration).model
        if not self.folded:
            return small
        return fold_batch_norm(small, self.args, self.kwargs)[0].to(memory_format=torch.channels_last)

    def small(self) -> nn.Module:
        """A copy of the cut model."""
        return copy.deepcopy(self.cut)


def digits(seed: int) -> Case:
    """A residual network on scikit-learn's digits: half to train, half to test."""
    import accuracy_digits as task

    torch.manual_seed(seed)
    learn, test = task.digits(seed)
    model = task.DigitsNet(width=32)
    task.train(model, learn, 30, 0.05, seed)
    x = test[0]
    return Case(
        name="residual network, scikit-learn's digits",
        quality_name="accuracy",
        model=model.eval(),
        args=(x[:32],),
        kwargs={},
        batches=task.batches(learn, 64, seed + 1),
        calibration=task.batches(learn, 64, 0),
        test=task.batches(test, 64, 0),
        loss=lambda output, batch: F.cross_entropy(output, batch[1]),
        quality=lambda model: task.accuracy(model, test),
        method="kl",
        rates=(2e-3, 4e-3),
        steps=168,
        weights=(1.0, 0.1),
        selector=secateur.UniformLabelSelector(0.75, round_to=CHANNELS),
    )


def photos(seed: int) -> Case:
    """EfficientNet-Lite0; the left parts of photographs are for training, the right parts for the test."""
    import accuracy_photos as task

    torch.manual_seed(seed)
    pictures = task.photographs()
    shown, hidden = task.Photos().parts(pictures)
    model = task.lite0()
    learn, test = task.crops(shown, 2048, seed), task.crops(hidden, 384, seed + 1000)
    learn = learn.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        labels = torch.cat([model(x).argmax(1) for x in learn.split(64)])
        wanted = torch.cat([model(x).log_softmax(1) for x in test.split(64)])
    batches = list(zip(learn.split(32), labels.split(32), strict=True))
    return Case(
        name="EfficientNet-Lite0, photographs",
        quality_name="top-1 agreement",
        model=model,
        args=(test[:1],),
        kwargs={},
        batches=batches,
        calibration=batches[:16],
        test=list(test.split(32)),
        loss=lambda output, batch: F.cross_entropy(output, batch[1]),
        quality=lambda model: task.compare(model, test, wanted)[0],
        method="kl",
        rates=(2e-4, 2e-4),
        steps=192,
        selector=secateur.KnapsackLabelSelector(
            0.48,
            IntegerTime(credit=0.1),
            channels_constraint=secateur.ChannelsConstraint(step=CHANNELS),
            verbose=False,
        ),
        scored=task.drawing(seed),
        folded=True,
    )


def sentences(seed: int) -> Case:
    """all-MiniLM-L6-v2 on sentences of Python's documentation; hidden layers are cut."""
    import random

    import accuracy_sentences as task
    from transformers import AutoTokenizer

    torch.manual_seed(seed)
    model = task.Embedder(task.folder()).eval()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # the answers are those of the model without it
    tokenizer = AutoTokenizer.from_pretrained(task.folder())
    chosen = random.Random(seed).sample(task.sentences(), 512 + task.TEST)
    length = {"padding": "max_length", "truncation": True, "max_length": task.LENGTH}

    def tokens(part: list[str]) -> list[dict[str, Tensor]]:
        made = tokenizer(part, return_tensors="pt", **length)
        pairs = zip(made["input_ids"].split(32), made["attention_mask"].split(32), strict=True)
        return [{"input_ids": ids, "attention_mask": mask} for ids, mask in pairs]

    learn, test = tokens(chosen[: -task.TEST]), tokens(chosen[-task.TEST :])
    with torch.no_grad():
        taught = [{**batch, "embedding": model(**batch)} for batch in learn]
        wanted = [model(**batch) for batch in test]
    draws = torch.Generator().manual_seed(seed)
    return Case(
        name="all-MiniLM-L6-v2, sentences",
        quality_name="cosine to the original, × 100",
        model=model,
        args=(),
        kwargs={name: value[:1] for name, value in test[0].items()},
        batches=taught,
        calibration=taught[:8],
        test=test,
        loss=lambda output, batch: 1 - (output * batch["embedding"]).sum(1).mean(),
        quality=lambda model: 100 * task.cosine(model, test, wanted),
        method="cosine",
        rates=(1e-4, 1e-4),
        steps=96,
        selector=secateur.UniformLabelSelector(0.5, round_to=CHANNELS),
        scored=lambda output, batch: output_probe(output, draws),
        ignored=tuple(name for name, _ in model.named_modules() if name.endswith("attention.self")),
    )


CASES: dict[str, Callable[[int], Case]] = {"digits": digits, "photos": photos, "sentences": sentences}
