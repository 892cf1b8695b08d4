"""What README and docs show runs, and prints what they say it prints.

Every ``python`` block of a page is run, from top to bottom in one namespace: with prompts (``>>>``)
as a doctest, without as plain code. Links between the pages lead somewhere.
"""

import doctest
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from secateur.axes import TABLE

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)")
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def run_page(text: str, name: str) -> int:
    """Run the blocks of a page; returns how many there were."""
    names: dict[str, Any] = {"__name__": "__page__"}
    blocks = list(BLOCK.finditer(text))
    for block in blocks:
        line = text.count("\n", 0, block.start()) + 1
        code = block[1]
        if ">>> " in code:
            _run_doctest(code, names, f"{name}:{line}")
        else:
            # The line numbers of a traceback are those of the page.
            exec(compile("\n" * line + code, name, "exec"), names)
    return len(blocks)


def _run_doctest(code: str, names: dict[str, Any], where: str) -> None:
    test = doctest.DocTestParser().get_doctest(code, names, where, where, 0)
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=said.append, clear_globs=False)
    assert result.failed == 0, "".join(said)
    names.update(test.globs)


@pytest.fixture
def _rules() -> Iterator[None]:
    """Rules that a page registers are forgotten afterwards."""
    before = dict(TABLE)
    yield
    TABLE.clear()
    TABLE.update(before)


@pytest.mark.usefixtures("_rules")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_on_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(page.read_text(encoding="utf-8"), page.name)


def test_the_pages_have_code_and_wrong_code_is_found() -> None:
    assert sum(len(BLOCK.findall(page.read_text(encoding="utf-8"))) for page in PAGES) > 15
    assert run_page("```python\n>>> 1 + 1\n2\n```\n\n```python\nx = 1\n```\n", "right") == 2
    with pytest.raises(AssertionError, match=r"Expected:\s+3\s+Got:\s+2"):
        run_page("```python\n>>> 1 + 1\n3\n```\n", "wrong")
    with pytest.raises(NameError):
        run_page("```python\nnothing\n```\n", "wrong")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
