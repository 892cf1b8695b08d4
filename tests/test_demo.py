"""The main job runs: ``examples/digits.py``, as ``make demo`` runs it."""

import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from secateur.persistence import read_recipe

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "examples" / "digits.py"


def demo(*arguments: str) -> tuple[str, dict[str, list[float]]]:
    """What the demo prints, and the numbers of its table by row."""
    command = [sys.executable, str(SCRIPT), *arguments]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return printed, numbers(printed)


def numbers(text: str) -> dict[str, list[float]]:
    """Accuracy, millions of MACs, thousands of parameters and milliseconds, by row of the table."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    rows = [cells for cells in lines if len(cells) == 5 and cells[1][:1].isdigit()]
    return {name: [float(cell.rstrip("% Mkms")) for cell in cells] for name, *cells in rows}


def test_a_short_demo_prunes_saves_and_loads(tmp_path: Path) -> None:
    text, rows = demo("--out", str(tmp_path), "--epochs=1", "--tuning=1", "--width=16")
    before, cut, recovered, tuned = rows.values()
    assert "equal: relative error" in text and "the same predictions" in text
    assert cut[1] < 0.3 * before[1] and cut[2] < 0.3 * before[2]
    assert tuned[1:3] == recovered[1:3] == cut[1:3]
    recipe = read_recipe(tmp_path / "digits.safetensors")
    assert recipe.tensors["stem.weight"].before == (16, 1, 3, 3)
    assert recipe.tensors["stem.weight"].after == (8, 1, 3, 3)
    assert numbers((tmp_path / "digits.md").read_text()) == rows
    assert ElementTree.parse(tmp_path / "digits.svg").getroot().tag.endswith("svg")


@pytest.mark.slow
def test_the_demo_keeps_its_promises(tmp_path: Path) -> None:
    start = time.perf_counter()
    _, rows = demo("--out", str(tmp_path))
    before, cut, recovered, tuned = rows.values()
    assert time.perf_counter() - start < 180
    assert recovered[0] > cut[0] + 20
    assert before[0] > 97 and tuned[0] > before[0] - 1.5
    assert tuned[1] < 0.27 * before[1]
    assert tuned[3] < 0.6 * before[3]


def test_the_figures_of_the_readme_are_those_of_the_committed_run() -> None:
    record = (ROOT / "docs" / "images" / "digits.md").read_text(encoding="utf-8")
    assert record.strip() in (ROOT / "README.md").read_text(encoding="utf-8")
    picture = (ROOT / "docs" / "images" / "digits.svg").read_text(encoding="utf-8")
    for row in numbers(record).values():
        assert f"{row[0]}%" in picture and f"{row[3]} ms" in picture
