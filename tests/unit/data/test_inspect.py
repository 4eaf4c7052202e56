"""Inspection without a Ray: a stand-in runs its tasks, and some photos kill their workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from pawcast.data import inspect
from pawcast.data.inspect import ImageRecord, inspect_photos, read_on_node
from pawcast.data.manifest import QuarantinedPhoto
from pawcast.data.sources import Photo
from pawcast.errors import NotFoundError
from pawcast.runtime import ray_session
from pawcast.vision.decode import ImageHeader

SIZES: list[int] = []


def photos(start: int, stop: int, label: int) -> list[Photo]:
    return [Photo(f"{i}", f"{i}.jpg", f"{i}.jpg", label) for i in range(start, stop)]


@pytest.fixture
def killers(monkeypatch) -> set[str]:
    """The ids of photos whose task dies. The other tasks finish last in, first out."""
    found: set[str] = set()

    def run_tasks(
        task: Any,
        arguments: Sequence[tuple[str, tuple[Photo, ...], int]],
        attempts: int,
        on_crash: Callable[[int], None],
    ) -> Iterator[tuple[int, tuple[ImageRecord, ...]]]:
        for index, (source, batch, _) in reversed(list(enumerate(arguments))):
            SIZES.append(len(batch))
            if found & {photo.id for photo in batch}:
                on_crash(index)
            else:
                header = ImageHeader("JPEG", "RGB", 30, 20)
                yield index, tuple(ImageRecord(source, photo, "", 1, header, (b"", b"")) for photo in batch)

    SIZES.clear()
    monkeypatch.setattr(ray_session, "run_tasks", run_tasks)
    return found


def test_photos_come_in_the_order_of_their_sources(killers):
    listings = [("a.zip", photos(0, 1_200, 0)), ("b.zip", photos(0, 30, -1)), ("a.zip", photos(0, 3, -1))]
    records, quarantine = inspect_photos(listings, 16)
    assert [(r.source, r.photo) for r in records] == [(source, photo) for source, batch in listings for photo in batch]
    assert quarantine == []
    assert sorted(SIZES) == [3, 30, 200, 500, 500]


def test_photos_that_kill_their_worker_are_quarantined_alone(killers):
    killers |= {"7", "8", "700"}
    seen: list[int] = []
    listings = [("a.zip", photos(0, 1_200, 0))]
    records, quarantine = inspect_photos(listings, 16, lambda stage, done, total, note="", unit="": seen.append(done))
    assert quarantine == [
        QuarantinedPhoto(name=f"{i}.jpg", kind="unreadable", reason="crashed the decoder") for i in (7, 8, 700)
    ]
    assert [record.photo.id for record in records] == [f"{i}" for i in range(1_200) if f"{i}" not in killers]
    assert SIZES.count(20) == 50
    assert SIZES.count(1) == 40
    assert seen == sorted(seen)
    assert seen[-1] == 1_200


def test_no_photos_at_all_are_no_records(killers):
    assert inspect_photos([("a.zip", [])], 16) == ([], [])


def test_a_source_that_a_node_does_not_have_is_named_with_the_node(tmp_path):
    with pytest.raises(NotFoundError, match=r"pets\.zip isn't on the node [0-9.]+ .*same absolute path.*RAY_ADDRESS"):
        list(read_on_node(str(tmp_path / "pets.zip"), photos(0, 1, 0)))


def test_the_last_size_of_a_task_is_one_photo():
    assert inspect._PHOTOS_PER_TASK[-1] == 1
