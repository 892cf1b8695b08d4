"""``docs/config.md`` has every key, and no others."""

import re
from pathlib import Path

from secateur.compression.config import PRUNING
from secateur.compression.config._keys import SELECTION, TARGETS, known_keys

PAGE = (Path(__file__).parents[3] / "docs" / "config.md").read_text(encoding="utf-8")


def test_every_key_is_documented() -> None:
    for key in known_keys(PRUNING):
        assert f"`{key}`" in PAGE, key


def test_every_key_in_the_tables_is_one() -> None:
    rows = re.findall(
        r"^\| (`[a-z_]+`(?:, `[a-z_]+`)*) \|", PAGE.split("### Granularity", maxsplit=1)[0], re.MULTILINE
    )
    names = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    assert len(names) > 12
    assert names <= {*SELECTION, *TARGETS, *PRUNING.settings_keys}


def test_keys_of_other_modes_are_none_of_pruning() -> None:
    from secateur.compression.config._keys import OTHER_MODES

    assert not set(OTHER_MODES) & set(known_keys(PRUNING))
