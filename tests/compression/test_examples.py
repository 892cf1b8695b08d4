"""The examples of pruners run from beginning to end, and say that nothing changes in the speed-up."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "compression"
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "common")


def test_there_are_six() -> None:
    assert len(SCRIPTS) == 6


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_an_example(name: str) -> None:
    source = str(Path(__file__).parents[2] / "src")
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": source},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "every prediction as before" in done.stdout and "times as fast" in done.stdout
