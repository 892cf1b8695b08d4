"""A long analysis says what it is at, on a terminal only."""

import io
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

import secateur
from secateur.surgery import Waiting


def until(said: Callable[[], bool]) -> None:
    """Waits for another thread, ten seconds at most."""
    end = time.monotonic() + 10
    while not said() and time.monotonic() < end:
        time.sleep(0.01)


def test_what_takes_long_is_shown_and_kept_up_to_date() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80)
    with Waiting("recording", console, seconds=0.01) as waiting:
        until(lambda: "recording" in stream.getvalue())
        waiting.tell("replay 7")
        until(lambda: "replay 7" in stream.getvalue())
    assert "recording" in stream.getvalue()
    assert "replay 7" in stream.getvalue()


@pytest.mark.parametrize(("terminal", "seconds"), [(True, 30.0), (False, 0.0)])
def test_nothing_is_shown_of_what_is_short_or_where_nobody_looks(terminal: bool, seconds: float) -> None:
    stream = io.StringIO()
    with Waiting("recording", Console(file=stream, force_terminal=terminal), seconds=seconds) as waiting:
        waiting.tell("replay 7")
        time.sleep(0.2)
    assert stream.getvalue() == ""


def test_the_analysis_tells_of_its_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    tell: Callable[..., Any] = lambda self, text: told.append(text)  # noqa: E731 a method for a test
    monkeypatch.setattr(Waiting, "tell", tell)
    model = nn.Sequential(nn.Linear(4, 8), nn.Unflatten(1, (2, 4)), nn.Flatten(), nn.Linear(8, 2))
    ir = secateur.PruningIR(model)
    ir.create_snapshot("main", (torch.ones(1, 4),))
    ir.groups()
    assert any("following the code of Sequential" in text for text in told)
