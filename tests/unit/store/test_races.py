"""What the store's users lean on when many act at once, and what only a folder can get wrong."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pawcast.errors import NotFoundError, StoreError
from pawcast.store import Store, open_store
from pawcast.store.s3 import S3Store

WRITERS, ROUNDS = 8, 8


@pytest.fixture(params=["folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind; to add S3, add a parameter and its URI here."""
    uris = {"folder": lambda: str(tmp_path / "store")}
    return open_store(uris[request.param]())


def race(work) -> list[bool]:
    """Run the work in threads that start together; return what each got."""
    start = threading.Barrier(WRITERS)

    def run(index: int) -> bool:
        start.wait()
        return work(index)

    with ThreadPoolExecutor(WRITERS) as pool:
        return list(pool.map(run, range(WRITERS)))


def test_each_round_has_one_winner(store):
    for round_ in range(ROUNDS):
        key = f"race/{round_}"
        created = race(lambda i, key=key: store.put_if_absent(key, f"new {i}".encode()))
        assert created.count(True) == 1
        value, token = store.get_with_etag(key)
        assert value == f"new {created.index(True)}".encode()
        swapped = race(lambda i, key=key, token=token: store.put_if_match(key, f"swap {i}".encode(), token))
        assert swapped.count(True) == 1
        assert store.get(key) == f"swap {swapped.index(True)}".encode()


def test_no_update_is_lost_when_all_retry(store):
    store.put("counter", b"0")

    def raise_it(_: int) -> bool:
        while True:
            value, token = store.get_with_etag("counter")
            if store.put_if_match("counter", str(int(value) + 1).encode(), token):
                return True

    race(raise_it)
    assert store.get("counter") == str(WRITERS).encode()


def test_a_reader_sees_whole_values_only(store):
    values = [bytes([i]) * 200_000 for i in range(4)]
    store.put("a", values[0])
    done = threading.Event()

    def look() -> set[bytes]:
        seen = set()
        while not done.is_set():
            seen.add(store.get("a"))
        return seen

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(look)
        for i in range(20):
            store.put("a", values[i % 4])
        done.set()
        assert reader.result() <= set(values)


def test_list_goes_by_prefix_not_by_folder(store):
    for key in ("b/2", "b/10", "b/c/1", "bc", "a"):
        store.put(key, b"")
    assert list(store.list("")) == ["a", "b/10", "b/2", "b/c/1", "bc"]
    assert list(store.list("b")) == ["b/10", "b/2", "b/c/1", "bc"]
    assert list(store.list("b/1")) == ["b/10"]
    assert list(store.list("nowhere/")) == []


def test_swap_of_an_absent_key_is_not_found_and_makes_none(store):
    store.put("folder/ref", b"1")
    _, token = store.get_with_etag("folder/ref")
    for key in ("folder/other", "elsewhere/ref"):
        with pytest.raises(NotFoundError):
            store.put_if_match(key, b"2", token)
    assert list(store.list("")) == ["folder/ref"]


def test_arrow_writes_where_the_store_reads(store):
    filesystem, path = store.filesystem("runs/1")
    with filesystem.open_output_stream(f"{path}/state.json") as file:
        file.write(b"{}")
    assert store.get("runs/1/state.json") == b"{}"


@pytest.mark.parametrize("key", ["../secret", "a/../../secret", "/etc/hostname", "link/secret"])
def test_no_method_of_a_folder_follows_a_key_out_of_it(tmp_path, key):
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "link").symlink_to(tmp_path)
    store = open_store(str(tmp_path / "store"))
    for method in (
        lambda: store.get(key), lambda: store.put(key, b"mine"), lambda: store.put_if_absent(key, b"mine"),
        lambda: store.put_if_match(key, b"mine", ""), lambda: store.exists(key), lambda: store.delete(key),
        lambda: store.filesystem(key),
    ):  # fmt: skip
        with pytest.raises(StoreError, match="Not a key"):
            method()
    assert (tmp_path / "secret").read_bytes() == b"secret"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret", "store"]


def test_what_a_killed_writer_left_in_a_folder_is_not_listed(tmp_path):
    store = open_store(str(tmp_path))
    store.put("a/b", b"1")
    (tmp_path / "a" / ".writing-abc").write_bytes(b"half")
    assert list(store.list("")) == ["a/b"]


def test_a_failed_write_leaves_no_temporary_file_and_no_change(tmp_path):
    store = open_store(str(tmp_path))
    store.put("a/b", b"1")
    with pytest.raises((StoreError, NotFoundError)):
        store.put("a", b"a folder is in the way")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["b"]


def test_a_store_in_s3_takes_no_credentials_along(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-key-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    store = S3Store("s3://bucket/prefix/")
    assert store._client is store._client
    data = pickle.dumps(store)
    assert b"the-secret" not in data
    assert b"the-key-id" not in data
    assert pickle.loads(data).uri == "s3://bucket/prefix"
