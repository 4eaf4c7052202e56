"""What commands show to people, on standard error: text, tables and progress bars."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class _StandardError:
    """Standard error, for which no work is lost: what it can't take any more is left out.

    A terminal may be closed, and a disk may be full, while a job goes on.
    """

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


console = Console(file=_StandardError(), highlight=False)  # type: ignore[arg-type]


class ProgressBars:
    """One progress bar for each stage of a command: count, rate, time left and a note.

    Without a terminal it prints a line at every tenth of a stage. Use it as a context manager; it
    is a `pawcast.core.progress.Progress`.

    Attributes:
        seconds: How long each stage has taken so far, by the name of the stage.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started: dict[str, tuple[float, int]] = {}
        self._printed_tenths: dict[str, int] = {}
        self._tasks: dict[str, TaskID] = {}
        self._bars = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> ProgressBars:
        self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    def __call__(self, stage: str, done: int, total: int, note: str = "", unit: str = "photos") -> None:
        """Update the bar of a stage, as `pawcast.core.progress.Progress` describes."""
        now = time.monotonic()
        # What an earlier, killed run did before this one began doesn't count for the rate.
        started, done_before = self._started.setdefault(stage, (now, done))
        self.seconds[stage] = now - started
        if console.is_terminal:
            if stage not in self._tasks:
                self._tasks[stage] = self._bars.add_task(stage, completed=done, rate="", note="", unit=unit)
            rate = f"{(done - done_before) / self.seconds[stage]:,.0f}/s" if done > done_before else ""
            self._bars.update(self._tasks[stage], completed=done, total=total, rate=rate, note=note)
            return
        tenth = done * 10 // max(total, 1)
        if tenth > self._printed_tenths.get(stage, -1):
            self._printed_tenths[stage] = tenth
            count = f"{stage:<10} {done:>7,} of {total:,} {unit} " if unit else stage
            console.print(f"{count} {note}".rstrip(), markup=False, soft_wrap=True)
