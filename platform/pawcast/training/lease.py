"""Which attempt at a run may write checkpoints: the latest one.

runs/RUN/attempt.json   the token of the attempt that holds the lease
"""

from __future__ import annotations

import uuid

from pawcast.core.records import Record
from pawcast.store import Store, records


class Attempt(Record):
    """The attempt that holds the lease, by its token."""

    attempt: str


def acquire(store: Store, run: str) -> str:
    """Take the lease of a run for a new attempt, and return the attempt's token.

    An earlier attempt that still runs somewhere compares `holder` with its own token after each
    epoch, and ends.
    """
    attempt = uuid.uuid4().hex
    records.write(store, key_of(run), Attempt(attempt=attempt))
    return attempt


def holder(store: Store, run: str) -> str:
    """Return the token of the attempt that holds the lease. Raises `IntegrityError` if damaged."""
    return records.read(store, key_of(run), Attempt, f"resume the run: pawcast train --resume {run}").attempt


def key_of(run: str) -> str:
    """Return the key of a run's lease."""
    return f"runs/{run}/attempt.json"
