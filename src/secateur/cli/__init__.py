"""The command ``secateur``."""

from ._main import main as main
