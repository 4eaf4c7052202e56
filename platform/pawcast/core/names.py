"""Names of datasets, runs, models and refs: short words that are safe in a store's keys."""

from __future__ import annotations

import re

from pawcast.errors import UsageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check(kind: str, name: str) -> str:
    """Return the name of a dataset, model, …. Raises `UsageError` if it is not valid."""
    if not _NAME.fullmatch(name):
        expected = "up to 64 letters, digits, dots, dashes and underscores, the first a letter or digit"
        raise UsageError(f"Invalid name for a {kind}", received=repr(name), expected=expected)
    return name
