"""The doctor: checks all that a job needs, and says what to do about each problem."""

from __future__ import annotations

from pawcast.doctor import cluster, machine, store
from pawcast.doctor.finding import Finding

__all__ = ["Finding", "examine"]


def examine(uri: str) -> list[Finding]:
    """Check this machine, the store at `uri`, and Ray. Takes some 15 seconds.

    Args:
        uri: The store, a folder or `s3://bucket/prefix`.

    Raises:
        UsageError: If `uri` is neither a folder nor `s3://…`.
    """
    findings = [*store.check(uri), *machine.check()]
    # A store that fails here would only fail again from every node.
    works = not any(finding.exit_code for finding in findings if finding.area == "store")
    return [*findings, *cluster.check(uri if works else None)]
