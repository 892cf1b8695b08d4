"""``examples/iterative_digits.py`` runs, as its first lines say."""

import subprocess
import sys
from pathlib import Path

import pytest

from secateur.iterative import load_best

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.slow
def test_the_example_prunes_in_steps_and_draws(tmp_path, monkeypatch):
    command = [sys.executable, str(EXAMPLES / "iterative_digits.py"), "--out", str(tmp_path)]
    options = ["--epochs=1", "--tuning=1", "--width=8", "--steps=2", "--target=0.5"]
    printed = subprocess.run([*command, *options], capture_output=True, text=True, check=True).stdout
    assert "step 0: 100.0% of the cost left" in printed
    assert "accuracy on the other half" in printed
    for name in ("scores", "accuracy", "widths"):
        assert "<svg" in (tmp_path / f"{name}.svg").read_text()
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from digits import DigitNet

    model, history = load_best(lambda: DigitNet(8), tmp_path)
    assert sum(p.numel() for p in model.parameters()) == history.best.parameters
