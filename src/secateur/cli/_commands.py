"""The subcommands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from .. import __version__
from .._errors import SecateurError
from ..recipe import Plan, plan, run
from ..recipe import explain as explain_recipe

RECIPE = click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
OUT = click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for the results.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="secateur")
def secateur() -> None:
    """Make PyTorch models smaller and faster."""


@secateur.command(epilog="Example: secateur compress examples/recipes/digits.yaml --dry-run")
@RECIPE
@OUT
@click.option("--dry-run", is_flag=True, help="Check the recipe and print the plan; nothing is run.")
@click.option("--fresh", is_flag=True, help="Begin anew, whatever an earlier run has left.")
def compress(recipe: Path, out: Path | None, dry_run: bool, fresh: bool) -> None:
    """Run a recipe: prune, train, distil, quantise, deploy. A run that was interrupted goes on."""
    try:
        planned = plan(recipe, out=out)
        if dry_run:
            click.echo(str(planned), nl=False)
            return
        _run(planned, fresh)
    except SecateurError as error:
        raise click.ClickException(str(error)) from error


@secateur.command(epilog="Example: secateur explain examples/recipes/digits.yaml")
@RECIPE
def explain(recipe: Path) -> None:
    """Say what of a recipe's model can be pruned, and why the rest cannot."""
    try:
        click.echo(explain_recipe(plan(recipe)))
    except SecateurError as error:
        raise click.ClickException(str(error)) from error


def _run(planned: Plan, fresh: bool) -> None:
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        current: list[Any] = []

        def begin(name: str) -> None:
            for task in current:
                progress.update(task, total=1, completed=1)
                progress.stop_task(task)
            current[:] = [progress.add_task(name, total=None)]

        outcome = run(planned, fresh=fresh, progress=begin)
        for task in current:
            progress.update(task, total=1, completed=1)
    if outcome.resumed:
        click.echo(f"{outcome.resumed} steps were done already")
    click.echo(outcome.report.read_text(encoding="utf-8").partition("\n## ")[0].strip())
    click.echo(f"\nThe report is in {outcome.report}")
