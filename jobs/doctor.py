"""Check the store, Ray, packages, CPU and GPU; suggest fixes."""

import time
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Column, Table

from pawcast.core import command
from pawcast.core.command import ErrorWithResult, Result, StoreOption
from pawcast.core.console import console
from pawcast.core.settings import store_uri

if TYPE_CHECKING:
    from pawcast.doctor import Finding

_LEVELS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "problem": "[bold red]problem[/]"}


def main(store: StoreOption = None) -> tuple[Result, str]:
    """Check the store, Ray, packages, CPU and GPU; suggest fixes.

    The exit code is the highest among the problems: mostly 8 (Ray), 6 (store) or 1.

    Example: pawcast doctor --store s3://bucket/pawcast
    """
    from pawcast.doctor import examine, exit_code

    uri = store_uri(store)
    started = time.monotonic()
    with console.status("checking") as status:
        findings = examine(uri, lambda area: status.update(f"checking {area}"))
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
        raise ErrorWithResult(f"{count(problems, 'problem')}: {names}", result, exit_code(findings))
    return result, f"no problems, {count(warnings, 'warning')}"


def show(findings: "list[Finding]") -> None:
    """Print one row for each check, with its fix below if there is one."""
    table = Table("", "check", "", Column("seen", overflow="fold"), box=None, padding=(0, 2, 0, 0))
    area = None
    for finding in findings:
        seen = escape(finding.seen) + (f"\n[bold]Fix:[/] {escape(finding.fix)}" if finding.fix else "")
        table.add_row(finding.area if finding.area != area else "", escape(finding.check), _LEVELS[finding.level], seen)
        area = finding.area
    console.print(table)


def count(findings: "list[Finding]", noun: str) -> str:
    """Return the number of findings with their noun, in the plural where due."""
    return f"{len(findings)} {noun}{'' if len(findings) == 1 else 's'}"


if __name__ == "__main__":
    command.run(main)
