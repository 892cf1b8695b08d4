"""``examples/prune_to_small.py``: from masks to a smaller model that predicts the same."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "prune_to_small.py"


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_a_short_run_ends_with_a_smaller_model_and_the_same_predictions() -> None:
    text = run("--epochs=1", "--tuning=1", "--width=8")
    assert "every prediction is the same: True" in text
    sizes = [int(number) for number in re.findall(r"(\d+) k parameters", text)]
    assert sizes[0] == sizes[1] == sizes[2] > 2 * sizes[3]


@pytest.mark.slow
def test_the_whole_run_is_accurate_and_faster() -> None:
    text = run()
    first, *_, last = (float(number) for number in re.findall(r"accuracy ([\d.]+)%", text))
    assert first > 97
    assert last > first - 3
    assert float(re.findall(r"\(([\d.]+) times as fast\)", text)[0]) > 1.2
