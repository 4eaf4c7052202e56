"""The store: is it reachable, is its clock right, and does every operation do what it promises?

All operations use keys below a prefix that nobody else uses. It is removed afterwards.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime

from pawcast.doctor.finding import Finding, failure, ok, warning
from pawcast.errors import PawcastError, StoreError
from pawcast.store import Store, open_store, s3_errors
from pawcast.store.folder import FolderStore
from pawcast.store.s3 import RetryPolicy, S3Store, create_client

_DATA = bytes(range(256)) * 4_096
_LOW_SPACE = 5e9
_MAX_SKEW = 60
_SETTINGS = "correct --store and its settings; if they are right, look at the server's log"
_WRONG_DATA = "don't use this store: jobs would read wrong data; look at the server's log"
_CONDITIONS = (
    "run one job at a time on this store: two could overwrite each other's manifests and refs. "
    "Or choose a store that honors If-None-Match and If-Match, as AWS, SeaweedFS and MinIO do"
)
_ARROW = "set AWS_ENDPOINT_URL, AWS_REGION and the credentials in the environment, where Arrow reads them"


def check(uri: str) -> Iterator[Finding]:
    """Reach the store, then try every operation once."""
    store = open_store(uri)
    if isinstance(store, S3Store):
        findings = reach(store)
        yield from findings
        if findings[0].level == "problem":
            return
    with scratch(store) as prefix:
        yield from try_operations(store, prefix)
        if isinstance(store, FolderStore) and store.root.exists():
            yield space(store.uri, shutil.disk_usage(store.root).free)


def reach(store: S3Store) -> list[Finding]:
    """List one key: is there a server, a bucket, a right to use it, and a clock that agrees?

    The request is sent once: a store's own retries take too long for this. It comes before any
    write, since some servers make a missing bucket at the first write.
    """
    policy = RetryPolicy(connect_timeout=5, read_timeout=10)
    started = time.time()
    try:
        with s3_errors.translate_errors(store.uri, store.bucket, store.prefix):
            client = create_client(policy)
            response = client.list_objects_v2(Bucket=store.bucket, Prefix=store.prefix, MaxKeys=1)
    except PawcastError as error:
        return [failure("store", "reach", error, _SETTINGS)]
    ended = time.time()
    seen = f"{client.meta.endpoint_url} responds, {(ended - started) * 1_000:,.0f} ms"
    date = response["ResponseMetadata"]["HTTPHeaders"].get("date")
    return [ok("store", "reach", seen), clock(date, (started + ended) / 2)]


def clock(date: str | None, now: float) -> Finding:
    """Compare a response's `Date` header with this machine's clock, in seconds since 1970.

    From 15 minutes on S3 refuses all requests, so `reach` has failed already.
    """
    fix = "set this machine's clock (timedatectl set-ntp true), or the server's"
    try:
        skew = parsedate_to_datetime(date or "").timestamp() - now
    except (ValueError, TypeError):
        return warning("store", "clock", "the server doesn't tell its time", fix)
    seen = f"the server's clock is {abs(skew):,.0f} s {'ahead' if skew > 0 else 'behind'}"
    return warning("store", "clock", seen, fix) if abs(skew) > _MAX_SKEW else ok("store", "clock", seen)


@contextmanager
def scratch(store: Store) -> Iterator[str]:
    """Yield a prefix that nobody uses; remove all keys below it afterwards, whatever happened."""
    prefix = f"doctor-{uuid.uuid4().hex}"
    folders = (store.root, *store.root.parents) if isinstance(store, FolderStore) else ()
    # os.path.exists returns False where Path.exists raises: below a folder that we may not enter.
    missing = [folder for folder in folders if not os.path.exists(folder)]  # noqa: PTH110
    try:
        yield prefix
    finally:
        # A store that can't list or delete has been reported by now.
        with contextlib.suppress(PawcastError):
            for key in store.list(f"{prefix}/"):
                store.delete(key)
        if isinstance(store, FolderStore):
            shutil.rmtree(store.root / prefix, ignore_errors=True)
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()


def try_operations(store: Store, prefix: str) -> list[Finding]:
    """Try each operation below the prefix. Stop if nothing can be written."""
    findings: list[Finding] = []

    @contextmanager
    def attempt(check: str, fix: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        except (PawcastError, OSError) as error:
            findings.append(failure("store", check, error, fix))
        else:
            findings.append(ok("store", check, f"{(time.monotonic() - started) * 1_000:,.0f} ms"))

    key, condition = f"{prefix}/value", f"{prefix}/condition"
    with attempt("put", _SETTINGS):
        store.put(key, _DATA)
    if findings[0].level == "problem":
        return findings
    with attempt("get", _WRONG_DATA):
        _require(store.get(key) == _DATA, "Other bytes came back than were written")
    with attempt("list", _WRONG_DATA):
        _require(list(store.list(f"{prefix}/")) == [key], "The keys that were listed aren't those that were written")
    with attempt("put_if_absent", _CONDITIONS):
        _require(store.put_if_absent(condition, b"1"), "The first write of a new key was refused")
        lost = store.put_if_absent(condition, b"2") or store.get(condition) != b"1"
        _require(not lost, "A second write of a new key succeeded: WRITES CAN BE LOST")
    with attempt("put_if_match", _CONDITIONS):
        _, etag = store.get_with_etag(condition)
        _require(store.put_if_match(condition, b"3", etag), "A write was refused although nobody wrote in between")
        lost = store.put_if_match(condition, b"4", etag) or store.get(condition) != b"3"
        _require(not lost, "A write with an old ETag succeeded: WRITES CAN BE LOST")
    with attempt("arrow", "check the folder's permissions" if isinstance(store, FolderStore) else _ARROW):
        filesystem, path = store.filesystem(prefix)
        with filesystem.open_output_stream(f"{path}/arrow") as output:
            output.write(_DATA)
        with filesystem.open_input_stream(f"{path}/value") as value:
            same = value.read() == _DATA == store.get(f"{prefix}/arrow")
        _require(same, "Arrow, which Ray Train uses, reads or writes other bytes")
    with attempt("delete", "allow the credentials to delete there"):
        store.delete(key)
        _require(not store.exists(key), "A deleted key is still there")
    return findings


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise StoreError(message)


def space(uri: str, free: float) -> Finding:
    """Check the bytes that are free on a folder's disk."""
    seen = f"{free / 1e9:,.1f} GB free under {uri}"
    if free < _LOW_SPACE:
        fix = "free some space: shards take as much as the photos, each checkpoint up to 50 MB"
        return warning("store", "space", seen, fix)
    return ok("store", "space", seen)
