"""A split is read in order, from any place, by id, and never from a changed shard."""

from __future__ import annotations

from pathlib import Path

import pytest

from pawcast.data import manifest as manifests
from pawcast.data import shards
from pawcast.data.manifest import Manifest, Split
from pawcast.data.reader import SplitReader, read_source
from pawcast.errors import DataError, ImageError, IntegrityError, NotFoundError
from pawcast.store import Store, open_store
from tests.support.files import make_folder, make_zip

ROWS = [shards.PhotoRow(f"cat.{i}", f"cat.{i}.jpg", i % 2, f"{i:064x}", 3, 2, bytes([i])) for i in range(25)]


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def manifest(store) -> Manifest:
    """A training split in shards of 10, 10 and 5 photos, and an empty test split."""
    written = [shards.write(store, "pets", "train", ROWS[i : i + 10], ["cat", "dog"]) for i in range(0, 25, 10)]
    manifest = Manifest(
        dataset="pets",
        classes=["cat", "dog"],
        seed=0,
        source_sha256="",
        splits={
            "train": Split(photos=25, per_class={"cat": 13, "dog": 12}, shards=written),
            "test": Split(photos=0, per_class={}, shards=[]),
        },
        quarantine=[],
        report_sha256="",
    )
    manifests.publish(store, manifest)
    return manifest


def test_iterating_over_a_split_yields_every_row_in_order(store, manifest):
    by_name, by_record = SplitReader.open(store, "pets", "train"), SplitReader(store, manifest.splits["train"])
    assert list(by_name) == list(by_name) == list(by_record) == ROWS
    assert len(by_name) == len(by_record) == 25
    assert by_name.source_digest == by_record.source_digest
    assert by_name.name == f"pets@{manifest.digest[:12]}, split train"
    assert list(SplitReader(store, manifest.splits["test"])) == []


@pytest.mark.parametrize(("start", "stop"), [(0, 25), (0, 1), (9, 11), (10, 20), (3, 24), (24, 25), (7, 7), (25, 25)])
def test_any_run_of_rows_is_read_across_shards(store, manifest, start, stop):
    reader = SplitReader.open(store, "pets", "train")
    assert list(reader.rows(start, stop)) == ROWS[start:stop]
    read = list(reader.read(start, stop))
    assert [(photo.id, photo.name, data) for photo, data in read] == [
        (row.id, row.name, row.data) for row in ROWS[start:stop]
    ]


def test_a_photo_is_found_by_its_id(store, manifest):
    reader = SplitReader.open(store, "pets", "train")
    assert [reader.find(f"cat.{i}") for i in (24, 0, 10)] == [ROWS[24], ROWS[0], ROWS[10]]
    assert reader.find("cat.25") is None


def test_each_shard_is_read_once_in_order(store, manifest, monkeypatch):
    read: list[str] = []
    original = shards.read
    monkeypatch.setattr(shards, "read", lambda store, shard: read.append(shard.key) or original(store, shard))
    reader = SplitReader(store, manifest.splits["train"])
    list(reader)
    assert read == [shard.key for shard in manifest.splits["train"].shards]
    list(reader.rows(21, 25))
    assert len(read) == 3


def test_a_changed_or_missing_shard_is_never_used(store, manifest):
    second = Path(store.uri) / manifest.splits["train"].shards[1].key
    second.write_bytes(second.read_bytes()[:-1] + b"x")
    reader = SplitReader.open(store, "pets", "train")
    assert list(reader.rows(0, 10)) == ROWS[:10]
    with pytest.raises(IntegrityError, match="pawcast ingest"):
        list(reader)
    second.unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        reader.find("cat.11")


@pytest.mark.parametrize(
    ("dataset", "split", "kind", "line"),
    [
        ("pats", "train", NotFoundError, "did you mean 'pets'"),
        ("pets", "unlabelled", DataError, "no photos in its split unlabelled.*0 test, 25 train.*--unlabelled"),
        ("pets", "test", DataError, "no photos in its split test.*choose a split that has photos"),
    ],
)
def test_what_can_not_be_opened_is_one_line(store, manifest, dataset, split, kind, line):
    with pytest.raises(kind, match=line):
        SplitReader.open(store, dataset, split)


def test_a_labelled_source_yields_its_photos_with_labels_and_reasons(tmp_path):
    files = {"dog.1.jpg": b"dog", "cat.2.jpg": b"cat"}
    for path in (make_zip(tmp_path / "a.zip", files), make_folder(tmp_path / "a", files)):
        assert [(p.id, p.label, p.data) for p in read_source(path, ["cat", "dog"])] == [
            ("cat.2", 0, b"cat"),
            ("dog.1", 1, b"dog"),
        ]
    photos = iter(read_source(str(tmp_path / "a"), ["cat", "dog"]))
    assert next(photos).data == b"cat"
    (tmp_path / "a" / "dog.1.jpg").unlink()
    assert isinstance(next(photos).data, ImageError)
