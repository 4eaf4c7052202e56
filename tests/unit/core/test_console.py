"""Progress bars, and the lines that stand for them without a terminal."""

from __future__ import annotations

import io

from rich.console import Console
from rich.text import Text

from pawcast.core import console
from pawcast.core.console import ProgressBars
from pawcast.core.progress import Counter


def written(monkeypatch, terminal: bool) -> io.StringIO:
    file = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=file, force_terminal=terminal, width=120, highlight=False))
    return file


def test_without_a_terminal_a_line_is_printed_at_every_tenth(monkeypatch):
    file = written(monkeypatch, terminal=False)
    with ProgressBars() as progress:
        for done in range(101):
            progress("reading", done, 100, "[note]" if done == 100 else "")
    lines = [" ".join(line.split()) for line in file.getvalue().splitlines()]
    assert lines == [
        *(f"reading {done} of 100 photos" for done in range(0, 100, 10)),
        "reading 100 of 100 photos [note]",
    ]


def test_a_bar_shows_count_unit_and_note(monkeypatch):
    file = written(monkeypatch, terminal=True)
    with ProgressBars() as progress:
        progress("training", 1, 4, "loss [0.5]", unit="steps")
        progress("training", 4, 4, "loss [0.4]", unit="steps")
    text = Text.from_ansi(file.getvalue()).plain
    assert "4/4 steps" in text
    assert "loss [0.4]" in text


def test_seconds_are_measured_for_each_stage(monkeypatch):
    written(monkeypatch, terminal=False)
    clock = iter([10.0, 12.0, 13.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    progress = ProgressBars()
    progress("checking", 0, 2)
    progress("checking", 2, 2)
    progress("writing", 0, 0)
    assert progress.seconds == {"checking": 2.0, "writing": 0.0}


def test_a_counter_reports_the_sum():
    reports = []
    counter = Counter(lambda *report: reports.append(report), "decoding", 5)
    counter(2)
    counter(3)
    assert reports == [("decoding", 0, 5), ("decoding", 2, 5), ("decoding", 5, 5)]
