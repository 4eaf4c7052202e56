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
import shlex
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.markup import escape

from pawcast.core.console import console
from pawcast.errors import EXIT_INTERRUPTED, ClusterError, PawcastError

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
    Any other exception is a mistake in Pawcast or in a user's own code, or a failure of Ray. It
    becomes exit code 1, or 8 for Ray, and one line, which names a log with the traceback.

    Args:
        app: The application.
        command: The function.
        name: The name of the subcommand, if the application has several.
    """

    @functools.wraps(command)
    def wrapper(*, as_json: bool = False, **options: Any) -> None:
        try:
            # Libraries print as well: Ray reports dead workers on standard output.
            with contextlib.redirect_stdout(console.file):
                result, text = command(**options)
            _write_output(json.dumps(result) if as_json else text.rstrip())
        except PawcastError as error:
            print_error(error)
            if as_json and (partial := getattr(error, "result", None)):
                _write_output(json.dumps(partial))
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            console.print("[yellow]interrupted[/]")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except Exception as error:
            unexpected = _unexpected(error)
            print_error(unexpected)
            raise typer.Exit(unexpected.exit_code) from None

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
    # Python has None for a stream that was closed before the process began.
    sys.stdout, sys.stderr = sys.stdout or _discard(), sys.stderr or _discard()
    # `kill`, Ray and containers send SIGTERM: it ends a command as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda number, frame: os.kill(os.getpid(), signal.SIGINT))
    app(prog_name=program)


def print_error(error: PawcastError) -> None:
    """Print an error as one line on standard error."""
    console.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)


def _write_output(text: str) -> None:
    """Write a line to standard output. A reader that has gone away, such as `head`, is no error.

    Raises:
        PawcastError: If standard output can't be written for another reason.
    """
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except OSError as error:
        # Python would write what is left in the buffer once more when it ends, and fail again.
        sys.stdout = _discard()
        if not isinstance(error, BrokenPipeError):
            raise PawcastError(
                "The result can't be written to standard output",
                received=error.strerror,
                fix="write it elsewhere; the job itself is done",
            ) from None


def _discard() -> TextIO:
    return Path(os.devnull).open("w")


def _unexpected(error: Exception) -> PawcastError:
    """Write a log with the traceback, and return the error that names it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    line = " ".join(f"{type(error).__name__}: {error}".split())[:300].rstrip(".")
    content = f"{shlex.join(sys.argv)}\n{''.join(traceback.format_exception(error))}"
    try:
        with tempfile.NamedTemporaryFile("w", prefix="pawcast-", suffix=".log", delete=False) as file:
            file.write(content)
        fix = f"read the traceback in {file.name}; if it doesn't end in code of yours, report it with that file"
    except OSError as full:
        fix = f"free some space for a log in {tempfile.gettempdir()} ({full.strerror}), and run it again"
    # A failure of Ray itself, not of code in its tasks. Ray isn't imported just for this.
    ray = sys.modules.get("ray")
    of_ray = ray and isinstance(error, ray.exceptions.RayError) and not isinstance(error, ray.exceptions.RayTaskError)
    kind = ClusterError if of_ray else PawcastError
    return kind("Unexpected error", received=f"{line} ({Path(last.filename).name}:{last.lineno})", fix=fix)
