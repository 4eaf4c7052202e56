"""The error tree. Every failure that a user can cause or mend is one of these, and prints as one line.

    PawcastError                exit  1   HTTP 500
    ├── UsageError              exit  2   HTTP 400   a wrong option, recipe or key
    ├── NotFoundError           exit  3   HTTP 404   a path, dataset, run, model or ref that isn't there
    ├── DataError               exit  4   HTTP 422   a source or dataset that can't be used as it is
    │   └── ImageError          exit  4   HTTP 422   one photo that can't be read, with the reason
    │       └── ImageSizeError  exit  4   HTTP 422   one photo of too many or too few pixels or bytes
    ├── IntegrityError          exit  5   HTTP 500   bytes that don't match their recorded sha256
    ├── StoreError              exit  6   HTTP 503   the store can't be reached, or refuses
    │   └── StoreFullError      exit  6   HTTP 507   no space left
    ├── ConflictError           exit  7   HTTP 409   a name that is taken, a ref that moved meanwhile
    ├── ClusterError            exit  8   HTTP 503   Ray can't be reached or lacks the resources
    ├── ServiceError            exit  9   HTTP 502   no server, a server without a model, or a wrong answer
    │   └── BusyError           exit  9   HTTP 429   a server that has enough to do; try again
    └── TrainingError           exit 10   HTTP 500   a loss that isn't finite, ranks that disagree, …

An interrupted job exits with 130, as shells do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PawcastError(Exception):
    """A failure told in one line: what happened, what was received, what was expected, how to fix it.

    Args:
        what: A sentence without its final full stop.
        received: The offending value, if there is one.
        expected: What would have been right.
        fix: What to do now.
    """

    exit_code = 1
    http_status = 500

    def __init__(
        self,
        what: str,
        *,
        received: object = None,
        expected: object = None,
        fix: str | None = None,
    ) -> None:
        parts = [what]
        if received is not None:
            parts.append(f"Received: {received}")
        if expected is not None:
            parts.append(f"Expected: {expected}")
        if fix is not None:
            parts.append(f"Fix: {fix}")
        super().__init__(". ".join(part.rstrip(".") for part in parts) + ".")
        self.what = what

    def __reduce__(self) -> tuple[object, ...]:
        # The default would call __init__ again with the finished line and lose `what` on its way through Ray.
        return (_rebuild, (type(self), self.args[0], self.what))


def _rebuild(kind: type[PawcastError], line: str, what: str) -> PawcastError:
    error = kind.__new__(kind)
    Exception.__init__(error, line)
    error.what = what
    return error


class UsageError(PawcastError):
    """A wrong option, recipe or key."""

    exit_code = 2
    http_status = 400


class NotFoundError(PawcastError):
    """A path, dataset, run, model or ref that isn't there."""

    exit_code = 3
    http_status = 404


class DataError(PawcastError):
    """A source or dataset that can't be used as it is."""

    exit_code = 4
    http_status = 422


class ImageError(DataError):
    """One photo that can't be read; `what` is the reason, short enough for a table."""


class ImageSizeError(ImageError):
    """One photo of too many or too few pixels or bytes."""


class IntegrityError(PawcastError):
    """Bytes that don't match their recorded sha256."""

    exit_code = 5
    http_status = 500


class StoreError(PawcastError):
    """The store can't be reached, or refuses."""

    exit_code = 6
    http_status = 503


class StoreFullError(StoreError):
    """No space left where the store lives."""

    http_status = 507


class ConflictError(PawcastError):
    """A name that is taken, or a ref that somebody else moved meanwhile."""

    exit_code = 7
    http_status = 409


class ClusterError(PawcastError):
    """Ray can't be reached, or lacks the resources asked for."""

    exit_code = 8
    http_status = 503


class ServiceError(PawcastError):
    """No server at the address, a server without a model, or an answer that makes no sense."""

    exit_code = 9
    http_status = 502


class BusyError(ServiceError):
    """A server that has enough to do for now."""

    http_status = 429


class TrainingError(PawcastError):
    """A loss that isn't finite, ranks that no longer hold the same weights, a network that is served differently."""

    exit_code = 10
    http_status = 500


EXIT_INTERRUPTED = 130


def suggest(word: str, choices: Iterable[str]) -> str:
    """Return the choices as a readable list, with the nearest match to `word` first in line if there is one."""
    names = sorted(choices)
    if not names:
        return "none exist yet"
    close = difflib.get_close_matches(word, names, n=1)
    listing = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"one of {listing}" + (f" (did you mean {close[0]!r}?)" if close else "")
