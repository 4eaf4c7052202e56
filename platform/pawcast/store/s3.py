"""S3, or any server that speaks its protocol, as the store."""

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
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 4.0


class RetryPolicy(NamedTuple):
    """Timeouts and retries of a store in S3, in seconds.

    A fault that ends within `retry_seconds` is survived: server errors, refused, reset and stalled
    connections, truncated bodies. A lasting fault is reported within `deadline`, plus the time in
    which bytes did flow.
    """

    connect_timeout: float = 5
    """For opening a connection, and for each chunk of an upload."""
    read_timeout: float = 15
    """For the first byte of a response, and from each byte to the next."""
    retry_seconds: float = 20
    """For how long a request is repeated, from its first failure."""

    @property
    def deadline(self) -> float:
        """The longest time from the first failure to the error: 60 s by default."""
        return self.retry_seconds + 2 * (self.connect_timeout + self.read_timeout)


RETRY_POLICY = RetryPolicy()


class S3Store:
    """Objects below `s3://bucket/prefix`.

    Credentials, region and endpoint come from the usual AWS environment variables and files.
    `AWS_ENDPOINT_URL` names another server than AWS, which is then addressed path-style. None of
    them is part of this object, so it may be pickled and logged.

    Transient faults are retried for 20 s and lasting ones reported within 60 s (`RetryPolicy`).
    Errors that a retry can't fix, such as refused credentials, are reported at the first response.
    """

    def __init__(self, uri: str, retry_policy: RetryPolicy = RETRY_POLICY) -> None:
        parsed = urlparse(uri)
        if parsed.scheme != "s3" or not parsed.netloc:
            raise UsageError("Not an S3 location", received=repr(uri), expected="s3://bucket/prefix")
        self.uri = uri.rstrip("/")
        self.bucket = parsed.netloc
        self.prefix = parsed.path.strip("/")
        self.retry_policy = retry_policy

    def get(self, key: str) -> bytes:
        return self.get_with_etag(key)[0]

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        return self._with_retries(key, lambda: self._get_object(key))

    def put(self, key: str, data: bytes) -> None:
        self._with_retries(key, lambda: self._put_object(key, data))

    def put_if_absent(self, key: str, data: bytes, sha256: str | None = None) -> bool:
        return self._conditional_put(key, data, sha256, IfNoneMatch="*")

    def put_if_match(self, key: str, data: bytes, etag: str) -> bool:
        return self._conditional_put(key, data, IfMatch=etag)

    def exists(self, key: str) -> bool:
        # Not a HEAD request: its response has no body, so an error could not say why. In a listing
        # by prefix the key itself comes first.
        def request() -> bool:
            page = self._client.list_objects_v2(Bucket=self.bucket, Prefix=self._full_key(key), MaxKeys=1)
            return any(item["Key"] == self._full_key(key) for item in page.get("Contents", []))

        return self._with_retries(key, request)

    def list(self, prefix: str) -> Iterator[str]:
        skip = len(self.prefix) + 1 if self.prefix else 0

        def request() -> Iterator[str]:
            pages = self._client.get_paginator("list_objects_v2")
            found = pages.paginate(Bucket=self.bucket, Prefix=self._full_key(prefix)).search("Contents[].Key")
            return iter(sorted(key[skip:] for key in found if key))

        return self._with_retries(prefix, request)

    def delete(self, key: str) -> None:
        self._with_retries(key, lambda: self._client.delete_object(Bucket=self.bucket, Key=self._full_key(key)))

    def filesystem(self, prefix: str) -> tuple[fs.FileSystem, str]:
        from pyarrow import fs

        policy, endpoint = self.retry_policy, urlparse(endpoint_url())
        options: dict[str, Any] = {"connect_timeout": policy.connect_timeout, "request_timeout": policy.read_timeout}
        if endpoint.netloc:
            options |= {"endpoint_override": endpoint.netloc, "scheme": endpoint.scheme}
        if region := os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"):
            options["region"] = region
        return fs.S3FileSystem(**options), f"{self.bucket}/{self._full_key(prefix)}"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_client"}

    @cached_property
    def _client(self) -> Any:
        return create_client(self.retry_policy)

    def _full_key(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _get_object(self, key: str) -> tuple[bytes, str]:
        response = self._client.get_object(Bucket=self.bucket, Key=self._full_key(key))
        # boto3 retries requests, but not a body that breaks off. `_with_retries` does.
        return response["Body"].read(), response["ETag"]

    def _put_object(self, key: str, data: bytes, sha256: str | None = None, **condition: str) -> None:
        """Upload with a SHA-256 that the server checks the body against and keeps for readers."""
        digest = bytes.fromhex(sha256) if sha256 else hashlib.sha256(data).digest()
        checksum = base64.b64encode(digest).decode()
        self._client.put_object(
            Bucket=self.bucket, Key=self._full_key(key), Body=data, ChecksumSHA256=checksum, **condition
        )

    def _conditional_put(self, key: str, data: bytes, sha256: str | None = None, **condition: str) -> bool:
        may_be_written = False

        def request() -> bool:
            nonlocal may_be_written
            try:
                self._put_object(key, data, sha256, **condition)
                return True
            except Exception as error:
                may_be_written |= s3_errors.may_have_written(error)
                if not s3_errors.is_precondition_failed(error):
                    raise
            # An attempt whose response was lost may have written the value. Then the condition
            # failed because of that attempt, and the key holds this value.
            return may_be_written and self._get_object(key)[0] == data

        return self._with_retries(key, request)

    def _with_retries(self, key: str, request: Callable[[], _T]) -> _T:
        """Repeat a request until it succeeds, fails for good, or has failed for too long."""
        with s3_errors.translate_errors(self.uri, self.bucket, key):
            give_up, pause = None, _FIRST_PAUSE
            while True:
                try:
                    return request()
                except Exception as error:
                    now = time.monotonic()
                    give_up = give_up or now + self.retry_policy.retry_seconds
                    if not s3_errors.is_transient(error) or now >= give_up:
                        raise
                # Jitter: clients that failed together must not come back together.
                time.sleep(min(pause * random.uniform(0.5, 1.5), give_up - now))
                pause = min(pause * 2, _LONGEST_PAUSE)


def create_client(policy: RetryPolicy) -> Any:
    """Return a boto3 client of S3 with the timeouts of a policy. It doesn't retry.

    Raises:
        UsageError: If AWS_ENDPOINT_URL isn't a URL.
    """
    import boto3
    from botocore.config import Config

    config = Config(
        retries={"total_max_attempts": 1},
        connect_timeout=policy.connect_timeout,
        read_timeout=policy.read_timeout,
        # The signature covers an upload's checksum. Signing the body too would hash it once more.
        s3={"addressing_style": "path" if endpoint_url() else "auto", "payload_signing_enabled": False},
    )
    # A session of its own: the default session keeps the credentials that it saw first, and isn't
    # thread-safe.
    try:
        return boto3.Session().client("s3", config=config)
    except ValueError:
        raise UsageError(
            "AWS_ENDPOINT_URL is no URL", received=repr(endpoint_url()), expected="such as http://127.0.0.1:8333"
        ) from None


def endpoint_url() -> str:
    """Return the server to use instead of AWS, as boto3 finds it in the environment."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
