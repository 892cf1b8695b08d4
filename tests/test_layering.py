"""A stage imports only from the stages before it."""

import ast
from pathlib import Path

import pytest

import secateur

ROOT = Path(secateur.__file__).parent

# In the order that data flows. A folder may import from those above it, and from the shared files.
STAGES = [
    "operators", "capture", "axes", "masks", "criteria", "cost", "selectors", "surgery", "verification",
    "report", "folding", "persistence", "integrations", "iterative", "_snapshot", "recovery", "_ir", "_prune",
    "speedups", "compression", "deploy", "recipe", "cli",
]  # fmt: skip
SHARED = {"_errors"}


def imported_stages(source: str, stage: str, depth: int = 2) -> set[str]:
    """Stages that a file inside ``stage`` imports when it is run; type checking does not count.

    ``depth`` is how many dots lead from the file to the package.
    """
    found: set[str] = set()
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == depth and node.module:
            found.add(node.module.partition(".")[0])
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("secateur."):
            found.add(str(node.module).split(".")[1])
    return found - {stage} - SHARED


def files_of(stage: str) -> list[Path]:
    return sorted((ROOT / stage).rglob("*.py"))


@pytest.mark.parametrize("stage", [stage for stage in STAGES if (ROOT / stage).is_dir()])
def test_a_stage_imports_only_from_earlier_ones(stage: str) -> None:
    earlier = set(STAGES[: STAGES.index(stage)])
    for path in files_of(stage):
        later = imported_stages(path.read_text(), stage, len(path.relative_to(ROOT).parts)) - earlier
        assert not later, f"{path.name} of {stage} imports from {sorted(later)}"


def test_a_forbidden_import_would_be_found() -> None:
    assert imported_stages("from ..surgery import Plan\nfrom ._graph import Node", "axes") == {"surgery"}
    assert imported_stages("from ...surgery import Plan", "axes", 3) == {"surgery"}
    assert not imported_stages("if TYPE_CHECKING:\n    from ..surgery import Plan", "axes")
