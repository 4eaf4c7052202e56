"""What all jobs share: one way to end, one way to speak.

People read standard error: progress bars, tables, one line for an error. Standard output carries the result
alone, with `--json` as one JSON object on its last line.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pawcast.errors import EXIT_INTERRUPTED, PawcastError

console = Console(stderr=True, highlight=False)

Result = dict[str, Any]

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
StoreOption = Annotated[
    str | None,
    typer.Option("--store", help="A folder or s3://bucket/prefix. [default: $PAWCAST_STORE, else var/store]"),
]

EXIT_CODES = """
Exit codes: 0 done, 1 unexpected, 2 wrong option, 3 not found, 4 unusable data, 5 changed data, 6 store,
7 name taken or moved meanwhile, 8 cluster, 9 service, 10 training, 130 interrupted.
"""


class FindingsError(PawcastError):
    """A failure that has a result all the same, which `--json` prints; the job's own exit code comes with it."""

    def __init__(self, what: str, result: Result, code: int) -> None:
        super().__init__(what, fix="see the table above")
        self.result = result
        self.exit_code = code


def run(job: Callable[..., tuple[Result, str]]) -> None:
    """Run a job as a command line: its parameters are the options, its docstring is the help.

    The job returns its result and a text for people. A `PawcastError` becomes one line and its exit code;
    Ctrl-C and SIGTERM both become exit code 130 after an orderly end.
    """

    @functools.wraps(job)
    def command(*args: Any, as_json: bool = False, **options: Any) -> None:
        try:
            result, text = job(*args, **options)
        except PawcastError as error:
            if as_json and isinstance(error, FindingsError):
                sys.stdout.write(json.dumps(error.result) + "\n")
            console.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            console.print("[yellow]interrupted[/]")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        sys.stdout.write(json.dumps(result) + "\n" if as_json else text.rstrip() + "\n")

    _take_option(command)
    command.__doc__ = f"{inspect.getdoc(job)}\n\n{EXIT_CODES}"
    signal.signal(signal.SIGTERM, lambda number, frame: os.kill(os.getpid(), signal.SIGINT))
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(command)
    app()


class ProgressBars:
    """Progress bars, one for each stage of a job, with count, rate and time left.

    Without a terminal, a line at every tenth of a stage. Use as a context manager; call with a stage's name,
    what is done of how much, and an optional note.
    """

    def __init__(self) -> None:
        self._started: dict[str, tuple[float, int]] = {}
        self.seconds: dict[str, float] = {}
        self._tenths: dict[str, int] = {}
        self._tasks: dict[str, TaskID] = {}
        self._bars = Progress(
            TextColumn("{task.description:<10}"), BarColumn(bar_width=24), MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"), TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
            console=console, disable=not console.is_terminal,
        )  # fmt: skip

    def __enter__(self) -> ProgressBars:
        self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    def __call__(self, stage: str, done: int, total: int, note: str = "", unit: str = "photos") -> None:
        now = time.monotonic()
        # What was done before the stage began, by a run that was killed, is no speed.
        began, before = self._started.setdefault(stage, (now, done))
        self.seconds[stage] = now - began
        if console.is_terminal:
            if stage not in self._tasks:
                self._tasks[stage] = self._bars.add_task(
                    stage, total=total, completed=done, rate="", note="", unit=unit
                )
            speed = (done - before) / self.seconds[stage] if self.seconds[stage] else 0
            rate = f"{speed:,.0f}/s" if speed else ""
            self._bars.update(self._tasks[stage], completed=done, total=total, rate=rate, note=note)
            return
        tenth = done * 10 // max(total, 1)
        if tenth > self._tenths.get(stage, -1):
            self._tenths[stage] = tenth
            console.print(f"{stage:<10} {done:>7,} of {total:,} {unit}  {note}".rstrip())


def _take_option(command: Any) -> None:
    """Give a command the `--json` option beside those of the job that it wraps."""
    signature = inspect.signature(command.__wrapped__, eval_str=True)
    option = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=JsonOption)
    command.__signature__ = signature.replace(
        parameters=[*signature.parameters.values(), option], return_annotation=None
    )
    command.__annotations__ = {p.name: p.annotation for p in command.__signature__.parameters.values()}
