"""Findings: what a check saw, how bad it is, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pawcast.errors import ClusterError, PawcastError, StoreError

_EXIT_CODES = {"store": StoreError.exit_code, "ray": ClusterError.exit_code}


@dataclass(frozen=True)
class Finding:
    """One line of the report. `exit_code` is 0 unless the level is "problem"."""

    area: str
    check: str
    level: Literal["ok", "warning", "problem"]
    seen: str
    fix: str = ""
    exit_code: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return asdict(self)


def ok(area: str, check: str, seen: str) -> Finding:
    """Return the finding that all is well."""
    return Finding(area, check, "ok", seen)


def warning(area: str, check: str, seen: str, fix: str) -> Finding:
    """Return a finding on what works, but is slow or may fail later."""
    return Finding(area, check, "warning", seen, fix)


def problem(area: str, check: str, seen: str, fix: str) -> Finding:
    """Return a finding on what makes jobs fail, or gives wrong results."""
    return Finding(area, check, "problem", seen, fix, _EXIT_CODES.get(area, PawcastError.exit_code))


def failure(area: str, check: str, error: Exception, fix: str = "this is unexpected; read the message") -> Finding:
    """Return an error as a problem. A `PawcastError` brings its own exit code and mostly a fix."""
    if isinstance(error, PawcastError):
        seen, _, own_fix = str(error).partition(" Fix: ")
        return Finding(area, check, "problem", seen, own_fix or fix, error.exit_code)
    return problem(area, check, f"{type(error).__name__}: {' '.join(str(error).split())}", fix)


def exit_code(findings: Iterable[Finding]) -> int:
    """Return the highest exit code among the findings, or 0. Ray's outranks the store's."""
    return max((finding.exit_code for finding in findings), default=0)
