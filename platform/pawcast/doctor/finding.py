"""What a check found: fine, a warning or a problem, with what was seen and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pawcast.errors import PawcastError

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One line of the report. `exit_code` is 0 unless the level is "problem"."""

    area: str
    check: str
    level: Level
    seen: str
    fix: str = ""
    exit_code: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return asdict(self)


@dataclass
class Notes:
    """Collects an area's findings; its problems count as `kind` unless an error of another kind says so."""

    area: str
    kind: type[PawcastError] = PawcastError
    findings: list[Finding] = field(default_factory=list)

    def ok(self, check: str, seen: str) -> None:
        """Note that all is well."""
        self.findings.append(Finding(self.area, check, "ok", seen))

    def warning(self, check: str, seen: str, fix: str) -> None:
        """Note what works but could be better, or may bite later."""
        self.findings.append(Finding(self.area, check, "warning", seen, fix))

    def problem(self, check: str, seen: str, fix: str) -> None:
        """Note what will make jobs fail, or give wrong results."""
        self.findings.append(Finding(self.area, check, "problem", seen, fix, self.kind.exit_code))

    def error(self, check: str, error: PawcastError, fix: str = "read the line again: it says what is wrong") -> None:
        """Note a failure as a problem, in its own words and with its own exit code; `fix` is for one without."""
        seen, _, own = str(error).partition(" Fix: ")
        self.findings.append(Finding(self.area, check, "problem", seen, own or fix, error.exit_code))

    @contextmanager
    def guarded(self, check: str) -> Iterator[None]:
        """Turn whatever goes wrong in the block into a problem: one broken check must not hide the others."""
        try:
            yield
        except PawcastError as error:
            self.error(check, error)
        except Exception as error:
            self.problem(
                check, f"{type(error).__name__}: {first_line(error)}", "this was not foreseen; read the message"
            )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")


def exit_code(findings: list[Finding]) -> int:
    """Return the highest exit code among the problems, or 0: trouble with Ray outranks trouble with the store."""
    return max((finding.exit_code for finding in findings), default=0)
