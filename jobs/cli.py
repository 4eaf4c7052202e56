"""The `pawcast` command: every job as a subcommand."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer

import pawcast
from pawcast.core import command

COMMANDS = (
    "demo",
    "run",
    "ingest",
    "preview",
    "train",
    "evaluate",
    "promote",
    "predict",
    "bulk-predict",
    "pseudo-label",
    "verify",
    "doctor",
)
"""In the order of `pawcast --help`. Each is the function `main` of the module of that name."""


def main() -> None:
    """Run `pawcast` on this process's command line."""
    app = command.new_app(no_args_is_help=True)
    app.callback()(_options)
    for name in COMMANDS:
        command.add(app, import_module(f"pawcast_jobs.{name.replace('-', '_')}").main, name)
    command.run(app, "pawcast")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pawcast {pawcast.__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Train an image classifier on photos with Ray, and serve it.

    Start with `pawcast demo`. `pawcast COMMAND --help` explains a command.
    """


if __name__ == "__main__":
    main()
