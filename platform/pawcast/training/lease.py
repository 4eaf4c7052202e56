"""Which attempt at a run may write checkpoints: the latest one.

runs/RUN/attempt.json   the token of the attempt that holds the lease
"""

from __future__ import annotations

import json
import uuid

from pawcast.store import Store


def acquire(store: Store, run: str) -> str:
    """Take the lease of a run for a new attempt, and return the attempt's token.

    An earlier attempt that still runs somewhere compares `holder` with its own token after each
    epoch, and ends.
    """
    attempt = uuid.uuid4().hex
    store.put(_key(run), json.dumps({"attempt": attempt}).encode())
    return attempt


def holder(store: Store, run: str) -> str:
    """Return the token of the attempt that holds the lease."""
    attempt: str = json.loads(store.get(_key(run)))["attempt"]
    return attempt


def _key(run: str) -> str:
    return f"runs/{run}/attempt.json"
