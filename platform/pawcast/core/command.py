"""The wrapper around every command: `--json`, exit codes, errors in one line, an orderly end.

A command is a function that returns its result, for machines, and a text, for people. Standard
output carries the text, or with `--json` the result as one JSON object. Everything else goes to
standard error.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.markup import escape

from pawcast.core.console import console
from pawcast.errors import EXIT_INTERRUPTED, PawcastError

Result = dict[str, Any]
Command = Callable[..., tuple[Result, str]]

ModelOption = Annotated[str, typer.Option(metavar="MODEL", help="MODEL@REF or MODEL@NUMBER.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a field of the recipe, such as epochs=3 or augment.rotation=10; repeatable.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URI",
        help="The store: a folder or s3://bucket/prefix. [default: $PAWCAST_STORE, else var/store]",
    ),
]

EXIT_CODES = (
    "Exit codes: 0 success, 1 unexpected error, 2 wrong option, 3 not found, 4 unusable data, 5 corrupt data, "
    "6 store, 7 conflict, 8 Ray cluster, 9 service, 10 training, 130 interrupted."
)


class CommandError(PawcastError):
    """A command that has printed why it failed.

    Args:
        what: What failed.
        exit_code: The exit code of the command.
        result: What `--json` prints all the same.
    """

    def __init__(self, what: str, exit_code: int, result: Result | None = None) -> None:
        super().__init__(what, fix="see the lines above")
        self.exit_code, self.result = exit_code, result


def new_app(**options: Any) -> typer.Typer:
    """Return a Typer application with the settings that all commands share."""
    return typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, **options)


def add(app: typer.Typer, command: Command, name: str | None = None) -> None:
    """Add a command: its parameters become the options, its docstring the help.

    A `PawcastError` becomes one line and its exit code. Ctrl-C and SIGTERM become exit code 130.

    Args:
        app: The application.
        command: The function.
        name: The name of the subcommand, if the application has several.
    """

    @functools.wraps(command)
    def wrapper(*, as_json: bool = False, **options: Any) -> None:
        try:
            # Libraries print as well: Ray reports dead workers on standard output.
            with contextlib.redirect_stdout(sys.stderr):
                result, text = command(**options)
        except PawcastError as error:
            if as_json and (partial := getattr(error, "result", None)):
                sys.stdout.write(json.dumps(partial) + "\n")
            print_error(error)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            console.print("[yellow]interrupted[/]")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        sys.stdout.write(json.dumps(result) + "\n" if as_json else text.rstrip() + "\n")

    signature = inspect.signature(command, eval_str=True)
    option = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=JsonOption)
    parameters = [*signature.parameters.values(), option]
    wrapper.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=parameters, return_annotation=None
    )
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    # \b keeps the line breaks of a paragraph: an example stays on one line.
    text = (inspect.getdoc(command) or "").replace("\nExample:", "\n\b\nExample:")
    app.command(name, help=text, epilog=EXIT_CODES)(wrapper)


def run(app: typer.Typer | Command, program: str | None = None) -> None:
    """Run an application, or a single command, on this process's command line; exit at the end.

    Args:
        app: The application or the command.
        program: The name of the program, for its usage; by default that of the file.
    """
    if not isinstance(app, typer.Typer):
        command, app = app, new_app(add_completion=False)
        add(app, command)
    # `kill`, Ray and containers send SIGTERM: it ends a command as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda number, frame: os.kill(os.getpid(), signal.SIGINT))
    app(prog_name=program)


def print_error(error: PawcastError) -> None:
    """Print an error as one line on standard error."""
    console.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
