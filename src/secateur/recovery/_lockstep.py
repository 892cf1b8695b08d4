"""Many runs of one model, kept in step: each stops where it is told to, and goes on when it may.

A layer can be solved for only when all batches have reached it, and they can go on only with its new
weights. Instead of a forward pass a layer, every batch is run once, in a thread that pauses inside
the model's own code. One thread works at a time, so nothing runs in parallel and nothing is shared
that a plain loop would not share.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Abandoned(BaseException):
    """Raised inside a run that is not to go on. No ``Exception``, so that user code lets it pass."""


class Run:
    """A function in a thread of its own that can pause itself.

    >>> seen = []
    >>> def count(run):
    ...     for number in range(2):
    ...         seen.append(number)
    ...         run.pause()
    >>> run = Run(count)
    >>> run.go(), seen, run.go(), seen, run.go(), run.done
    (None, [0, 1], None, [0, 1], None, True)
    """

    def __init__(self, work: Callable[[Run], Any]) -> None:
        self.done = False
        self._work = work
        self._may_go = threading.Semaphore(0)
        self._has_stopped = threading.Semaphore(0)
        self._abandoned = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._main, daemon=True)

    def go(self) -> None:
        """Let it work until it pauses or ends. Raises what it raised."""
        if self.done:
            return
        if not self._thread.is_alive():
            self._thread.start()
        else:
            self._may_go.release()
        self._has_stopped.acquire()
        if self._error is not None:
            raise self._error

    def pause(self) -> None:
        """Called inside: wait until :meth:`go` is called again."""
        self._has_stopped.release()
        self._may_go.acquire()
        if self._abandoned:
            raise Abandoned

    def abandon(self) -> None:
        """End it where it is."""
        if self._thread.is_alive() and not self.done:
            self._abandoned = True
            self._may_go.release()
            self._thread.join()

    def _main(self) -> None:
        try:
            self._work(self)
        except Abandoned:
            return
        except BaseException as error:  # handed to the one who called go()
            self._error = error
        finally:
            self.done = True
            self._has_stopped.release()
