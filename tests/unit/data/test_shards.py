"""A published dataset's shards open elsewhere, with their pictures: Hugging Face `datasets`, pandas, DuckDB."""

from __future__ import annotations

import io

import datasets
import duckdb
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pawcast.data import shards
from pawcast.store import open_store
from tests.support.files import encode

PHOTOS = 12


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
