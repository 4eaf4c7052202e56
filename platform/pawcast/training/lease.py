"""Which attempt at a run may write: the latest one, so that two at once do each other no harm.

runs/RUN/attempt.json   the token of the attempt that holds the run
"""

from __future__ import annotations

import json
import uuid

from pawcast.store import Store


def acquire(store: Store, run: str) -> str:
    """Make a new attempt at a run the one that may write; return its token.

    An earlier one that still runs, somewhere, finds out by `taken_by` and ends.
    """
    attempt = uuid.uuid4().hex
    store.put(_attempt_key(run), json.dumps({"attempt": attempt}).encode())
    return attempt


def holder(store: Store, run: str) -> str:
    """Return the token of the attempt that may write."""
    attempt: str = json.loads(store.get(_attempt_key(run)))["attempt"]
    return attempt


def _attempt_key(run: str) -> str:
    return f"runs/{run}/attempt.json"
