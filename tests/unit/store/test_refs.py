from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pawcast.store import Store, open_store, records, refs
from pawcast.store.folder import FolderStore
from pawcast.store.refs import Ref, RefState

KEY = "models/pets/refs/production"


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(str(tmp_path))


def test_a_ref_that_does_not_exist_is_empty(store):
    assert refs.read(store, KEY) == RefState("", "")


def test_a_move_needs_the_present_state(store):
    absent = refs.read(store, KEY)
    assert refs.move(store, KEY, "1", absent)
    assert not refs.move(store, KEY, "2", absent)
    first = refs.read(store, KEY)
    assert first.target == "1"
    assert refs.move(store, KEY, "2", first)
    assert not refs.move(store, KEY, "3", first)
    assert refs.read(store, KEY).target == "2"


@pytest.mark.parametrize("earlier", [False, True], ids=["first move", "later move"])
def test_of_concurrent_moves_from_one_state_one_succeeds(store, earlier):
    if earlier:
        refs.move(store, KEY, "0", refs.read(store, KEY))
    since = refs.read(store, KEY)
    start = threading.Barrier(8)

    def move(number: int) -> bool:
        start.wait()
        return refs.move(store, KEY, str(number), since)

    with ThreadPoolExecutor(8) as pool:
        moved = list(pool.map(move, range(1, 9)))
    assert moved.count(True) == 1
    assert refs.read(store, KEY).target == str(moved.index(True) + 1)


def test_advance_only_goes_up(store):
    for number, expected in ((2, "2"), (1, "2"), (2, "2"), (10, "10"), (9, "10")):
        refs.advance(store, KEY, number)
        assert refs.read(store, KEY).target == expected


@pytest.mark.parametrize("broken", [b"broken", b"", b"7", records.seal("another/key", Ref(target="7"))])
def test_advance_repairs_a_damaged_ref(store, broken):
    store.put(KEY, broken)
    refs.advance(store, KEY, 1)
    assert refs.read(store, KEY).target == "1"


@pytest.mark.parametrize(("theirs", "expected"), [("1", "2"), ("3", "3")])
def test_advance_goes_on_when_somebody_moves_the_ref_meanwhile(tmp_path, theirs, expected):
    class Overtaken(FolderStore):
        """A store in which somebody else moves the ref after it was read for the first time."""

        overtaken = False

        def get_with_etag(self, key: str) -> tuple[bytes, str]:
            try:
                return super().get_with_etag(key)
            finally:
                if not self.overtaken:
                    self.overtaken = True
                    self.put(key, records.seal(key, Ref(target=theirs)))

    store = Overtaken(str(tmp_path))
    refs.advance(store, KEY, 2)
    assert refs.read(store, KEY).target == expected


def test_concurrent_advances_end_at_the_highest_number(store):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: refs.advance(store, KEY, number), range(1, 17)))
    assert refs.read(store, KEY).target == "16"
