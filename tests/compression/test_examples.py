"""The examples run from beginning to end, and say what they promise: nothing changes in a speed-up."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "compression"
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "common")


SAID = {"fused_digits": ("deployed: accuracy",), "qat_digits": ("every prediction as before",)}
"""What those say that prune without measuring; the others say both of ``PRUNED``."""
PRUNED = ("every prediction as before", "times as fast")


def test_there_are_eight() -> None:
    assert len(SCRIPTS) == 8 and set(SAID) < set(SCRIPTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_an_example(name: str) -> None:
    source = str(Path(__file__).parents[2] / "src")
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": source},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all(part in done.stdout for part in SAID.get(name, PRUNED)), done.stdout
