"""What a recipe may say: every key with its type, its default and its meaning."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

ConfigList: TypeAlias = list[dict[str, Any]]


class Section(BaseModel):
    """A mapping in which every key is known."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Call(Section):
    """Something in Python by its import path, and the arguments that it is called with."""

    use: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")
    arguments: dict[str, Any] = {}


def _as_call(value: Any) -> Any:
    return {"use": value} if isinstance(value, str) else value


Named: TypeAlias = Annotated[Call, BeforeValidator(_as_call)]
Epochs: TypeAlias = Annotated[int, Field(ge=0)]
Share: TypeAlias = Annotated[float, Field(ge=0, lt=1)]


class Data(Section):
    """Where batches come from: functions that give an iterable, called anew for every epoch."""

    train: Named | None = None
    calibrate: Named | None = None
    example: Named | None = None


class Prune(Section):
    """Take channels off: a share of every group, or what a config list says."""

    kind: Literal["prune"] = "prune"
    ratio: Share | None = None
    target_latency: Annotated[float, Field(gt=0)] | None = None
    round_to: Annotated[int, Field(ge=1)] = 1
    ignore: list[str] = []
    recover: bool = False
    pruner: Literal["l1", "l2", "fpgm", "level"] = "l1"
    config_list: ConfigList | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Prune:
        given = [self.ratio is not None, self.target_latency is not None, self.config_list is not None]
        if sum(given) != 1:
            raise ValueError("give one of ratio, target_latency and config_list")
        if self.recover and self.config_list is not None:
            raise ValueError("recover goes with ratio or target_latency; train behind a config_list instead")
        return self


class Training(Section):
    """What every training has: its length and its optimizer; the learning rate falls to zero, linearly."""

    epochs: Epochs = 1
    mode: Literal["train", "eval"] = "train"
    optimizer: Named = Call(use="torch.optim:AdamW", arguments={"lr": 1e-3})


class Train(Training):
    """Train on labels."""

    kind: Literal["train"] = "train"
    loss: Named


class Distill(Training):
    """Learn the answers of the original model; with a loss, those of the labels too."""

    kind: Literal["distill"] = "distill"
    mode: Literal["train", "eval"] = "eval"
    method: Literal["kl", "mse", "cosine"] = "kl"
    temperature: Annotated[float, Field(gt=0)] = 2.0
    loss: Named | None = None


class Quantize(Training):
    """Simulate integers, calibrated or trained; only deployment may follow."""

    kind: Literal["quantize"] = "quantize"
    method: Literal["ptq", "qat", "lsq"] = "ptq"
    config_list: Literal["int8"] | ConfigList = "int8"
    observer: Literal["minmax", "histogram", "percentile", "mse"] = "minmax"
    bias_correction: bool = False
    loss: Named | None = None


class Fuse(Distill):
    """Prune, learn from the original and quantise in one training; only deployment may follow."""

    kind: Literal["fuse"] = "fuse"  # type: ignore[assignment]
    mode: Literal["train", "eval"] = "train"
    prune: ConfigList = []
    pruner: Literal["l1", "l2", "fpgm"] = "l1"
    config_list: Literal["int8"] | ConfigList = "int8"
    round_from: Share = 0.75


class Deploy(Section):
    """Write the model for a runtime, run it there, and compare."""

    kind: Literal["deploy"] = "deploy"
    to: Literal["onnx", "pt2", "openvino", "torch_int8", "executorch"] = "onnx"
    file: str | None = None
    dynamic_batch: bool = True
    max_batch: Annotated[int, Field(ge=2)] | None = None
    runs: Annotated[int, Field(ge=1)] = 50

    @model_validator(mode="after")
    def _bounded(self) -> Deploy:
        if self.max_batch is not None and self.to != "executorch":
            raise ValueError("max_batch is for executorch: elsewhere a dynamic batch has no bound")
        return self


Step: TypeAlias = Annotated[Prune | Train | Distill | Quantize | Fuse | Deploy, Field(discriminator="kind")]
KINDS: dict[str, type[Section]] = {
    "prune": Prune, "train": Train, "distill": Distill, "quantize": Quantize, "fuse": Fuse, "deploy": Deploy,
}  # fmt: skip


def _as_step(value: Any) -> Any:
    """``{"prune": {...}}`` as ``{"kind": "prune", ...}``; anything else is left for the message."""
    if isinstance(value, dict) and len(value) == 1:
        ((kind, settings),) = value.items()
        if kind in KINDS and (settings is None or isinstance(settings, dict)):
            return {**(settings or {}), "kind": kind}
    return value


class Recipe(Section):
    """One recipe."""

    model: Named
    data: Data = Data()
    evaluate: Named | None = None
    seed: int = 0
    output: str | None = None
    steps: Annotated[list[Annotated[Step, BeforeValidator(_as_step)]], Field(min_length=1)]

    @model_validator(mode="after")
    def _in_order(self) -> Recipe:
        quantized = ""
        for index, step in enumerate(self.steps):
            if quantized and not isinstance(step, Deploy):
                raise ValueError(f"step {index + 1}, {step.kind}, cannot follow {quantized}: only deploy can")
            quantized = quantized or (step.kind if isinstance(step, (Quantize, Fuse)) else "")
            if isinstance(step, (Train, Distill)) and self.data.train is None:
                raise ValueError(f"step {index + 1}, {step.kind}, needs data.train")
            if isinstance(step, Quantize) and step.method != "ptq" and self.data.train is None:
                raise ValueError(f"step {index + 1}, quantize by {step.method}, needs data.train")
            if _calibrates(step) and self.data.calibrate is None and self.data.train is None:
                raise ValueError(f"step {index + 1}, {step.kind}, needs data.calibrate or data.train")
        if self.data.example is None and self.data.calibrate is None and self.data.train is None:
            raise ValueError("data.example, data.calibrate or data.train is needed to record the model")
        return self


def _calibrates(step: Section) -> bool:
    return isinstance(step, Quantize) or (isinstance(step, Prune) and step.recover)
