"""S3, or anything that speaks it, as the store."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlparse

from pawcast.errors import UsageError
from pawcast.store import s3_errors

if TYPE_CHECKING:
    from pyarrow import fs

_T = TypeVar("_T")


class RetryPolicy(NamedTuple):
    """How long S3 is waited for, in seconds.

    What passes within `patience` is survived: errors of the server, refused, reset and stalled connections,
    bodies cut short. What doesn't is reported within `deadline`, plus the time in which bytes did flow.
    """

    connect: float = 5
    """For a connection, and for each piece of an upload."""
    read: float = 15
    """For an answer's first byte, and from each byte to the next."""
    attempts: int = 2
    """Of one request, by boto3's standard retries."""
    patience: float = 20
    """For requests that boto3 gave up, counted from the first such failure."""

    @property
    def deadline(self) -> float:
        """The longest that an operation can fail before it says so: 102 s by default."""
        backoff = sum(2.0**i for i in range(self.attempts - 1))
        return self.patience + 2 * (self.attempts * (self.connect + self.read) + backoff)


RETRY_POLICY = RetryPolicy()


class S3Store:
    """Objects below `s3://bucket/prefix`.

    Credentials, region and endpoint come from the usual AWS environment and files (`AWS_ENDPOINT_URL` for
    another server than AWS, which is then addressed path-style). They are never part of this object, so it
    may be pickled and logged.

    Passing faults are survived for 20 s and lasting ones reported within 102 s (`Limits`). What waiting can't
    mend, such as refused credentials, is reported at the first answer. A conditional write that had to be sent
    again and then finds its own value counts as written.
    """

    def __init__(self, uri: str, limits: RetryPolicy = RETRY_POLICY) -> None:
        parsed = urlparse(uri)
        if parsed.scheme != "s3" or not parsed.netloc:
            raise UsageError("Not an S3 location", received=repr(uri), expected="s3://bucket/prefix")
        self.uri = uri.rstrip("/")
        self.bucket = parsed.netloc
        self.prefix = parsed.path.strip("/")
        self.limits = limits

    def get(self, key: str) -> bytes:
        return self.get_with_etag(key)[0]

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        return self._ask(key, lambda: self._fetch(key))

    def put(self, key: str, data: bytes) -> None:
        self._ask(key, lambda: self._send(key, data))

    def put_if_absent(self, key: str, data: bytes, sha256: str | None = None) -> bool:
        return self._conditional_put(key, data, sha256, IfNoneMatch="*")

    def put_if_match(self, key: str, data: bytes, token: str) -> bool:
        return self._conditional_put(key, data, IfMatch=token)

    def exists(self, key: str) -> bool:
        # Not by HEAD: its answers have no body, so a refusal couldn't say why. The key itself sorts first.
        def request() -> bool:
            page = self._client.list_objects_v2(Bucket=self.bucket, Prefix=self._key(key), MaxKeys=1)
            return any(item["Key"] == self._key(key) for item in page.get("Contents", []))

        return self._ask(key, request)

    def list(self, prefix: str) -> Iterator[str]:
        skip = len(self.prefix) + 1 if self.prefix else 0

        def request() -> Iterator[str]:
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._key(prefix))
            return iter(sorted(item["Key"][skip:] for page in pages for item in page.get("Contents", [])))

        return self._ask(prefix, request)

    def delete(self, key: str) -> None:
        self._ask(key, lambda: self._client.delete_object(Bucket=self.bucket, Key=self._key(key)))

    def filesystem(self, prefix: str) -> tuple[fs.FileSystem, str]:
        from pyarrow import fs

        endpoint = urlparse(endpoint_url())
        options: dict[str, Any] = {"connect_timeout": self.limits.connect, "request_timeout": self.limits.read}
        if endpoint.netloc:
            options |= {"endpoint_override": endpoint.netloc, "scheme": endpoint.scheme}
        if region := os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"):
            options["region"] = region
        return fs.S3FileSystem(**options), f"{self.bucket}/{self._key(prefix)}"

    def __getstate__(self) -> dict[str, Any]:
        return {"uri": self.uri, "bucket": self.bucket, "prefix": self.prefix, "limits": self.limits}

    @cached_property
    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        # A session of its own: the shared one would keep the credentials it saw first, and isn't thread-safe.
        try:
            return boto3.Session().client(
                "s3",
                config=Config(
                    retries={"mode": "standard", "total_max_attempts": self.limits.attempts},
                    connect_timeout=self.limits.connect,
                    read_timeout=self.limits.read,
                    # What is signed of an upload is its checksum (`_send`); the body would be hashed once more.
                    s3={"addressing_style": "path" if endpoint_url() else "auto", "payload_signing_enabled": False},
                ),
            )
        except ValueError:
            raise UsageError(
                "AWS_ENDPOINT_URL is no URL", received=repr(endpoint_url()), expected="such as http://127.0.0.1:8333"
            ) from None

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _fetch(self, key: str) -> tuple[bytes, str]:
        answer = self._client.get_object(Bucket=self.bucket, Key=self._key(key))
        # boto3 retries requests, but not a body that breaks off; `_ask` does.
        return answer["Body"].read(), answer["ETag"]

    def _send(self, key: str, data: bytes, sha256: str | None = None, **condition: str) -> None:
        """Upload with a sha256 that the server checks the body against, and keeps for those who read it."""
        digest = bytes.fromhex(sha256) if sha256 else hashlib.sha256(data).digest()
        checksum = base64.b64encode(digest).decode()
        self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data, ChecksumSHA256=checksum, **condition)

    def _conditional_put(self, key: str, data: bytes, sha256: str | None = None, **condition: str) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        unanswered = False

        def request() -> bool:
            nonlocal unanswered
            try:
                self._send(key, data, sha256, **condition)
            except BotoCoreError:
                unanswered = True
                raise
            except ClientError as error:
                unanswered |= s3_errors.may_have_written(error)
                if not s3_errors.lost(error):
                    raise
            else:
                return True
            # An attempt whose answer was lost may have written; this one then lost only to it.
            return unanswered and self._holds(key, data)

        return self._ask(key, request)

    def _holds(self, key: str, data: bytes) -> bool:
        from botocore.exceptions import ClientError

        try:
            return self._fetch(key)[0] == data
        except ClientError as error:
            if s3_errors.missing(error):
                return False
            raise

    def _ask(self, key: str, request: Callable[[], _T]) -> _T:
        """Run a request until it succeeds, fails for good, or has been failing for too long."""
        with s3_errors.translated(self.uri, self.bucket, key):
            give_up = None
            pause = 0.2
            while True:
                try:
                    return request()
                except Exception as error:
                    now = time.monotonic()
                    give_up = give_up or now + self.limits.patience
                    if not s3_errors.passing(error) or now >= give_up:
                        raise
                # Not all at once: those who failed together would come back together.
                time.sleep(min(pause * random.uniform(0.5, 1.5), give_up - now))
                pause = min(pause * 2, 4.0)


def endpoint_url() -> str:
    """The server to use instead of AWS, as boto3 finds it in the environment."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
