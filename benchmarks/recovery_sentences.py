"""all-MiniLM-L6-v2 with a thousand sentences to calibrate; only hidden layers are cut."""

from __future__ import annotations

from dataclasses import replace

import accuracy_sentences
from accuracy_case import Case
from accuracy_sentences import LENGTH, Sentences

CALIBRATION, TEST = 1024, 256


class ManySentences(Sentences):
    """Only the hidden layers are cut: heads that are gone, recovery cannot bring back."""

    data = (
        f"Mean cosine to the full model's embeddings on {TEST} sentences; calibration: {CALIBRATION} others, "
        f"all cut to {LENGTH} tokens, drawn anew by every seed. Only hidden layers are cut."
    )
    shares = (0.7, 0.5)
    rates = ()

    def load(self, seed: int) -> Case:
        accuracy_sentences.CALIBRATION, accuracy_sentences.TEST = CALIBRATION, TEST
        case = super().load(seed)
        heads = (name for name, _ in case.model.named_modules() if name.endswith("attention.self"))
        return replace(case, ignored=tuple(heads))
