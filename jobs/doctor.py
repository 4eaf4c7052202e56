"""Check the packages, GPUs, the store and Ray; suggest fixes."""

import time

from rich.markup import escape
from rich.table import Column, Table

from pawcast.core import command
from pawcast.core.command import CommandError, Result, StoreOption
from pawcast.core.console import console
from pawcast.core.settings import store_uri

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def main(store: StoreOption = None) -> tuple[Result, str]:
    """Check the packages, GPUs, the store and Ray; suggest fixes.

    The exit code is the highest among the problems: mostly 8 (Ray), 6 (store) or 1.

    Example: pawcast doctor --store s3://bucket/pawcast
    """
    from pawcast.doctor import examine

    uri, started = store_uri(store), time.monotonic()
    with console.status("checking"):
        findings = examine(uri)
    table = Table("", "check", "", Column("seen", overflow="fold"), box=None, padding=(0, 2, 0, 0))
    for finding in findings:
        seen = escape(finding.seen) + (f"\n[bold]Fix:[/] {escape(finding.fix)}" if finding.fix else "")
        level = f"[{_STYLES[finding.level]}]{finding.level}[/]"
        table.add_row(finding.area, escape(finding.check), level, seen)
    console.print(table)
    problems = [f"{finding.area} {finding.check}" for finding in findings if finding.level == "problem"]
    result = {
        "ok": not problems,
        "problems": len(problems),
        "warnings": sum(finding.level == "warning" for finding in findings),
        "store": uri,
        "seconds": round(time.monotonic() - started, 1),
        "checks": [finding._asdict() for finding in findings],
    }
    if problems:
        raise CommandError(f"Problems: {', '.join(problems)}", max(finding.exit_code for finding in findings), result)
    return result, f"no problems, {result['warnings']} warnings"


if __name__ == "__main__":
    command.run(main)
