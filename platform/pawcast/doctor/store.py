"""Does the store keep its contract? Tried out below a key that nobody uses, which is removed again."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pawcast.doctor import s3
from pawcast.doctor.finding import Finding, Notes, first_line
from pawcast.errors import PawcastError, StoreError
from pawcast.store import Store, open_store
from pawcast.store.folder import FolderStore
from pawcast.store.s3 import S3Store

_BYTES = 1 << 20
_LITTLE_SPACE = 5e9
_SETTINGS = "correct --store and the AWS settings; if they are right, look at the server's own log"
_CONDITIONS = (
    "run one job at a time on this store: two at once could overwrite each other's manifests and refs. "
    "Or choose one that honours If-None-Match and If-Match, as AWS, SeaweedFS and MinIO do"
)


def check(uri: str) -> list[Finding]:
    """Try every operation of the store once; time them."""
    notes = Notes("store", StoreError)
    with notes.guarded("place"):
        store = open_store(uri)
        if isinstance(store, S3Store) and not s3.reachable(store, notes):
            return notes.findings
        with scratch(store) as prefix:
            try_out(store, prefix, notes)
        if isinstance(store, FolderStore):
            _space(store, notes)
    return notes.findings


@contextmanager
def scratch(store: Store) -> Iterator[str]:
    """Yield a prefix of keys that nobody uses; remove all below it afterwards, whatever happened."""
    prefix = f"doctor-{uuid.uuid4().hex}"
    there = _nearest(store.root) if isinstance(store, FolderStore) else None
    try:
        yield prefix
    finally:
        # What is wrong with the store has been noted by now.
        with contextlib.suppress(PawcastError):
            for key in store.list(f"{prefix}/"):
                store.delete(key)
        if isinstance(store, FolderStore) and there:
            shutil.rmtree(store.root / prefix, ignore_errors=True)
            # A store that wasn't there before isn't there afterwards.
            for folder in (store.root, *store.root.parents):
                if folder == there:
                    break
                with contextlib.suppress(OSError):
                    folder.rmdir()


def try_out(store: Store, prefix: str, notes: Notes) -> None:
    """Note for each operation how long it took, or what is wrong with it. Stops if nothing can be written."""
    # Asked first: some servers would make a bucket that isn't there at the first write.
    if isinstance(store, S3Store) and not _timed(
        notes, "bucket", lambda: _no_bucket(store, prefix), "there", _SETTINGS
    ):
        return
    key, condition = f"{prefix}/value", f"{prefix}/condition"
    data = os.urandom(_BYTES)

    def put() -> str | None:
        store.put(key, data)
        return None

    def get() -> str | None:
        return None if store.get(key) == data else "other bytes came back than were written"

    def listing() -> str | None:
        listed = list(store.list(f"{prefix}/"))
        return None if listed == [key] else f"the one key there is was listed as {listed}"

    def put_if_absent() -> str | None:
        if not store.put_if_absent(condition, b"first"):
            return "a key that nobody wrote is said to be taken"
        if store.put_if_absent(condition, b"second") or store.get(condition) != b"first":
            return "a second writer of a new key won: the store ignores conditions, and WRITES CAN BE LOST"
        return None

    def swap() -> str | None:
        _, token = store.get_with_etag(condition)
        if not store.put_if_match(condition, b"mine", token):
            return "a write was refused although nobody wrote in between"
        if store.put_if_match(condition, b"late", token) or store.get(condition) != b"mine":
            return "a writer who came late won: the store ignores conditions, and WRITES CAN BE LOST"
        return None

    def delete() -> str | None:
        store.delete(key)
        return "a deleted key is still there" if store.exists(key) else None

    if not _timed(notes, "put", put, "1 MiB", _SETTINGS):
        return
    _timed(notes, "get", get, "the same 1 MiB", "don't use this store; look at the server's own log")
    _timed(notes, "list", listing, "one key", "jobs would miss what others wrote; look at the server's own log")
    _timed(notes, "put if new", put_if_absent, "the second writer lost, as it must", _CONDITIONS)
    _timed(notes, "put if unchanged", swap, "the late writer lost, as it must", _CONDITIONS)
    fix = "set AWS_ENDPOINT_URL, AWS_REGION and the credentials in the environment, which Arrow reads too"
    if isinstance(store, FolderStore):
        fix = "check the folder's permissions"
    _timed(notes, "arrow", lambda: _through_arrow(store, prefix, data), "sees the same bytes (checkpoints)", fix)
    _timed(notes, "delete", delete, "gone", "check that deleting is allowed")


def _timed(notes: Notes, check: str, action: Callable[[], str | None], done: str, fix: str) -> bool:
    """Do it, note how that went, return whether it went well. The action returns what is wrong, if anything is."""
    started = time.monotonic()
    try:
        wrong = action()
    except PawcastError as error:
        notes.error(check, error, fix)
        return False
    if wrong:
        notes.problem(check, wrong, fix)
    else:
        notes.ok(check, f"{done}, {(time.monotonic() - started) * 1_000:,.0f} ms")
    return not wrong


def _no_bucket(store: Store, prefix: str) -> str | None:
    return "keys are listed that nobody wrote" if list(store.list(f"{prefix}/")) else None


def _through_arrow(store: Store, prefix: str, data: bytes) -> str | None:
    """Read by Ray Train's way what the store wrote, and the other way round."""
    try:
        filesystem, path = store.filesystem(prefix)
        with filesystem.open_input_stream(f"{path}/value") as stream:
            if stream.read() != data:
                return "Arrow, so Ray Train, reads other bytes than were written"
        with filesystem.open_output_stream(f"{path}/by-arrow") as stream:
            stream.write(b"checkpoint")
        if store.get(f"{prefix}/by-arrow") != b"checkpoint":
            return "what Arrow, so Ray Train, wrote came back changed"
    except OSError as error:
        return f"Arrow, so Ray Train, can't use it: {first_line(error)}"
    return None


def _space(store: FolderStore, notes: Notes) -> None:
    free = shutil.disk_usage(_nearest(store.root)).free
    seen = f"{free / 1e9:,.1f} GB free under {store.uri}"
    if free < _LITTLE_SPACE:
        notes.warning("space", seen, "free some: shards take as much as the photos, each checkpoint up to 50 MB")
    else:
        notes.ok("space", seen)


def _nearest(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    # os.path.exists says no where Path.exists raises, on the other side of a folder that we may not enter.
    return next(folder for folder in (path, *path.parents) if os.path.exists(folder))  # noqa: PTH110
