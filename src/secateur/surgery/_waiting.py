"""A word on the terminal for those who wait: what an analysis is at, once it takes longer."""

from __future__ import annotations

import threading
from typing import Any

from rich.console import Console

SECONDS = 2.0


class Waiting:
    """Shows a line on stderr from two seconds on, until the body ends; nothing where that is no terminal.

    Args:
        text: what is going on; :meth:`tell` changes it.
        console: where to show it; by default stderr.
        seconds: how long to wait before anything is shown.

    Example:
        >>> with Waiting("recording") as waiting:
        ...     waiting.tell("replay 1")
    """

    def __init__(self, text: str, console: Console | None = None, seconds: float = SECONDS) -> None:
        self._console = console or Console(stderr=True)
        self._lock = threading.Lock()
        self._text = text
        self._status: Any = None
        self._ended = False
        self._timer = threading.Timer(seconds, self._show)
        self._timer.daemon = True

    def __enter__(self) -> Waiting:
        if self._console.is_terminal:
            self._timer.start()
        return self

    def tell(self, text: str) -> None:
        """Show another text from now on."""
        self._text = text
        with self._lock:
            if self._status is not None:
                self._status.update(text)

    def _show(self) -> None:
        with self._lock:
            if not self._ended:
                self._status = self._console.status(self._text)
                self._status.start()

    def __exit__(self, *error: object) -> None:
        self._timer.cancel()
        with self._lock:
            self._ended = True
            if self._status is not None:
                self._status.stop()
