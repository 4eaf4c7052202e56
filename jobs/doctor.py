"""Check the store, Ray, versions, CPU and GPU; say what to do about each problem."""

import time

from rich.markup import escape
from rich.table import Column, Table

from pawcast.core import console
from pawcast.core.console import FindingsError, Result, StoreOption
from pawcast.core.settings import store_uri
from pawcast.doctor import Finding, examine, exit_code

_MARKS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "problem": "[bold red]problem[/]"}


def main(store: StoreOption = None) -> tuple[Result, str]:
    """Check the store, Ray, versions, CPU and GPU; say what to do about each problem.

    Ends with 0 if nothing is a problem, else with the code of the worst one: 8 for Ray, 6 for the store, 1 for others.
    """
    uri = store_uri(store)
    started = time.monotonic()
    with console.console.status("looking") as status:
        findings = examine(uri, lambda area: status.update(f"looking at {area}"))
    show(findings)
    problems = [finding for finding in findings if finding.level == "problem"]
    warnings = [finding for finding in findings if finding.level == "warning"]
    result = {
        "ok": not problems,
        "problems": len(problems),
        "warnings": len(warnings),
        "store": uri,
        "seconds": round(time.monotonic() - started, 1),
        "checks": [finding.as_dict() for finding in findings],
    }
    if problems:
        names = ", ".join(f"{finding.area} {finding.check}" for finding in problems)
        raise FindingsError(f"{count(len(problems), 'problem')}: {names}", result, exit_code(findings))
    return result, f"no problems, {count(len(warnings), 'warning')}"


def show(findings: list[Finding]) -> None:
    """Print one line for each check, with the fix below it where there is one."""
    table = Table("", "check", "", Column("seen", overflow="fold"), box=None, padding=(0, 2, 0, 0))
    area = None
    for finding in findings:
        seen = escape(finding.seen) + (f"\n[bold]Fix:[/] {escape(finding.fix)}" if finding.fix else "")
        table.add_row(finding.area if finding.area != area else "", escape(finding.check), _MARKS[finding.level], seen)
        area = finding.area
    console.console.print(table)


def count(number: int, noun: str) -> str:
    """Return the number with its noun, in the plural where due."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


if __name__ == "__main__":
    console.run(main)
