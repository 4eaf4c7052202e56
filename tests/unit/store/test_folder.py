"""A folder as the store: the contract, many writers at once, keys that lead out, and full disks."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from pawcast.errors import NotFoundError, PawcastError, StoreError, StoreFullError
from pawcast.store import Store, open_store
from tests.support.store_contract import check_contract

WRITERS, ROUNDS = 8, 8


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(str(tmp_path / "store"))


def race(write: Callable[[int], bool]) -> list[bool]:
    """Run writers in threads that start together; return their results."""
    start = threading.Barrier(WRITERS)

    def run(index: int) -> bool:
        start.wait()
        return write(index)

    with ThreadPoolExecutor(WRITERS) as pool:
        return list(pool.map(run, range(WRITERS)))


def test_a_folder_keeps_the_contract(store):
    check_contract(store)


def test_each_round_has_one_winner(store):
    for round_ in range(ROUNDS):
        key = f"race/{round_}"
        created = race(lambda i, key=key: store.put_if_absent(key, f"new {i}".encode()))
        assert created.count(True) == 1
        value, etag = store.get_with_etag(key)
        assert value == f"new {created.index(True)}".encode()
        swapped = race(lambda i, key=key, etag=etag: store.put_if_match(key, f"swap {i}".encode(), etag))
        assert swapped.count(True) == 1
        assert store.get(key) == f"swap {swapped.index(True)}".encode()


def test_no_update_is_lost_when_all_writers_retry(store):
    store.put("counter", b"0")

    def increment(_: int) -> bool:
        while True:
            value, etag = store.get_with_etag("counter")
            if store.put_if_match("counter", str(int(value) + 1).encode(), etag):
                return True

    race(increment)
    assert store.get("counter") == str(WRITERS).encode()


def test_a_reader_sees_whole_values_only(store):
    values = [bytes([i]) * 200_000 for i in range(4)]
    store.put("a", values[0])
    done = threading.Event()

    def read() -> set[bytes]:
        seen = set()
        while not done.is_set():
            seen.add(store.get("a"))
        return seen

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        for i in range(20):
            store.put("a", values[i % 4])
        done.set()
        assert reader.result() <= set(values)


def test_list_selects_by_prefix_not_by_folder(store):
    for key in ("b/2", "b/10", "b/c/1", "bc", "a"):
        store.put(key, b"")
    assert list(store.list("")) == ["a", "b/10", "b/2", "b/c/1", "bc"]
    assert list(store.list("b")) == ["b/10", "b/2", "b/c/1", "bc"]
    assert list(store.list("b/1")) == ["b/10"]
    assert list(store.list("nowhere/")) == []


def test_put_if_match_of_an_absent_key_is_not_found_and_writes_nothing(store):
    store.put("folder/ref", b"1")
    _, etag = store.get_with_etag("folder/ref")
    for key in ("folder/other", "elsewhere/ref"):
        with pytest.raises(NotFoundError):
            store.put_if_match(key, b"2", etag)
    assert list(store.list("")) == ["folder/ref"]


def test_arrow_writes_where_the_store_reads(store):
    filesystem, path = store.filesystem("runs/1")
    with filesystem.open_output_stream(f"{path}/state.json") as file:
        file.write(b"{}")
    assert store.get("runs/1/state.json") == b"{}"


@pytest.mark.parametrize("key", ["../secret", "a/../../secret", "/etc/hostname", "link/secret"])
def test_no_method_follows_a_key_out_of_the_folder(tmp_path, key):
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "link").symlink_to(tmp_path)
    store = open_store(str(tmp_path / "store"))
    for method in (
        lambda: store.get(key),
        lambda: store.put(key, b"mine"),
        lambda: store.put_if_absent(key, b"mine"),
        lambda: store.put_if_match(key, b"mine", ""),
        lambda: store.exists(key),
        lambda: store.delete(key),
        lambda: store.filesystem(key),
    ):
        with pytest.raises(StoreError, match="Not a key"):
            method()
    assert (tmp_path / "secret").read_bytes() == b"secret"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret", "store"]


def test_list_refuses_a_prefix_that_leads_out(store, tmp_path):
    store.put("a", b"")
    (tmp_path / "secret").write_bytes(b"")
    with pytest.raises(StoreError, match="Not a key"):
        store.list("../")


@pytest.mark.parametrize("key", ["", ".", "a/.."])
def test_the_root_is_no_key(tmp_path, key):
    with pytest.raises(StoreError):
        open_store(str(tmp_path / "store")).put(key, b"mine")
    assert not (tmp_path / "store").is_file()


@pytest.mark.parametrize("key", ["x" * 300, "a\0b"])
def test_a_key_that_no_file_system_takes_is_a_store_error(store, key):
    store.put("a", b"")
    with pytest.raises(PawcastError):
        store.get(key)
    with pytest.raises(StoreError):
        store.exists(key)


def test_a_temporary_file_of_a_killed_writer_is_not_listed(tmp_path):
    store = open_store(str(tmp_path))
    store.put("a/b", b"1")
    (tmp_path / "a" / ".writing-abc").write_bytes(b"half")
    assert list(store.list("")) == ["a/b"]


def test_no_temporary_file_is_left(store, tmp_path):
    for i in range(5):
        store.put("k", bytes([i]))
        store.put_if_absent("k", b"")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["k"]


def test_a_failed_write_leaves_no_temporary_file_and_no_change(tmp_path):
    store = open_store(str(tmp_path))
    store.put("a/b", b"1")
    with pytest.raises((StoreError, NotFoundError)):
        store.put("a", b"a folder is in the way")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["b"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_reported_and_the_store_stays_readable(tmp_path):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", tmp_path], capture_output=True).returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        store = open_store(str(tmp_path))
        store.put("small", b"kept")
        with pytest.raises(StoreFullError, match=r"refused small\. Received: No space left"):
            store.put("small", bytes(2**20))
        with pytest.raises(StoreFullError):
            store.put_if_absent("large", bytes(2**20))
        assert store.get("small") == b"kept"
        assert list(store.list("")) == ["small"]
    finally:
        subprocess.run(["umount", tmp_path], check=True)
