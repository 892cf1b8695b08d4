"""What the model's code was doing when a replay ended before its time.

``assert width == self.embed_dim`` names no operator and no argument, and neither does a branch on
``self.hidden_size != self.hidden_size_output`` that is not taken. But the frames of the error hold the
modules that were at work, and the names that their code reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import FrameType

from ._arguments import PathChanged
from ._replay import Reader, Replayed, readers_in

MOST_MODULES = 3


def got_further(new: Replayed, old: Replayed) -> bool:
    """Whether the code of ``new`` raised at a later line of the same function than that of ``old``."""
    if isinstance(new.error, PathChanged) or isinstance(old.error, PathChanged):
        return False
    for (there, after), (here, before) in zip(_frames(new), _frames(old), strict=False):
        if there.f_code is not here.f_code:
            return False
        if after != before:
            return after > before
    return False


def readers_of(found: Replayed) -> list[Reader]:
    """The innermost modules that the error went through, torch's own apart, with the names read there."""
    readers: list[Reader] = []
    for frame, _ in reversed(list(_frames(found))):
        readers += [r for r in readers_in(frame) if not type(r.module).__module__.startswith("torch.nn.")]
        if len({reader.module for reader in readers}) >= MOST_MODULES:
            break
    return readers


def _frames(found: Replayed) -> Iterator[tuple[FrameType, int]]:
    """Frames of the error with the line that each was at; the outermost first."""
    trace = found.error.__traceback__ if found.error is not None else None
    while trace is not None:
        yield trace.tb_frame, trace.tb_lineno
        trace = trace.tb_next
