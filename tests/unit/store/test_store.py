"""The contract of a folder store; integration tests hold S3 to the same."""

from __future__ import annotations

import os
import pickle
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from pawcast.errors import NotFoundError, StoreError, StoreFullError, UsageError
from pawcast.store import Store, open_store


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(str(tmp_path / "store"))


def check_contract(store: Store) -> None:
    """What any store must do."""
    with pytest.raises(NotFoundError):
        store.get("a/b")
    assert not store.exists("a/b")
    store.put("a/b", b"1")
    store.put("a/b", b"2")
    assert store.get("a/b") == b"2"
    assert store.exists("a/b")
    assert not store.put_if_absent("a/b", b"3")
    assert store.put_if_absent("a/c", b"4")
    assert list(store.list("a/")) == ["a/b", "a/c"]
    assert list(store.list("a/c")) == ["a/c"]
    _, token = store.get_with_etag("a/b")
    assert store.put_if_match("a/b", b"5", token)
    assert not store.put_if_match("a/b", b"6", token)
    assert store.get("a/b") == b"5"
    assert pickle.loads(pickle.dumps(store)).get("a/b") == b"5"
    with ThreadPoolExecutor(8) as pool:
        wins = list(pool.map(lambda i: store.put_if_absent("race/new", str(i).encode()), range(8)))
        assert sum(wins) == 1
        assert store.get("race/new") == str(wins.index(True)).encode()
        _, token = store.get_with_etag("race/new")
        swaps = list(pool.map(lambda i: store.put_if_match("race/new", f"s{i}".encode(), token), range(8)))
        assert sum(swaps) == 1
    for key in ("a/b", "a/c", "race/new", "never/there"):
        store.delete(key)
    assert list(store.list("")) == []


def test_a_folder_keeps_the_contract(store):
    check_contract(store)


def test_keys_cannot_lead_out(store):
    for key in ("../x", "a/../../x", "/etc/passwd"):
        with pytest.raises(StoreError):
            store.put(key, b"")


def test_nothing_temporary_is_left(store, tmp_path):
    for i in range(5):
        store.put("k", bytes([i]))
        store.put_if_absent("k", b"")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["k"]


def test_an_unknown_scheme_is_refused():
    with pytest.raises(UsageError, match="gs://"):
        open_store("gs://bucket/x")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_said_so_and_the_store_stays_readable(tmp_path):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", tmp_path], capture_output=True).returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        store = open_store(str(tmp_path))
        store.put("small", b"kept")
        with pytest.raises(StoreFullError, match="full"):
            store.put("small", bytes(2**20))
        with pytest.raises(StoreFullError):
            store.put_if_absent("large", bytes(2**20))
        assert store.get("small") == b"kept"
        assert list(store.list("")) == ["small"]
    finally:
        subprocess.run(["umount", tmp_path], check=True)
