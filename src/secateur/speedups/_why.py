"""Why masked positions stay, in words."""

from __future__ import annotations

from collections.abc import Sequence

from ..axes import Structure
from ..masks import ActivationMask, Constants, Masks, Removal
from ._report import Staying


def stays(
    structure: Structure,
    constants: Constants,
    masks: Masks,
    hooked: Sequence[ActivationMask],
    removal: Removal,
) -> list[Staying]:
    """Masked positions that are not removed."""
    return []
