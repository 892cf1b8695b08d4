"""The public names, pinned: adding or losing one is a decision, not an accident."""

import ast
from pathlib import Path

import pytest

import secateur


def reexported(path: Path) -> list[str]:
    """Names that an ``__init__`` marks as public by ``import name as name``, in their order."""
    return [
        alias.asname
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    ]


PINNED = {
    "CaptureError", "Group", "Label", "LabelError", "PruneReport", "PruningIR", "RuleError", "SecateurError",
    "SurgeryError", "UniformLabelSelector", "UnsupportedModelError", "VerificationError", "axes",
    "measure_latency", "prune", "register_rule", "verify",
}  # fmt: skip


def test_public_names_are_there_and_documented() -> None:
    names = reexported(Path(secateur.__file__))
    assert set(names) >= PINNED
    for name in names:
        assert getattr(secateur, name).__doc__, f"{name} has no docstring"


def test_every_public_name_is_marked_once() -> None:
    names = reexported(Path(secateur.__file__))
    assert len(names) == len(set(names))
    loose = {
        name
        for name in vars(secateur)
        if not name.startswith("_") and name not in names and not _is_submodule(name)
    }
    assert not loose, f"imported without being marked as public: {sorted(loose)}"


def _is_submodule(name: str) -> bool:
    return (Path(secateur.__file__).parent / name).is_dir()


def test_unmarked_names_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").write_text("from .a import b as b\nfrom .a import c\n")
    assert reexported(tmp_path / "__init__.py") == ["b"]


@pytest.mark.parametrize("name", ["PruningIR", "verify", "register_rule"])
def test_the_version_is_a_string_and_names_import_from_the_top(name: str) -> None:
    assert secateur.__version__.count(".") == 2
    assert hasattr(secateur, name)
