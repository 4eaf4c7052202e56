"""Findings: what a check saw, how bad it is, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from pawcast.errors import PawcastError


class CheckWarning(PawcastError):
    """What a check raises about something that works, but is slow or may fail later."""

    exit_code = 0


class Finding(NamedTuple):
    """One line of the report. `exit_code` is 0 unless the level is "problem"."""

    area: str
    check: str
    level: Literal["ok", "warning", "problem"]
    seen: str
    fix: str = ""
    exit_code: int = 0


def find(area: str, name: str, check: Callable[..., str], *arguments: object) -> Finding:
    """Run a check. It returns what it saw, or raises an error, which brings exit code and fix."""
    try:
        return Finding(area, name, "ok", check(*arguments))
    except PawcastError as error:
        seen, _, fix = str(error).partition(" Fix: ")
        return Finding(area, name, "problem" if error.exit_code else "warning", seen, fix, error.exit_code)
    except Exception as error:
        seen = f"{type(error).__name__}: {last_line(str(error))}"
        return Finding(area, name, "problem", seen, "read the message", PawcastError.exit_code)


def last_line(text: str) -> str:
    """Return the last line of a process's output, or of an error."""
    return (text.strip().splitlines() or ["no message"])[-1]
