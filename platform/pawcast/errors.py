"""The errors of Pawcast: every failure that a user can cause or fix. Each prints as one line.

    PawcastError                exit  1   HTTP 500
    ├── UsageError              exit  2   HTTP 400   a wrong option or recipe, a malformed key
    ├── NotFoundError           exit  3   HTTP 404   a path, dataset, run, model or ref is missing
    ├── DataError               exit  4   HTTP 422   a source or dataset that can't be used
    │   └── ImageError          exit  4   HTTP 422   one photo that can't be read
    │       └── ImageSizeError  exit  4   HTTP 422   one photo of a wrong size
    ├── IntegrityError          exit  5   HTTP 500   data that doesn't match its sha256
    ├── StoreError              exit  6   HTTP 503   the store can't be reached or used
    │   ├── StoreAccessError    exit  6   HTTP 503   the store refuses the credentials
    │   └── StoreFullError      exit  6   HTTP 507   no space left
    ├── ConflictError           exit  7   HTTP 409   a name that is taken, a ref that moved
    ├── ClusterError            exit  8   HTTP 503   Ray can't be reached, lacks resources or fails
    ├── ServiceError            exit  9   HTTP 502   no server, no model, a refused API key
    │   └── BusyError           exit  9   HTTP 429   a server that is overloaded
    └── TrainingError           exit 10   HTTP 500   bad loss or network, scores unlike Keras's

An interrupted command exits with 130, as is usual in shells.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PawcastError(Exception):
    """A failure in one line: what happened, what was received, what was expected, how to fix it.

    Args:
        what: What happened: a sentence without its full stop.
        received: The value at fault, if there is one.
        expected: What a correct value looks like.
        fix: What the user can do.

    Attributes:
        what: What happened, without the rest of the line.
        exit_code: The exit code of a command that fails with the error.
        http_status: The status code of a response that reports the error.
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
        # By default unpickling, as in Ray, would call __init__ with the whole line as `what`.
        return (_rebuild, (type(self), self.args[0], self.what))


def _rebuild(kind: type[PawcastError], line: str, what: str) -> PawcastError:
    error = kind.__new__(kind)
    Exception.__init__(error, line)
    error.what = what
    return error


class UsageError(PawcastError):
    """A wrong option or recipe, or a malformed API key."""

    exit_code = 2
    http_status = 400


class NotFoundError(PawcastError):
    """A path, dataset, run, model or ref that doesn't exist."""

    exit_code = 3
    http_status = 404


class DataError(PawcastError):
    """A source or dataset that can't be used as it is."""

    exit_code = 4
    http_status = 422


class ImageError(DataError):
    """One photo that can't be read. `what` is the reason, short enough for a table."""


class ImageSizeError(ImageError):
    """One photo of too many or too few pixels or bytes."""


class IntegrityError(PawcastError):
    """Data that doesn't match its recorded sha256."""

    exit_code = 5
    http_status = 500


class StoreError(PawcastError):
    """The store can't be reached, or refuses access."""

    exit_code = 6
    http_status = 503


class StoreAccessError(StoreError):
    """The store refuses the credentials or the request. Another attempt would fail as well."""


class StoreFullError(StoreError):
    """The disk or the bucket of the store is full."""

    http_status = 507


class ConflictError(PawcastError):
    """A name that is taken, or a ref that another process moved in the meantime."""

    exit_code = 7
    http_status = 409


class ClusterError(PawcastError):
    """Ray can't be reached, lacks CPUs, GPUs or memory, or lost processes too often."""

    exit_code = 8
    http_status = 503


class ServiceError(PawcastError):
    """No server, a server without a model or with an invalid response, or a refused API key."""

    exit_code = 9
    http_status = 502


class BusyError(ServiceError):
    """A server that is overloaded; the request can be sent again later."""

    http_status = 429


class TrainingError(PawcastError):
    """Training failed.

    The loss is not finite, the network fails, or the served model disagrees with Keras.
    """

    exit_code = 10
    http_status = 500


EXIT_INTERRUPTED = 130


def suggest(word: str, choices: Iterable[str]) -> str:
    """Return the choices as a readable list, with a suggestion if one of them resembles `word`."""
    names = sorted(choices)
    if not names:
        return "none exist yet"
    close = difflib.get_close_matches(word, names, n=1)
    listing = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"one of {listing}" + (f" (did you mean {close[0]!r}?)" if close else "")
