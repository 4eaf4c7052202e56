"""The store: is it reachable, and does every operation do what it promises?

All operations use keys below a prefix that nobody else uses. It is removed afterwards.
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from pawcast.doctor.finding import Finding, find, last_line
from pawcast.errors import PawcastError, StoreError
from pawcast.store import Store, open_store
from pawcast.store.folder import FolderStore
from pawcast.store.s3 import RetryPolicy, S3Store

_DATA = bytes(range(256)) * 4_096
_TRY_ONCE = RetryPolicy(connect_timeout=5, read_timeout=10, retry_seconds=0)
_WRONG_DATA = "don't use this store: jobs would read wrong data; look at the server's log"
_CONDITIONS = (
    "run one job at a time on this store: two could overwrite each other's manifests and refs. "
    "Or choose a store that honors If-None-Match and If-Match, as AWS, SeaweedFS and MinIO do"
)


def check(uri: str) -> Iterator[Finding]:
    """Reach the store, then try every operation once. Stop at the first one that all jobs need."""
    store = open_store(uri)
    if isinstance(store, S3Store):
        yield (reached := find("store", "reach", reach, S3Store(uri, _TRY_ONCE)))
        if reached.exit_code:
            return
    with scratch(store) as prefix:
        yield (written := find("store", "read_write", read_write, store, prefix))
        if written.exit_code:
            return
        yield find("store", "conditional_writes", conditional_writes, store, f"{prefix}/condition")
        yield find("store", "arrow", arrow, store, prefix)


def reach(store: S3Store) -> str:
    """List one key, once: a store's own retries take too long for this.

    It comes before any write, since some servers make a missing bucket at the first write.
    """
    store.exists("doctor")
    return f"{store.uri} responds"


@contextmanager
def scratch(store: Store) -> Iterator[str]:
    """Yield a prefix that nobody uses; remove all keys below it afterwards, whatever happened."""
    prefix = f"doctor-{uuid.uuid4().hex}"
    try:
        yield prefix
    finally:
        # A store that can't list or delete has been reported by now.
        with contextlib.suppress(PawcastError):
            for key in store.list(f"{prefix}/"):
                store.delete(key)
        if isinstance(store, FolderStore):
            shutil.rmtree(store.root / prefix, ignore_errors=True)


def read_write(store: Store, prefix: str) -> str:
    """Write, read, list and delete a value."""
    key = f"{prefix}/value"
    store.put(key, _DATA)
    if store.get(key) != _DATA or list(store.list(f"{prefix}/")) != [key]:
        raise StoreError("Other bytes or keys came back than were written", fix=_WRONG_DATA)
    store.delete(key)
    if store.exists(key):
        raise StoreError("A deleted key is still there", fix=_WRONG_DATA)
    return f"{store.uri} can be written, read, listed and deleted"


def conditional_writes(store: Store, key: str) -> str:
    """Write a value only if it is new, and only if nobody else has changed it."""
    written = [store.put_if_absent(key, b"1"), store.put_if_absent(key, b"2")]
    _, etag = store.get_with_etag(key)
    written += [store.put_if_match(key, b"3", etag), store.put_if_match(key, b"4", etag)]
    if written != [True, False, True, False] or store.get(key) != b"3":
        raise StoreError("The store ignores conditions: WRITES CAN BE LOST", fix=_CONDITIONS)
    return "concurrent jobs can't overwrite each other's writes"


def arrow(store: Store, prefix: str) -> str:
    """Write by Arrow, as Ray Train does."""
    filesystem, path = store.filesystem(prefix)
    try:
        with filesystem.open_output_stream(f"{path}/arrow") as output:
            output.write(_DATA)
    except OSError as error:
        fix = "set AWS_ENDPOINT_URL, AWS_REGION and the credentials in the environment, where Arrow reads them"
        raise StoreError("Arrow can't write", received=last_line(str(error)), fix=fix) from None
    if store.get(f"{prefix}/arrow") != _DATA:
        raise StoreError("Arrow writes other bytes", fix=_WRONG_DATA)
    return "Arrow, which Ray Train uses, can write"
