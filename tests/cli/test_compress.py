"""The command ``secateur``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from secateur.cli._commands import secateur

RECIPE = Path(__file__).parents[2] / "examples" / "recipes" / "digits.yaml"


def test_the_plan_is_printed_and_nothing_runs(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(secateur, ["compress", str(RECIPE), "--dry-run", "--out", str(out)])
    assert done.exit_code == 0, done.output
    for name in ("0 original", "1 train", "2 prune", "3 distill", "4 quantize", "5 deploy"):
        assert name in done.output
    assert "to do" in done.output
    assert not out.exists()


def test_mistakes_end_the_command_with_their_lines(tmp_path: Path) -> None:
    recipe = tmp_path / "bad.yaml"
    recipe.write_text("model: torch.nn:ReLU\nsteps:\n  - prune: {ratoi: 0.5}\n")
    done = CliRunner().invoke(secateur, ["compress", str(recipe)])
    assert done.exit_code == 1
    assert "line 3" in done.output
    assert "did you mean 'ratio'" in done.output


def test_explain_names_what_is_pinned() -> None:
    done = CliRunner().invoke(secateur, ["explain", str(RECIPE)])
    assert done.exit_code == 0, done.output
    assert "pinned axes" in done.output
    assert "head" in done.output


def test_a_missing_file_is_the_users_mistake() -> None:
    done = CliRunner().invoke(secateur, ["compress", "no_such.yaml"])
    assert done.exit_code == 2
    assert "does not exist" in done.output


@pytest.mark.parametrize("module", ["secateur", "secateur.cli"])
def test_the_command_runs_as_a_module(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "compress" in done.stdout
