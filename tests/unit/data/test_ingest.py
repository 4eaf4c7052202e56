"""Sources as every process of a cluster finds them."""

from __future__ import annotations

import pytest

from pawcast.data.ingest import _absolute


@pytest.mark.parametrize("source", ["s3://bucket/pets", "/data/pets.zip", "/data/pets.zip/train.zip"])
def test_uris_and_absolute_paths_stay(source):
    assert _absolute(source) == source


def test_a_relative_path_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert _absolute("pets/train.zip") == str(tmp_path / "pets" / "train.zip")
