"""all-MiniLM-L6-v2 with a thousand sentences to calibrate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import accuracy_sentences
import torch
from accuracy_case import Case
from accuracy_sentences import LENGTH, Sentences, Tokens

from secateur.recovery import output_probe

CALIBRATION, TEST, BATCH = 1024, 256, 32


class ManySentences(Sentences):
    """Labels are scored by what the embedding is sensitive to; no sentence needs another to be told from."""

    data = (
        f"Mean cosine to the full model's embeddings on {TEST} sentences; calibration: {CALIBRATION} others, "
        f"in batches of like length, all cut to {LENGTH} tokens, drawn anew by every seed. Hidden layers and "
        "heads are cut."
    )
    shares = (0.7, 0.5)
    rates = ()

    def load(self, seed: int) -> Case:
        accuracy_sentences.CALIBRATION, accuracy_sentences.TEST = CALIBRATION, TEST
        case, draws = super().load(seed), torch.Generator().manual_seed(seed)
        samples = list(of_like_length(case.samples, seed))
        return replace(case, samples=samples, loss=lambda output, sample: output_probe(output, draws))


def of_like_length(samples: list[Tokens], seed: int) -> Iterator[Tokens]:
    """The same sentences in batches that need little padding, and in each some: else the path differs."""
    every = {name: torch.cat([sample[name] for sample in samples]) for name in samples[0]}
    lengths = every["attention_mask"].sum(1)
    draw = torch.Generator().manual_seed(seed)
    for rows in lengths.sort(stable=True).indices.split(BATCH):
        own = rows[torch.randperm(len(rows), generator=draw)]  # so that any length is held out
        longest = min(LENGTH, int(lengths[own].max()) + 1)
        batch = {name: value[own] for name, value in every.items()}
        tokens = {name: batch[name][:, :longest] for name in ("input_ids", "attention_mask")}
        if tokens["attention_mask"].all():
            tokens["attention_mask"][0, -1] = 0
        yield {**batch, **tokens}
