"""A zip within a zip is read in place, stored or deflated, and refused like any other zip."""

from __future__ import annotations

import io
import random
import zipfile
import zlib
from pathlib import Path

import pytest

from pawcast.data import sources
from pawcast.data.sources import seekable
from pawcast.errors import NotFoundError, PawcastError
from tests.support.files import make_folder, make_zip
from tests.support.sources import CLASSES, labelled_contents, refusal


def outer_zip(path: Path, method: int) -> str:
    buffer = io.BytesIO()
    rng = random.Random(1)
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as inner:
        for i in range(60):
            content = rng.randbytes(rng.randint(0, 9_000)) + bytes(rng.randint(0, 20_000))
            inner.writestr(f"train/{CLASSES[i % 2]}.{i}.jpg", content)
    members = {"sampleSubmission.csv": b"id,label\n", "deep/train.zip": buffer.getvalue(), "test1.zip": b"no zip"}
    return make_zip(path, members, compression=method)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_within_a_zip_is_read_in_place(tmp_path, method, monkeypatch):
    monkeypatch.setattr(seekable, "_STEP", 20_000)
    monkeypatch.setattr(seekable, "_CHUNK", 3_000)
    outer = outer_zip(tmp_path / "dogs-vs-cats.zip", method)
    with zipfile.ZipFile(outer) as file:
        file.extract("deep/train.zip", tmp_path)
    expected = labelled_contents(str(tmp_path / "deep" / "train.zip"))
    path = f"{outer}/deep/train.zip"
    assert labelled_contents(path) == expected
    photos = sources.scan(path, CLASSES).photos
    for seed in range(5):
        order = random.Random(seed).choices(range(60), k=90)
        contents = list(sources.read(path, [photos[i] for i in order]))
        assert contents == [expected[i][2] for i in order]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["deep", "dogs-vs-cats.zip"]


def test_a_zip_of_zips_says_which_it_holds_and_how_to_name_one(tmp_path):
    outer = outer_zip(tmp_path / "dogs-vs-cats.zip", zipfile.ZIP_DEFLATED)
    line = refusal(outer)
    assert "holds no photos, only zips. Received: deep/train.zip, test1.zip" in line
    assert "dogs-vs-cats.zip/deep/train.zip" in line
    assert "/deep/train.zip" in refusal(make_folder(tmp_path / "all", {"deep/train.zip": b"", "test1.zip": b""}))


def test_a_member_that_is_no_zip_is_refused(tmp_path):
    outer = outer_zip(tmp_path / "a.zip", zipfile.ZIP_DEFLATED)
    assert "can't be opened as a zip" in refusal(f"{outer}/test1.zip")
    assert "holds no train.zip. Expected: deep/train.zip, test1.zip" in refusal(f"{outer}/train.zip")
    (tmp_path / "b.jpg").write_bytes(b"x")
    assert "no such file" in refusal(f"{tmp_path}/b.jpg/train.zip", NotFoundError)


def test_any_damage_to_a_zip_within_a_zip_is_a_refusal_or_a_reason(tmp_path):
    whole = Path(outer_zip(tmp_path / "whole.zip", zipfile.ZIP_DEFLATED)).read_bytes()
    rng = random.Random(3)
    refusals = []
    for i in range(60):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        damaged = tmp_path / f"{i}.zip"
        damaged.write_bytes(data)
        try:
            assert len(labelled_contents(f"{damaged}/deep/train.zip")) > 50
        except PawcastError as error:
            refusals.append(str(error))
        damaged.unlink()
    assert 0 < len(refusals) < 60
    assert all(line.isprintable() for line in refusals)


def test_a_zip_within_a_zip_that_inflates_without_end_is_refused(tmp_path):
    bomb = bytes(2**20)
    path = make_zip(tmp_path / "a.zip", {"train.zip": bomb}, compression=zipfile.ZIP_DEFLATED)
    data = bytearray(Path(path).read_bytes())
    position = data.index(b"PK\1\2") + 24
    data[position : position + 4] = (2**32 - 2).to_bytes(4, "little")
    Path(path).write_bytes(data)
    assert "zip bomb" in refusal(f"{path}/train.zip")


def test_a_deflated_member_equals_the_original(tmp_path):
    """At any position, in any order, with any step."""
    rng = random.Random(5)
    content = rng.randbytes(50_000) + bytes(300_000) + rng.randbytes(50_000)
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    (tmp_path / "packed").write_bytes(b"front" + packer.compress(content) + packer.flush())
    with io.FileIO(tmp_path / "packed") as packed:
        file = seekable.InflatedRange(seekable.FileRange(packed, 5, 10**9), len(content))
        for _ in range(300):
            position, size = rng.randrange(len(content)), rng.randint(1, 9_000)
            assert file.read_at(position, size) == content[position : position + size]
            file.seek(position)
            assert file.read(size) == content[position : position + size]
