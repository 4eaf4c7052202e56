"""Shards: cut by rows and bytes, written under their hash, and readable by any tool for Parquet."""

from __future__ import annotations

import io
import json
from itertools import pairwise

import datasets
import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pawcast.data import shards
from pawcast.errors import IntegrityError
from pawcast.store import Store, open_store
from tests.support.files import encode

PHOTOS = 12
ROWS = [shards.PhotoRow(f"cat.{i}", f"cat.{i}.jpg", 0, "ab" * 32, 3, 2, bytes([i % 256]) * 50) for i in range(300)]


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(str(tmp_path))


def test_a_shard_opens_anywhere_with_its_bytes_untouched(store):
    shard = shards.write(store, "pets", "train", ROWS, ["cat", "dog"])
    data = store.get(shard.key)
    frame = pd.read_parquet(io.BytesIO(data))
    assert [row["bytes"] for row in frame["image"]] == [row.data for row in ROWS]
    file = pq.ParquetFile(io.BytesIO(data))
    assert file.num_row_groups == 3
    features = json.loads(file.schema_arrow.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["label"]["names"] == ["cat", "dog"]
    assert shards.write(store, "pets", "train", ROWS, ["cat", "dog"]) == shard


def test_rows_come_back_as_they_were_written_from_a_slice_too(store):
    table = shards.read(store, shards.write(store, "pets", "train", ROWS, ["cat", "dog"]))
    assert list(shards.rows(table)) == ROWS
    assert list(shards.rows(table.slice(130, 7))) == ROWS[130:137]


def test_a_changed_shard_is_never_read(store, tmp_path):
    shard = shards.write(store, "pets", "train", ROWS, ["cat", "dog"])
    data = bytearray((tmp_path / shard.key).read_bytes())
    data[100] ^= 1
    (tmp_path / shard.key).write_bytes(data)
    with pytest.raises(IntegrityError, match=shard.sha256[:12]):
        shards.read(store, shard)


@given(sizes=st.lists(st.integers(0, 12), max_size=60))
def test_shards_are_as_full_as_the_limits_allow(sizes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "MAX_ROWS", 4)
        patch.setattr(shards, "MAX_BYTES", 10)
        groups = list(shards.cut(iter(sizes), lambda size: size))
    assert [size for group in groups for size in group] == sizes
    assert all(0 < len(group) <= 4 and (sum(group) <= 10 or len(group) == 1) for group in groups)
    for group, following in pairwise(groups):
        assert len(group) == 4 or sum(group) + following[0] > 10


@pytest.fixture
def files(tmp_path, picture) -> list[str]:
    store = open_store(str(tmp_path / "store"))
    rows = [
        shards.PhotoRow(
            f"cat.{i}", f"cat.{i}.png", i % 2, f"{i:064x}", 80, 60, encode(np.roll(picture, i, axis=1), "PNG")
        )
        for i in range(PHOTOS)
    ]
    written = [shards.write(store, "pets", "train", rows[i : i + 5], ["cat", "dog"]) for i in range(0, PHOTOS, 5)]
    return [str(tmp_path / "store" / shard.key) for shard in written]


def test_hugging_face_datasets_shows_pictures_and_class_names(files, picture, tmp_path):
    dataset = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert len(dataset) == PHOTOS
    assert dataset.features["label"].names == ["cat", "dog"]
    row = dataset[3]
    assert dataset.features["label"].int2str(row["label"]) == "dog"
    assert isinstance(row["image"], Image.Image)
    np.testing.assert_array_equal(np.asarray(row["image"]), np.roll(picture, 3, axis=1))


def test_pandas_reads_all_rows(files, picture):
    table = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    assert list(table["id"]) == [f"cat.{i}" for i in range(PHOTOS)]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(table["image"][0]["bytes"]))), picture)


def test_duckdb_counts_and_opens(files, picture):
    counts = duckdb.sql(f"select label, count(*) from read_parquet({files}) group by label order by label").fetchall()
    assert counts == [(0, 6), (1, 6)]
    ((data,),) = duckdb.sql(f"select image.bytes from read_parquet({files}) where id = 'cat.0'").limit(1).fetchall()
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), picture)
