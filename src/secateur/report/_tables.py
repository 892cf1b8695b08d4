"""Lists that print as tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from rich.console import Console
from rich.table import Table as RichTable

T = TypeVar("T")


def render(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "", width: int = 140) -> str:
    """A table as text.

    >>> print(render(["layer", "width"], [["conv1", 8]], width=30).splitlines()[1].split())
    ['┃', 'layer', '┃', 'width', '┃']
    """
    table = RichTable(*columns, title=title or None)
    for row in rows:
        table.add_row(*map(str, row))
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


class Table(list[T], Generic[T]):
    """A list whose ``str`` is a table; otherwise a list like any other."""

    def __init__(self, items: Sequence[T], columns: Sequence[str], row: Callable[[T], Sequence[Any]]) -> None:
        super().__init__(items)
        self._columns = columns
        self._row = row

    def __str__(self) -> str:
        return render(self._columns, [self._row(item) for item in self])
