"""Running a recipe: figures of every step, and going on after an interrupt."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from quick_recipe import SHORT
from secateur._errors import PersistenceError, RecipeError
from secateur.recipe import _run as running
from secateur.recipe import plan, run

Write = Callable[[str], Path]


def test_a_run_is_interrupted_resumed_and_repeated(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, path_before, state = write(SHORT), list(sys.path), torch.get_rng_state()
    whole = run(recipe, out=tmp_path / "whole")
    assert [step.name for step in whole.steps] == [
        "0 original",
        "1 train",
        "2 prune",
        "3 quantize",
        "4 deploy",
    ]
    trained, pruned, quantized, deployed = (step.figures for step in whole.steps[1:])
    assert pruned["MACs"] < 0.4 * trained["MACs"]
    assert pruned["parameters"] < 0.4 * trained["parameters"]
    assert quantized["accuracy"] == pytest.approx(deployed["accuracy"], abs=0.02)
    assert deployed["top-1 agreement"] >= 0.95
    assert deployed["times smaller"] > 1.5  # a network of width 8 is little more than the file's own words

    take = running.take

    def fails_at_quantize(step: object, *rest: object) -> object:
        if getattr(step, "kind", "") == "quantize":
            raise KeyboardInterrupt
        return take(step, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(running, "take", fails_at_quantize)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, out=tmp_path / "parts")
    monkeypatch.setattr(running, "take", take)
    rest = run(recipe, out=tmp_path / "parts")
    assert rest.resumed == 3
    for one, other in zip(whole.model.parameters(), rest.model.parameters(), strict=True):
        assert torch.equal(one, other)
    unmeasured = {"latency", "times faster", "times smaller", "bytes"}
    for one, other in zip(whole.steps, rest.steps, strict=True):
        assert {k: v for k, v in one.figures.items() if k not in unmeasured} == {
            k: v for k, v in other.figures.items() if k not in unmeasured
        }

    assert run(recipe, out=tmp_path / "parts").resumed == 5
    changed = write(SHORT.replace("ratio: 0.5", "ratio: 0.25"))
    assert str(plan(changed, out=tmp_path / "parts")).count("done") == 2
    assert sys.path == path_before
    assert torch.equal(torch.get_rng_state(), state)

    report = (tmp_path / "whole" / "report.md").read_text()
    assert "| step | accuracy | MACs | parameters |" in report
    assert "## 4 deploy" in report
    assert "<td>2 prune</td>" in (tmp_path / "whole" / "report.html").read_text()
    assert {file.suffix for file in (tmp_path / "whole").iterdir()} == {
        ".safetensors", ".json", ".onnx", ".md", ".html",
    }  # fmt: skip


def test_a_folder_with_something_else_is_refused(write: Write, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "state.json").write_text(json.dumps({"format": 99, "steps": []}))
    with pytest.raises(PersistenceError, match="format 99"):
        run(write(SHORT), out=out)


def test_pruning_by_config_list_and_training_quantised(write: Write, tmp_path: Path) -> None:
    head, _, _ = SHORT.partition("  - train")
    text = head + (
        "  - prune: {config_list: [{op_names: [blocks.0.conv1], sparse_ratio: 0.5}]}\n"
        "  - distill: {epochs: 1}\n"
        "  - quantize: {method: qat, epochs: 1}\n"
    )
    done = run(write(text), out=tmp_path / "out").steps
    assert done[1].figures["parameters"] < done[0].figures["parameters"]
    assert "mean loss" in done[2].notes
    assert done[3].ranges


def test_everything_in_one_training(write: Write, tmp_path: Path) -> None:
    head, _, _ = SHORT.partition("  - prune")
    text = head + (
        "  - fuse:\n"
        "      epochs: 2\n"
        "      prune: [{op_names: [blocks.0.conv1], sparse_ratio: 0.5}]\n"
        "      loss: digits_recipe:cross_entropy\n"
        "  - deploy: {file: digits.onnx, runs: 2}\n"
    )
    done = run(write(text), out=tmp_path / "out").steps
    assert done[2].figures["parameters"] < done[1].figures["parameters"]
    assert "over 38 steps" in done[2].notes
    assert done[2].ranges
    report = run(write(text), out=tmp_path / "out").steps[3]
    assert "QLinearConv" in report.notes


@pytest.mark.slow
def test_executorch_is_a_way_out(write: Write, tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    text = SHORT.replace("file: digits.onnx", "to: executorch, file: digits.pte, max_batch: 1024")
    deployed = run(write(text), out=tmp_path / "out").steps[-1]
    assert "xnnpack.int8.convolution" in deployed.notes
    assert deployed.figures["top-1 agreement"] >= 0.99


def test_only_deployment_follows_a_fused_training(write: Write) -> None:
    text = SHORT.replace("  - quantize:\n", "  - fuse: {prune: [{op_names: [nowhere], sparse_ratio: 0.5}]}\n")
    with pytest.raises(RecipeError, match="nowhere"):
        run(write(text))
    with pytest.raises(RecipeError, match="cannot follow fuse"):
        run(write(text.replace("  - deploy", "  - prune: {ratio: 0.5}\n  - deploy")))
