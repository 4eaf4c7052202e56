"""The doctor: looks at everything that a job needs, and says what to do about each problem."""

from __future__ import annotations

from collections.abc import Callable

from pawcast.doctor import cluster, machine, store, versions
from pawcast.doctor.finding import Finding, Notes, exit_code

__all__ = ["Finding", "examine", "exit_code"]


def examine(uri: str, on_area: Callable[[str], None] = lambda area: None) -> list[Finding]:
    """Run all checks on this machine, the store at `uri`, and Ray. Takes some 15 seconds.

    Args:
        uri: The store, a folder or `s3://bucket/prefix`.
        on_area: Called with the name of each area before it is looked at.

    Raises:
        KeyboardInterrupt: If interrupted. Nothing else: what fails is a finding.
    """
    found: list[Finding] = []

    def look(area: str, check: Callable[[], list[Finding]]) -> list[Finding]:
        on_area(area)
        notes = Notes(area)
        with notes.guarded(area):
            notes.findings += check()
        found.extend(notes.findings)
        return notes.findings

    look("versions", versions.check)
    look("machine", machine.check)
    stored = look("store", lambda: store.check(uri))
    # A store that fails here already would only fail again from every node.
    look("ray", lambda: cluster.check(None if exit_code(stored) else uri))
    return found
