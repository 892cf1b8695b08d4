"""The report of a run, as Markdown and as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .._errors import DependencyError
from ._state import Done

if TYPE_CHECKING:
    from ._plan import Plan

_UNITS = {
    "MACs": (1e-6, "{:.2f} M"),
    "parameters": (1e-3, "{:.1f} k"),
    "bytes": (1e-3, "{:.1f} kB"),
    "latency": (1e3, "{:.2f} ms"),
    "top-1 agreement": (1, "{:.2%}"),
    "within one step": (1, "{:.2%}"),
}


def write_report(plan: Plan, steps: Sequence[Done]) -> Path:
    """Write ``report.md`` and ``report.html`` to the output folder; gives the path of the former.

    Raises:
        DependencyError: without jinja2.
    """
    try:
        from jinja2 import Environment, PackageLoader
    except ImportError as error:
        raise DependencyError('the report needs jinja2: pip install "secateur[cli]"') from error
    names = list(dict.fromkeys(name for step in steps for name in step.figures))
    content = {
        "title": f"{plan.file.name}: what each step leaves",
        "columns": ["step", *names],
        "rows": [[step.name, *(_cell(name, step.figures.get(name)) for name in names)] for step in steps],
        "steps": [step for step in steps if step.notes],
    }
    loader = PackageLoader("secateur.recipe", "templates")
    for ending in ("md", "html"):
        environment = Environment(loader=loader, autoescape=ending == "html", keep_trailing_newline=True)
        text = environment.get_template(f"report.{ending}.jinja").render(content)
        (plan.folder / f"report.{ending}").write_text(text, encoding="utf-8")
    return plan.folder / "report.md"


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return ""
    unit, text = _UNITS.get(name, (1, "{:.4g}"))
    return text.format(value * unit)
