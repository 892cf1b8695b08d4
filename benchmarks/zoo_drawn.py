"""Models drawn by chance from the same three libraries: those that stand on no list of ours."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable

import torch
from zoo_models import ALL

LARGEST = 40e6  # parameters


def draw(count: int, seed: int) -> list[str]:
    """Names of ``count`` models: half of timm, a third of transformers, the rest of torchvision.

    Of timm's files and of transformers' model types each comes once before any comes twice, so what is
    drawn are architectures rather than sizes. A transformers type whose sizes cannot be guessed is drawn
    all the same: its record says that it could not be built.
    """
    rng = random.Random(seed)
    timm = _timm(rng)
    transformers = _transformers(rng)
    torchvision = _torchvision(rng)
    halves = timm[: count // 2], transformers[: count // 3]
    return [name for part in (*halves, torchvision[: count - sum(map(len, halves))]) for name in part]


def _timm(rng: random.Random) -> list[str]:
    import timm

    files: dict[str, list[str]] = defaultdict(list)
    for name in timm.list_models():
        files[timm.models.model_entrypoint(name).__module__].append(name)
    names: list[str] = []
    for file in rng.sample(sorted(files), len(files)):
        candidates = _new("timm", files[file])
        rng.shuffle(candidates)
        names += filter(None, [next((name for name in candidates if _parameters(name) <= LARGEST), None)])
    return names


def _parameters(name: str) -> float:
    import timm

    try:
        with torch.device("meta"):
            model = timm.create_model(name.partition("/")[2], pretrained=False)
    except Exception as error:  # a few models read values while they are built
        print(f"not drawn: {name}: {error}")
        return float("inf")
    return sum(parameter.numel() for parameter in model.parameters())


def _transformers(rng: random.Random) -> list[str]:
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    names = _new("transformers", sorted(MODEL_MAPPING_NAMES))
    rng.shuffle(names)
    return names


def _torchvision(rng: random.Random) -> list[str]:
    from torchvision import models

    names = _new("torchvision", [n for n in models.list_models() if not n.startswith("quantized_")])
    rng.shuffle(names)
    return names


def _new(library: str, names: Iterable[str]) -> list[str]:
    """Names with their library, of those that are on no list."""
    return [full for name in names if (full := f"{library}/{name}") not in ALL]
