"""Config lists in files: YAML and JSON, there and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..._errors import ConfigError
from ._typed import plain


def write_config(config_list: Any, path: str | Path) -> None:
    """Write a config list, of dicts or of :class:`Entry`, to a ``.yaml``, ``.yml`` or ``.json`` file.

    Tuples are written as lists. Reading the file gives a list that means the same.

    Raises:
        ConfigError: for another ending, or what neither format can hold.
        ImportError: for YAML without pyyaml, which ``pip install "secateur[config]"`` brings.
    """
    data, path = plain(config_list), Path(path)
    try:
        text = json.dumps(data, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError([f"the list: it cannot be written to a file ({error})"]) from error
    if _is_yaml(path):
        text = _yaml().safe_dump(data, sort_keys=False)
    path.write_text(text, encoding="utf-8")


def read_config(path: str | Path) -> list[dict[str, Any]]:
    """Read a config list from a ``.yaml``, ``.yml`` or ``.json`` file. What it means, :func:`parse` says.

    Raises:
        ConfigError: if there is no such file, or it holds no list.
        ImportError: for YAML without pyyaml, which ``pip install "secateur[config]"`` brings.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError([f"the list: there is no file {str(path)!r}"])
    text = path.read_text(encoding="utf-8")
    try:
        data = _yaml().safe_load(text) if _is_yaml(path) else json.loads(text)
    except ValueError as error:
        raise ConfigError([f"the list: {path.name} is no JSON ({error})"]) from error
    except _yaml().YAMLError as error:
        raise ConfigError([f"the list: {path.name} is no YAML ({error})"]) from error
    if not isinstance(data, list):
        raise ConfigError([f"the list: {path.name} holds a {type(data).__name__}, not a list of entries"])
    return data


def _is_yaml(path: Path) -> bool:
    if path.suffix not in (".yaml", ".yml", ".json"):
        raise ConfigError([f"the list: {path.name!r} ends with neither .yaml, .yml nor .json"])
    return path.suffix != ".json"


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as error:
        raise ImportError('YAML needs pyyaml: pip install "secateur[config]"') from error
    return yaml
