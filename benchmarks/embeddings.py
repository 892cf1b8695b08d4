"""Tables of embeddings in 8 bits: size, speed and error of the file in ONNX Runtime.

``python benchmarks/embeddings.py [--table FILE]`` deploys all-MiniLM-L6-v2 and three small models with random
weights (BERT, GPT-2 and T5 with 16,384 tokens; the head of GPT-2 and T5 is their table) in several ways: in
floats; with int8 layers; with the table too, at one scale for each row (what ``int8_config_list`` names), for
each column, or for all of it; and with nothing but the table. It prints the size of the file, the median
latency on one thread in turn with that of the float file, the mean cosine to the float model's outputs on
data that is not calibrated on, and the largest difference of file and simulation. About two minutes.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import accuracy_sentences
import tiny_transformers
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoTokenizer

from secateur.compression.quantization import PtqQuantizer
from secateur.deploy import int8_config_list, to_onnx

VOCABULARY = 16_384
RUNS = 20
HEADER = (
    "| model | way | kB | smaller | faster | 1 - cosine | file to simulation |\n|---|---|---|---|---|---|---|"
)
Config = list[dict[str, Any]]
Inputs = dict[str, Tensor]


class Logits(nn.Module):
    """A model of transformers that takes ids and gives logits, nothing else."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, decoder_input_ids: Tensor | None = None) -> Tensor:
        more = {} if decoder_input_ids is None else {"decoder_input_ids": decoder_input_ids}
        return self.model(input_ids=input_ids, use_cache=False, **more).logits


def minilm() -> tuple[nn.Module, list[Inputs]]:
    """The real one, with sentences to calibrate on and one batch to compare at."""
    folder = accuracy_sentences.folder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    settings = {"padding": "max_length", "truncation": True, "max_length": accuracy_sentences.LENGTH}
    made = tokenizer(accuracy_sentences.sentences()[:192], return_tensors="pt", **settings)
    parts = zip(made["input_ids"].split(32), made["attention_mask"].split(32), strict=True)
    batches = [{"input_ids": ids, "attention_mask": mask} for ids, mask in parts]
    return accuracy_sentences.Embedder(folder).eval(), batches


def tiny(family: str) -> tuple[nn.Module, list[Inputs]]:
    """A small one with random weights and as many tokens as real ones have."""
    tiny_transformers.VOCABULARY = tiny_transformers._SMALL["vocab_size"] = VOCABULARY
    torch.manual_seed(0)
    model = Logits(tiny_transformers.build(family)[0]).eval()
    return model, [tiny_transformers.inputs_of(model.model) for _ in range(4)]


def ways(model: nn.Module, inputs: Inputs) -> Iterator[tuple[str, Config]]:
    """What is quantised, by the name of the way."""
    config = int8_config_list(model, (), inputs)
    tables = [path for path, module in model.named_modules() if isinstance(module, nn.Embedding)]
    named = [path for entry in config for path in entry["op_names"] if entry["target_names"] == ["weight"]]
    # Of a tied table the first of its modules is named.
    table = next(path for path in tables if path in named)
    weight = model.get_parameter(f"{table}.weight")
    shared = sum(module._parameters.get("weight") is weight for module in model.modules()) > 1
    entry = {"op_names": [table], "target_names": ["weight"], "quant_dtype": "int8"}
    rest = [entry | {"op_names": [p for p in entry["op_names"] if p != table]} for entry in config]
    rest = [entry for entry in rest if entry["op_names"]]
    yield "layers", rest
    yield "layers and table, by row", config
    if not shared:  # that of a head has a scale for each of its outputs
        yield "layers and table, by column", [*rest, {**entry, "granularity": "in_channel"}]
        yield "layers and table, one scale", [*rest, entry]
    yield "table, by row", [{**entry, "granularity": "out_channel"}]


def rows(name: str, model: nn.Module, batches: list[Inputs]) -> Iterator[str]:
    """A row of the table for each way."""
    *learn, test = batches
    one = {key: value[:1] for key, value in test.items()}
    with torch.no_grad():
        wanted = model(**test)
    for way, config in ways(model, one):
        simulated = copy.deepcopy(model)
        PtqQuantizer(simulated, config).calibrate(learn)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            report = to_onnx(simulated, (), path, one, original=model, samples=[test], runs=RUNS)
            assert report.model is not None
            apart = 1 - float(F.cosine_similarity(report.model(**test), wanted, dim=-1).mean())
        yield (
            f"| {name} | {way} | {report.bytes / 1e3:.0f} | {report.smaller:.2f}× | {report.faster:.2f}× "
            f"| {apart:.5f} | {report.agreement.max_error:.1e} |"
        )


def main() -> None:
    """Print the table, or write it into a file."""
    parser = argparse.ArgumentParser(description="Tables of embeddings in 8 bits")
    parser.add_argument("--table", type=Path, help="a file for the table")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cases = {"all-MiniLM-L6-v2": minilm, **{f"tiny {n}": n for n in ("bert", "gpt2", "t5")}}
    lines = [HEADER]
    for name, case in cases.items():
        for row in rows(name, *(tiny(case) if isinstance(case, str) else case())):
            print(row, flush=True)
            lines.append(row)
    if given.table is not None:
        text = "# Tables of embeddings in 8 bits\n\nPrinted by `python benchmarks/embeddings.py --table "
        given.table.write_text(
            f"{text}{given.table}`; its docstring says what is measured.\n\n" + "\n".join(lines) + "\n"
        )


if __name__ == "__main__":
    main()
