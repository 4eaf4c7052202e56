"""Photos below `s3://bucket/prefix`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from pawcast.data.sources.container import Container, Entry, too_large
from pawcast.data.sources.labels import display_name
from pawcast.errors import ImageError, NotFoundError
from pawcast.store.s3 import S3Store
from pawcast.vision.decode import MAX_BYTES

_CONCURRENT = 16


class S3Folder(Container):
    """The objects below a prefix, with the credentials and retries of a store.

    Args:
        uri: `s3://bucket/prefix`.

    Raises:
        UsageError: If it is no such URI.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._bucket = _Bucket(uri.rstrip("/"))
        self._listed: dict[str, tuple[int, str]] = {}

    def entries(self) -> Iterator[Entry]:
        """List the objects. Raises `StoreError` if the server refuses, `NotFoundError` if none."""
        self._listed = self._bucket.list_objects()
        if not self._listed:
            raise NotFoundError(
                f"There is nothing below {display_name(self._uri)}/",
                expected="objects with this prefix",
                fix="name the folder that holds the photos; an archive has to be downloaded first",
            )
        for key in self._listed:
            if not key.endswith("/"):  # Consoles write such objects for folders.
                yield Entry(key, key)

    def head(self, member: str, size: int) -> bytes:
        return self._bucket.get_range(member, size) if self._listed[member][0] else b""

    def read(self, member: str, limit: int = MAX_BYTES) -> bytes:
        try:
            data = self._bucket.get_range(member, limit + 1)
        except NotFoundError:
            raise ImageError("is no longer there") from None
        if len(data) > limit:
            raise too_large(limit)
        return data

    def read_all(self, members: Sequence[str]) -> Iterator[bytes | ImageError]:
        """Yield each object's bytes; a few are fetched ahead, since each takes a round trip."""
        rest = iter(members)
        with ThreadPoolExecutor(_CONCURRENT) as pool:
            pending = deque(pool.submit(self._read_or_reason, member) for member in islice(rest, _CONCURRENT))
            while pending:
                future: Future[bytes | ImageError] = pending.popleft()
                pending.extend(pool.submit(self._read_or_reason, member) for member in islice(rest, 1))
                yield future.result()

    def metadata(self, member: str) -> tuple[object, ...]:
        """Return an object's size and ETag."""
        if not self._listed:
            self._listed = self._bucket.list_objects()
        return self._listed.get(member, ())

    def _read_or_reason(self, member: str) -> bytes | ImageError:
        return next(super().read_all([member]))


class _Bucket(S3Store):
    """A store that also tells sizes, and reads the beginning of an object."""

    def list_objects(self) -> dict[str, tuple[int, str]]:
        """Return size and ETag of every object by its key below the prefix."""
        skip = len(self.prefix) + 1 if self.prefix else 0

        def request() -> dict[str, tuple[int, str]]:
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=f"{self.prefix}/" if self.prefix else ""
            )
            objects = (item for page in pages for item in page.get("Contents", []))
            return {item["Key"][skip:]: (item["Size"], item["ETag"]) for item in objects}

        return self._with_retries("", request)

    def get_range(self, key: str, size: int) -> bytes:
        """Return the first `size` bytes of an object, or all of a smaller one."""

        def request() -> bytes:
            response = self._client.get_object(Bucket=self.bucket, Key=self._full_key(key))
            with response["Body"] as body:
                return body.read(size)

        return self._with_retries(key, request)
