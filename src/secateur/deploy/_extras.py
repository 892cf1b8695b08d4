"""Optional packages, each with the words that help where it is missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from .._errors import DependencyError


def needed(package: str, extra: str, what: str) -> ModuleType:
    """Import a package that one way of deployment needs.

    Raises:
        DependencyError: if it is not installed, with the extra that brings it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        name = package.partition(".")[0]
        raise DependencyError(f'{what} needs {name}: pip install "secateur[{extra}]"') from error
