"""Recipes in a folder of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[2] / "examples" / "recipes"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a recipe beside the functions of the example, and gives its path."""
    source = (RECIPES / "digits_recipe.py").read_text()
    digits = str(RECIPES.parent / "digits.py")
    source = source.replace('Path(__file__).parent.parent / "digits.py"', f"Path({digits!r})")
    (tmp_path / "digits_recipe.py").write_text(source)

    def written(text: str) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return path

    return written
