"""Errors of S3 and boto3: which ones to retry, and the one line for those that stay.

The codes come from https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, and from
MinIO.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pawcast.errors import (
    IntegrityError,
    NotFoundError,
    PawcastError,
    StoreAccessError,
    StoreError,
    StoreFullError,
)

_MISSING = {"NoSuchKey", "404", "NotFound"}
_PRECONDITION_FAILED = {"PreconditionFailed", "412"}
_FULL = {"InsufficientStorage", "XMinioStorageFull", "507"}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}
_INVALID = {"InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"}
_CLOCK = {"RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"}

_TRANSIENT_STATUS = {429, 500, 502, 503, 504}
_OVERLOAD = {"SlowDown", "RequestTimeout"}
# Another conditional write of the same key is in progress (409).
_CONFLICT = {"ConditionalRequestConflict", "OperationAborted"}
# The bytes were changed on their way to the server.
_CORRUPTED = {"BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"}
_TRANSIENT = _OVERLOAD | _CONFLICT | _CORRUPTED

_SEE_LOG = "look at the server's log"
_REFUSALS = (
    (_MISSING, "The store {uri} has no {key}", None),
    ({"NoSuchBucket"}, "There is no bucket {bucket!r}", "create it, or correct --store"),
    (
        _EXPIRED | _INVALID,
        "The store {uri} refused the credentials",
        "renew AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN)",
    ),
    (
        {"AccessDenied", "403"},
        "The store {uri} refused the credentials for {key}",
        "allow them to read, write, list and delete there, or use others",
    ),
    (_CLOCK, "The store {uri} and this machine disagree about the time", "set this machine's clock"),
    (_FULL, "The store {uri} is full, so {key} was not written", "free some space"),
)
"""Error codes, what the error says, and the fix. All other codes are in `_refusal`."""


def is_missing(error: Any) -> bool:
    """Return whether there is no such object."""
    return _code(error) in _MISSING


def is_precondition_failed(error: Any) -> bool:
    """Return whether a conditional write was refused because its condition didn't hold."""
    return _code(error) in _PRECONDITION_FAILED


def may_have_written(error: Any) -> bool:
    """Return whether this attempt, or one that boto3 made before it, may have been executed."""
    return _status(error) >= 500 or error.response["ResponseMetadata"].get("RetryAttempts", 0) > 0


def is_transient(error: Exception) -> bool:
    """Return whether the same request may succeed a little later."""
    from botocore import exceptions as e

    if isinstance(error, e.ClientError):
        return _code(error) in _TRANSIENT or (_status(error) in _TRANSIENT_STATUS and _code(error) not in _FULL)
    kinds = (e.ConnectionError, e.HTTPClientError, e.IncompleteReadError, e.FlexibleChecksumError)
    return isinstance(error, kinds) and not isinstance(error, e.SSLError)


@contextmanager
def translate_errors(uri: str, bucket: str, key: str) -> Iterator[None]:
    """Raise the errors that boto3 raises inside the block as Pawcast's."""
    from botocore import exceptions as e

    no_credentials = (
        e.NoCredentialsError,
        e.PartialCredentialsError,
        e.CredentialRetrievalError,
        e.ProfileNotFound,
        e.SSOError,
        e.TokenRetrievalError,
    )
    try:
        yield
    except e.ClientError as error:
        raise _refusal(uri, bucket, key, error) from None
    except e.FlexibleChecksumError:
        raise IntegrityError(
            f"{key} in {uri} arrived with bytes that don't match its checksum",
            fix="run the command again; if it fails again, delete the object and make it again",
        ) from None
    except no_credentials as error:
        raise StoreAccessError(
            f"There are no usable credentials for {uri}",
            received=_one_line(error),
            expected="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws",
            fix="set them, and start Ray with them",
        ) from None
    except e.BotoCoreError as error:
        raise StoreError(
            f"The store {uri} could not be reached",
            received=_one_line(error),
            fix="check AWS_ENDPOINT_URL, AWS_REGION and the network",
        ) from None


def _refusal(uri: str, bucket: str, key: str, error: Any) -> PawcastError:
    code = _code(error)
    other = ("The store {uri} refused {key}", _SEE_LOG)
    if is_transient(error):
        other = ("The store {uri} kept failing at {key}", f"{_SEE_LOG}, then run the command again")
    what, fix = next(((what, fix) for codes, what, fix in _REFUSALS if code in codes), other)
    refusal = StoreError if is_transient(error) else StoreAccessError
    kind = NotFoundError if code in _MISSING else StoreFullError if code in _FULL else refusal
    return kind(what.format(uri=uri, bucket=bucket, key=key), received=f"{_status(error)} {code}", fix=fix)


def _code(error: Any) -> str:
    return str(error.response["Error"]["Code"])


def _status(error: Any) -> int:
    return int(error.response["ResponseMetadata"].get("HTTPStatusCode", 0))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
