"""S3, or anything that speaks it, as the store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from pawcast.errors import NotFoundError, StoreError, StoreFullError, UsageError

if TYPE_CHECKING:
    from pyarrow import fs

_MISSING = {"NoSuchKey", "404", "NotFound"}
# Lost a conditional write: AWS answers 412, or 409 while another write of the key is under way.
_LOST = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
_CREDENTIALS = {
    "AccessDenied", "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidToken",
    "SignatureDoesNotMatch", "403",
}  # fmt: skip
_CONNECT_SECONDS, _READ_SECONDS, _ATTEMPTS = 5, 30, 5


class S3Store:
    """Objects below `s3://bucket/prefix`.

    Credentials, region and endpoint come from the usual AWS environment and files (`AWS_ENDPOINT_URL` for
    another server than AWS, which is then addressed path-style). They are never part of this object, so it
    may be pickled and logged.
    """

    def __init__(self, uri: str) -> None:
        parsed = urlparse(uri)
        if parsed.scheme != "s3" or not parsed.netloc:
            raise UsageError("Not an S3 location", received=repr(uri), expected="s3://bucket/prefix")
        self.uri = uri.rstrip("/")
        self.bucket = parsed.netloc
        self.prefix = parsed.path.strip("/")

    def get(self, key: str) -> bytes:
        return self.get_versioned(key)[0]

    def get_versioned(self, key: str) -> tuple[bytes, str]:
        from botocore.exceptions import HTTPClientError

        for attempt in range(1, _ATTEMPTS + 1):
            with self._translated(key):
                try:
                    answer = self._client.get_object(Bucket=self.bucket, Key=self._key(key))
                    return answer["Body"].read(), answer["ETag"]
                except HTTPClientError:
                    # boto3 retries the request but not a body cut off half-way, so that is done here.
                    if attempt == _ATTEMPTS:
                        raise
        raise AssertionError("unreachable")

    def put(self, key: str, data: bytes) -> None:
        with self._translated(key):
            self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data)

    def put_new(self, key: str, data: bytes) -> bool:
        return self._conditional_put(key, data, IfNoneMatch="*")

    def swap(self, key: str, data: bytes, token: str) -> bool:
        return self._conditional_put(key, data, IfMatch=token)

    def exists(self, key: str) -> bool:
        try:
            with self._translated(key):
                self._client.head_object(Bucket=self.bucket, Key=self._key(key))
        except NotFoundError:
            return False
        return True

    def list(self, prefix: str) -> Iterator[str]:
        skip = len(self.prefix) + 1 if self.prefix else 0
        with self._translated(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._key(prefix))
            keys = [item["Key"][skip:] for page in pages for item in page.get("Contents", [])]
        return iter(sorted(keys))

    def delete(self, key: str) -> None:
        with self._translated(key):
            self._client.delete_object(Bucket=self.bucket, Key=self._key(key))

    def filesystem(self, prefix: str) -> tuple[fs.FileSystem, str]:
        from pyarrow import fs

        endpoint = urlparse(os.environ.get("AWS_ENDPOINT_URL", ""))
        options: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS, "request_timeout": _READ_SECONDS}
        if endpoint.netloc:
            options |= {"endpoint_override": endpoint.netloc, "scheme": endpoint.scheme}
        if region := os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"):
            options["region"] = region
        return fs.S3FileSystem(**options), f"{self.bucket}/{self._key(prefix)}"

    def __getstate__(self) -> dict[str, Any]:
        return {"uri": self.uri, "bucket": self.bucket, "prefix": self.prefix}

    @cached_property
    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        # A session of its own: the shared one would keep the credentials it saw first, and isn't thread-safe.
        return boto3.Session().client(
            "s3",
            config=Config(
                retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_READ_SECONDS,
                s3={"addressing_style": "path" if os.environ.get("AWS_ENDPOINT_URL") else "auto"},
            ),
        )

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _conditional_put(self, key: str, data: bytes, **condition: str) -> bool:
        from botocore.exceptions import ClientError

        with self._translated(key):
            try:
                self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data, **condition)
            except ClientError as error:
                if error.response["Error"]["Code"] in _LOST:
                    return False
                raise
        return True

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        try:
            yield
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in _MISSING:
                raise NotFoundError(f"The store {self.uri} has no {key}") from None
            if code == "NoSuchBucket":
                raise StoreError(f"There is no bucket {self.bucket!r}", fix="create it, or correct --store") from None
            if code in _CREDENTIALS:
                raise StoreError(
                    f"The store {self.uri} refused the credentials",
                    received=code,
                    fix="renew AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN)",
                ) from None
            if code in ("InsufficientStorage", "XMinioStorageFull"):
                raise StoreFullError(f"The store {self.uri} is full", fix="free some space") from None
            raise StoreError(f"The store {self.uri} refused {key}", received=code) from None
        except NoCredentialsError:
            raise StoreError(
                f"There are no credentials for {self.uri}",
                expected="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws",
            ) from None
        except BotoCoreError as error:
            raise StoreError(
                f"The store {self.uri} could not be reached",
                received=str(error),
                fix="check AWS_ENDPOINT_URL, AWS_REGION and the network",
            ) from None
