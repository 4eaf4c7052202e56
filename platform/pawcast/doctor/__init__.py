"""The doctor: checks all that a job needs, and says what to do about each problem."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pawcast.doctor import cluster, machine, store, versions
from pawcast.doctor.finding import Finding, exit_code, failure

__all__ = ["Finding", "examine", "exit_code"]


def examine(uri: str, on_area: Callable[[str], None] = lambda area: None) -> list[Finding]:
    """Check the versions, this machine, the store at `uri`, and Ray. Takes some 15 seconds.

    Args:
        uri: The store, a folder or `s3://bucket/prefix`.
        on_area: Called with the name of each area before it is checked.

    Returns:
        The findings. A check that fails with an error is a finding, too.
    """

    def run(area: str, check: Callable[[], Iterator[Finding]]) -> list[Finding]:
        on_area(area)
        findings: list[Finding] = []
        try:
            findings.extend(check())
        except Exception as error:
            findings.append(failure(area, area, error))
        return findings

    findings = run("versions", versions.check) + run("machine", machine.check)
    stored = run("store", lambda: store.check(uri))
    # A store that fails from here would only fail again from every node.
    return findings + stored + run("ray", lambda: cluster.check(None if exit_code(stored) else uri))
