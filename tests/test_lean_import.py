"""Importing Secateur imports torch and little else."""

import subprocess
import sys

import pytest

HEAVY = (
    "torchvision", "timm", "transformers", "scipy", "sklearn", "matplotlib", "pandas", "onnx", "onnxruntime",
    "torchao", "yaml", "click", "jinja2", "torch_pruning", "hypothesis", "pytest",
)  # fmt: skip


def loaded_by(statement: str) -> set[str]:
    """Which heavy packages a fresh interpreter has loaded after ``statement``."""
    code = f"import sys; {statement}; print(*(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_loads_nothing_heavy() -> None:
    assert loaded_by("import secateur") <= loaded_by("import torch")


def test_import_does_not_initialise_a_device() -> None:
    code = "import secateur, torch; raise SystemExit(torch.cuda.is_initialized())"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0


def test_a_heavy_import_would_be_found() -> None:
    pytest.importorskip("click")
    assert "click" in loaded_by("import click")
