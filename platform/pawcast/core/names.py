"""Names of datasets, runs, models and refs: short words that are safe as a part of a key."""

from __future__ import annotations

import re

from pawcast.errors import UsageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check(kind: str, name: str) -> str:
    """Return a name that is fit for a key. Raises `UsageError` for any other."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"Not a name for a {kind}",
            received=repr(name),
            expected="up to 64 letters, digits, dots, dashes and underscores, the first a letter or digit",
        )
    return name
