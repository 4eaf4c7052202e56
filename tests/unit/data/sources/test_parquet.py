"""Parquet: a shard of ours, or what Hugging Face's `datasets` writes; a file or a folder."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pawcast.data import shards, sources
from pawcast.data.shards import PhotoRow
from pawcast.store import open_store
from pawcast.vision.decode import MAX_BYTES
from tests.support.sources import CLASSES, labelled_contents, read_all, reason, refusal

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(path: Path, columns: dict[str, object], names: list[str] | None = None, rows: int = 7) -> str:
    """Write a Parquet file as `datasets` does. Return its path."""
    table = pa.table(columns)
    if names:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path, row_group_size=rows)
    return str(path)


def images(count: int, path: str = "{}.jpg") -> pa.Array:
    return pa.array([{"bytes": b"%d" % i, "path": path.format(i)} for i in range(count)], IMAGE)


def test_a_shard_of_ours_gives_the_ids_and_labels_that_it_was_made_of(tmp_path):
    store = open_store(str(tmp_path / "store"))
    rows = [PhotoRow(f"cat.{i}", f"cat.{i}.jpg", i % 2, "0" * 64, 1, 1, b"%d" % i) for i in range(300)]
    shard = shards.write(store, "pets", "train", rows, CLASSES)
    path = str(tmp_path / "store" / shard.key)
    assert labelled_contents(path) == [(row.id, row.label, row.data) for row in rows]


def test_numbers_of_classes_are_read_by_the_names_that_the_file_gives_them(tmp_path):
    path = write(tmp_path / "a.parquet", {"image": images(4), "label": [0, 1, 0, 1]}, ["Dog", "Cat"])
    assert [label for _, label, _ in labelled_contents(path)] == [1, 0, 1, 0]


@pytest.mark.parametrize("values", [["cat", "Dogs", "cat"], [0, 1, 0], [0.0, 1.0, 0.0], ["0", "1", "0.0"]])
def test_labels_may_be_names_or_numbers(tmp_path, values):
    path = write(tmp_path / "a.parquet", {"image": images(3), "category": values})
    assert labelled_contents(path) == [("0", 0, b"0"), ("1", 1, b"1"), ("2", 0, b"2")]


def test_any_column_may_be_that_of_labels_and_of_groups(tmp_path):
    columns = {"image": images(2), "breed": ["cat", "dog"], "owner": ["ann", "bob"], "label": ["x", "y"]}
    photos = sources.scan(write(tmp_path / "a.parquet", columns), CLASSES, label_column="breed", group="owner").photos
    assert [(photo.label, photo.group) for photo in photos] == [(0, "ann"), (1, "bob")]


def test_plain_bytes_without_paths_are_named_after_their_rows(tmp_path):
    path = write(tmp_path / "a.parquet", {"img": pa.array([b"a", b"b"], pa.binary())})
    assert [(photo.id, photo.name) for photo in sources.scan(path).photos] == [("0", "0"), ("1", "1")]
    assert read_all(path) == [b"a", b"b"]


def test_rows_of_one_path_are_named_after_their_rows(tmp_path):
    path = write(tmp_path / "a.parquet", {"image": images(3, "image.jpg")})
    assert [photo.id for photo in sources.scan(path).photos] == ["0", "1", "2"]


def test_rows_are_read_in_any_order(tmp_path):
    path = write(tmp_path / "a.parquet", {"image": images(200)}, rows=70)
    photos = sources.scan(path).photos
    assert [photo.name for photo in photos] == [f"{i}.jpg" for i in range(200)]
    order = random.Random(1).choices(photos, k=300)
    assert list(sources.read(path, order)) == [photo.id.encode() for photo in order]


def test_a_folder_of_files_names_photos_after_their_split(tmp_path):
    for name in ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001"):
        write(
            tmp_path / "data" / f"{name}.parquet",
            {"image": images(3, name + "/{}.jpg"), "label": ["cat", "dog", "cat"]},
        )
    (tmp_path / "data" / "README.md").write_text("# Pets")
    listing = sources.scan(str(tmp_path / "data"), CLASSES, split_folders=True)
    assert [photo.split for photo in listing.photos] == ["train"] * 6 + ["val"] * 3
    assert listing.split_folders == ["train", "validation"]
    assert listing.left_out == [sources.LeftOut("text", 1, ("README.md",))]
    assert list(sources.read(str(tmp_path / "data"), listing.photos)) == [b"0", b"1", b"2"] * 3


def test_a_row_without_bytes_or_with_too_many_costs_one_photo(tmp_path):
    values = [{"bytes": None, "path": "a.jpg"}, {"bytes": bytes(MAX_BYTES + 1), "path": "b.jpg"}, None]
    path = write(tmp_path / "a.parquet", {"image": pa.array([*values, {"bytes": b"1", "path": "c.jpg"}], IMAGE)})
    *errors, last = read_all(path)
    assert [reason(error) for error in errors] == [
        "is only named in the Parquet file, without its bytes",
        "larger than 32 MiB",
        "is only named in the Parquet file, without its bytes",
    ]
    assert last == b"1"


def test_an_unlabelled_row_is_named(tmp_path):
    line = refusal(write(tmp_path / "a.parquet", {"image": images(3), "label": [0, -1, None]}, CLASSES))
    assert "2 of 3 photos" in line


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        ({"text": ["a"], "label": [0]}, "has no column of pictures. Received: text, label"),
        ({"image": images(1), "label": ["bird"]}, "unknown label. Received: 'bird'"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path, columns, line):
    assert line in refusal(write(tmp_path / "a.parquet", columns))


def test_damage_is_a_refusal(tmp_path):
    path = write(tmp_path / "a.parquet", {"image": images(3)})
    Path(path).write_bytes(Path(path).read_bytes()[:-20])
    assert "can't be opened as Parquet" in refusal(path)
