"""Memory that was freed, back to the system."""

from __future__ import annotations

import ctypes
import sys


def release_memory() -> None:
    """Have the C library give back what it holds for later, where it can be asked to (glibc).

    Every run of the small model has a thread of its own, and glibc an arena for each: what they free
    would stay with them, several times what is in use.

    >>> release_memory()
    """
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
    if trim is not None:
        trim(ctypes.c_size_t(0))
