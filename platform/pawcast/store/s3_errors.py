"""What S3's and boto3's errors mean: whether to ask again, and the one line for what stays wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pawcast.errors import IntegrityError, NotFoundError, PawcastError, StoreError, StoreFullError

_MISSING = {"NoSuchKey", "404", "NotFound"}
_LOST = {"PreconditionFailed", "412"}
_CREDENTIALS = {
    "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}  # fmt: skip
_RIGHTS = {"AccessDenied", "403"}
_CLOCK = {"RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"}
_FULL = {"InsufficientStorage", "XMinioStorageFull", "507"}
# Worth another try: the server's bad moments, another conditional write of the key under way (409), and bytes
# that were changed on their way to the server.
_PASSING_STATUS = {429, 500, 502, 503, 504}
_PASSING = {
    "SlowDown", "RequestTimeout", "ConditionalRequestConflict", "OperationAborted", "BadDigest",
    "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch",
}  # fmt: skip


def missing(error: Any) -> bool:
    """Whether there is no such object."""
    return _code(error) in _MISSING


def lost(error: Any) -> bool:
    """Whether a conditional write was refused because its condition didn't hold."""
    return _code(error) in _LOST


def may_have_written(error: Any) -> bool:
    """Whether this attempt, or one that boto3 made before it, may have been carried out all the same."""
    return _status(error) >= 500 or error.response["ResponseMetadata"].get("RetryAttempts", 0) > 0


def passing(error: Exception) -> bool:
    """Whether the same request may succeed a little later."""
    from botocore import exceptions as e

    if isinstance(error, e.ClientError):
        return _code(error) in _PASSING or (_status(error) in _PASSING_STATUS and _code(error) not in _FULL)
    kinds = (e.ConnectionError, e.HTTPClientError, e.IncompleteReadError, e.FlexibleChecksumError)
    return isinstance(error, kinds) and not isinstance(error, e.SSLError)


@contextmanager
def translated(uri: str, bucket: str, key: str) -> Iterator[None]:
    """Turn boto3's errors inside the block into ours."""
    from botocore import exceptions as e

    no_credentials = (
        e.NoCredentialsError, e.PartialCredentialsError, e.CredentialRetrievalError, e.ProfileNotFound, e.SSOError,
        e.TokenRetrievalError,
    )  # fmt: skip
    try:
        yield
    except e.ClientError as error:
        raise _refusal(uri, bucket, key, error) from None
    except e.FlexibleChecksumError:
        raise IntegrityError(
            f"{key} in {uri} came with bytes that don't match its checksum",
            fix="run the command again; if it says the same, delete the object and make it again",
        ) from None
    except no_credentials as error:
        raise StoreError(
            f"There are no usable credentials for {uri}",
            received=_line(error),
            expected="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws",
            fix="set them, and start Ray with them",
        ) from None
    except e.BotoCoreError as error:
        raise StoreError(
            f"The store {uri} could not be reached",
            received=_line(error),
            fix="check AWS_ENDPOINT_URL, AWS_REGION and the network",
        ) from None


def _refusal(uri: str, bucket: str, key: str, error: Any) -> PawcastError:
    code = _code(error)
    if missing(error):
        return NotFoundError(f"The store {uri} has no {key}")
    if code == "NoSuchBucket":
        return StoreError(f"There is no bucket {bucket!r}", fix="create it, or correct --store")
    if code in _CREDENTIALS:
        return StoreError(
            f"The store {uri} refused the credentials",
            received=code,
            fix="renew AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN)",
        )
    if code in _RIGHTS:
        return StoreError(
            f"The store {uri} refused the credentials for {key}",
            received=code,
            fix="let them read, write, list and delete there, or use others",
        )
    if code in _CLOCK:
        return StoreError(
            f"The store {uri} and this machine disagree about the time", received=code, fix="set this machine's clock"
        )
    if code in _FULL:
        return StoreFullError(f"The store {uri} is full, so {key} was not written", fix="free some space")
    if passing(error):
        return StoreError(
            f"The store {uri} kept failing at {key}",
            received=f"{_status(error)} {code}",
            fix="look at the server, then run the command again",
        )
    return StoreError(f"The store {uri} refused {key}", received=code)


def _code(error: Any) -> str:
    return str(error.response["Error"]["Code"])


def _status(error: Any) -> int:
    return int(error.response["ResponseMetadata"].get("HTTPStatusCode", 0))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
