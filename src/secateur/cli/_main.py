"""The entry point, which says what to install where click is missing."""

from __future__ import annotations

import sys
from importlib.util import find_spec

NEEDED = ("click", "jinja2", "pydantic", "yaml")
"""What the extra "cli" brings."""


def main() -> None:
    """Run the command ``secateur``."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        sys.exit(f'secateur needs {", ".join(missing)}: pip install "secateur[cli]"')
    from ._commands import secateur

    secateur()
