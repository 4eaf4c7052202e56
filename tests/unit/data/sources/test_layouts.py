"""Layouts that people download: Kaggle's zip of zips, Microsoft's PetImages, a CSV of labels beside its photos."""

from __future__ import annotations

import io
import os
import random
import zipfile
import zlib
from pathlib import Path

import pytest

from pawcast.client.journal import PredictionRow
from pawcast.client.submission import errors_csv
from pawcast.data import sources
from pawcast.data.sources import labels, nested_zip
from pawcast.errors import DataError, ImageError, NotFoundError, PawcastError
from pawcast.vision import decode
from tests.support.files import make_folder, make_zip

CLASSES = ["cat", "dog"]


def refusal(path: str, kind: type[PawcastError] = DataError) -> str:
    with pytest.raises(kind) as caught:
        sources.scan(path, CLASSES)
    assert str(caught.value).isprintable()
    return str(caught.value)


def facts(path: str) -> list[tuple[str, int, bytes]]:
    photos = sources.scan(path, CLASSES)
    items = sources.read(path, photos)
    return [(photo.id, photo.label, data) for photo, data in zip(photos, items, strict=True)]  # type: ignore[misc]


def test_petimages_with_its_broken_files(tmp_path):
    """Microsoft's zip: two files of no bytes, some that are no JPEG, `Thumbs.db`, a licence beside."""
    files = {
        "PetImages/Cat/0.jpg": b"cat", "PetImages/Cat/666.jpg": b"", "PetImages/Cat/Thumbs.db": b"x",
        "PetImages/Dog/0.jpg": b"dog", "PetImages/Dog/11702.jpg": b"", "PetImages/Dog/Thumbs.db": b"x",
        "MSR-LA - 3467.docx": b"x", "readme[1].txt": b"x",
    }  # fmt: skip
    expected = [("Cat/0", 0, b"cat"), ("Cat/666", 0, b""), ("Dog/0", 1, b"dog"), ("Dog/11702", 1, b"")]
    for path in (make_zip(tmp_path / "a.zip", files), make_folder(tmp_path / "a", files)):
        assert facts(path) == expected
    with pytest.raises(ImageError, match="empty file"):
        decode.decode(b"")


@pytest.mark.parametrize(
    "layout",
    ["{}.{}.jpg", "train/{}.{}.jpg", "train/train/{}.{}.JPG", "a b/train/{}s/{}.jpeg", "t/{} ({}).PNG", "{}/x_{}.WebP"],
)
def test_common_layouts(tmp_path, layout):
    files = {layout.format(name, i): f"{name}{i}".encode() for name in CLASSES for i in (1, 2, 10)}
    expected = [(label, f"{name}{i}".encode()) for label, name in enumerate(CLASSES) for i in (1, 2, 10)]
    for path in (make_zip(tmp_path / "a.zip", files), make_folder(tmp_path / "a", files)):
        assert [(label, data) for _, label, data in facts(path)] == expected


@pytest.mark.parametrize(
    ("member", "label"),
    [
        ("кошка.1.jpg", 0), ("Кошка/1.jpg", 0), ("maine-coon.12.jpg", 1), ("Maine-Coon (3).jpg", 1),
        ("maine-coon/1.jpg", 1), ("cafe\u0301.1.jpg", 2), ("CAFÉ/1.jpg", 2), ("кот.1.jpg", -1), ("maine.1.jpg", -1),
    ],
)  # fmt: skip
def test_classes_of_any_script_and_of_several_words(member, label):
    assert labels.label_from_path(member, ["кошка", "maine-coon", "café"]) == label


# Zips within zips.


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
    monkeypatch.setattr(nested_zip, "_STEP", 20_000)
    monkeypatch.setattr(nested_zip, "_CHUNK", 3_000)
    outer = outer_zip(tmp_path / "dogs-vs-cats.zip", method)
    with zipfile.ZipFile(outer) as file:
        file.extract("deep/train.zip", tmp_path)
    expected = facts(str(tmp_path / "deep" / "train.zip"))
    path = f"{outer}/deep/train.zip"
    assert facts(path) == expected
    photos = sources.scan(path, CLASSES)
    for seed in range(5):
        order = random.Random(seed).choices(range(60), k=90)
        found = list(sources.read(path, [photos[i] for i in order]))
        assert found == [expected[i][2] for i in order]
    assert sorted(place.name for place in tmp_path.iterdir()) == ["deep", "dogs-vs-cats.zip"]


def test_a_zip_of_zips_says_which_it_holds_and_how_to_name_one(tmp_path):
    outer = outer_zip(tmp_path / "dogs-vs-cats.zip", zipfile.ZIP_DEFLATED)
    line = refusal(outer)
    assert "holds no photos, only zips. Received: deep/train.zip, test1.zip" in line
    assert "dogs-vs-cats.zip/deep/train.zip" in line
    assert "/deep/train.zip" in refusal(make_folder(tmp_path / "all", {"deep/train.zip": b"", "test1.zip": b""}))


def test_what_is_no_zip_within_a_zip_is_said(tmp_path):
    outer = outer_zip(tmp_path / "a.zip", zipfile.ZIP_DEFLATED)
    assert "can't be opened as a zip" in refusal(f"{outer}/test1.zip")
    assert "holds no train.zip. Expected: deep/train.zip, test1.zip" in refusal(f"{outer}/train.zip")
    (tmp_path / "b.jpg").write_bytes(b"x")
    assert "no such file" in refusal(f"{tmp_path}/b.jpg/train.zip", NotFoundError)


def test_any_damage_to_a_zip_within_a_zip_is_a_refusal_or_a_reason(tmp_path):
    whole = Path(outer_zip(tmp_path / "whole.zip", zipfile.ZIP_DEFLATED)).read_bytes()
    rng = random.Random(3)
    for i in range(60):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        place = tmp_path / f"{i}.zip"
        place.write_bytes(data)
        try:
            assert len(facts(f"{place}/deep/train.zip")) > 50
        except PawcastError as error:
            line = str(error)
            assert line.isprintable()
        place.unlink()


def test_a_zip_within_a_zip_that_inflates_without_end_is_refused(tmp_path):
    bomb = bytes(2**20)
    path = make_zip(tmp_path / "a.zip", {"train.zip": bomb}, compression=zipfile.ZIP_DEFLATED)
    data = bytearray(Path(path).read_bytes())
    place = data.index(b"PK\1\2") + 24
    data[place : place + 4] = (2**32 - 2).to_bytes(4, "little")
    Path(path).write_bytes(data)
    assert "zip bomb" in refusal(f"{path}/train.zip")


# CSV.


def table(tmp_path: Path, text: str | bytes) -> str:
    make_folder(tmp_path / "data", {f"photos/{i}.jpg": f"{i}".encode() for i in range(4)})
    path = tmp_path / "data" / "labels.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


ROWS = [("0", 0, b"0"), ("1", 1, b"1"), ("2", 0, b"2")]


@pytest.mark.parametrize(
    "text",
    [
        "file,label\nphotos/0.jpg,cat\nphotos/1.jpg,dog\nphotos/2.jpg,cat\n",
        "image,label\r\nphotos/2.jpg,0\r\nphotos/1.jpg,1\r\nphotos/0.jpg,0\r\n",
        "id,label\nphotos/0,cat\nphotos/1,DOG\nphotos/2, cat \n",
        "\ufefflabel,width,File\nCat,9,photos/0.jpg\nDog,9,photos\\1.jpg\n\nCat,9,./photos/2.jpg",
        'filename,class\n"photos/0.jpg",cat\n"photos/1.jpg",dog\nphotos/2.jpg,cat\nphotos/2.jpg,cat\n',
    ],
)
def test_a_csv_gives_files_and_labels(tmp_path, text):
    assert facts(table(tmp_path, text)) == ROWS


def test_a_csv_keeps_the_folders_ids(tmp_path):
    path = table(tmp_path, "file,label\nphotos/0.jpg,cat\nphotos/1.jpg,dog\n")
    assert [photo.id for photo in sources.scan(path, CLASSES)] == ["0", "1"]
    assert [photo.id for photo in sources.scan(str(tmp_path / "data"))][:2] == ["0", "1"]


def test_photos_to_predict_need_no_label_in_a_csv(tmp_path):
    photos = sources.scan(table(tmp_path, "file\nphotos/10.jpg\nphotos/1.jpg\n".replace("10", "3")))
    assert [(photo.id, photo.label) for photo in photos] == [("1", -1), ("3", -1)]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "lacks a header"),
        ("photos/0.jpg,cat\n", "Expected: file,label"),
        ("file\nphotos/0.jpg\n", "lacks a header"),
        ("file;label\nphotos/0.jpg;cat\n", "lacks a header"),
        ("file,label\n", "lists no photo"),
        ("file,label\nphotos/0.jpg,cta\n", r"line 2: unknown label. Received: 'cta'.*did you mean 'cat'.*or 0 to 1"),
        ("file,label\nphotos/0.jpg,2\n", "unknown label"),
        ("file,label\nphotos/0.jpg,0.97\n", "unknown label"),
        ("file,label\nphotos/0.jpg,\n", "unknown label"),
        ("file,label\nphotos/0.jpg,cat,x\n", "line 2: wrong number of columns"),
        ("file,label\n../data/photos/0.jpg,cat\n", "line 2: the file is outside"),
        ("file,label\nphotos/../../x.jpg,cat\n", "outside"),
        ("file,label\n..\\x.jpg,cat\n", "outside"),
        ("file,label\n/etc/passwd,cat\n", "outside"),
        ("file,label\nC:\\x.jpg,cat\n", "outside"),
        ("file,label\nlink/secret.jpg,cat\n", "outside"),
        ("file,label\nlink.jpg,cat\n", "outside"),
        ("file,label\nphotos/1.jpg,cat\nphotos/0.jpg,dog\nphotos/1.jpg,dog\n", "line 4: one photo has two.*on line 2"),
        ("file,label\nphotos/1,cat\nphotos/1.jpg,dog\n", "two labels"),
        (f"file,label\n{'x' * 300}.jpg,cat\n", "not a file name"),
        (f"file,label\n{'x' * 200_000}.jpg,cat\n", "can't be read as CSV"),
        (b"file,label\nphotos/\xff.jpg,cat\n", "UTF-8"),
        ('file,label\n"photos/0.jpg,cat\n', "can't be read as CSV"),
        ("file,label\nphotos\n/0.jpg,cat\n", "wrong number of columns"),
    ],
)
def test_a_csv_that_cannot_be_used_says_why_and_where(tmp_path, text, line):
    path = table(tmp_path, text)
    make_folder(tmp_path / "outside", {"secret.jpg": b"secret"})
    (tmp_path / "data" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "data" / "link.jpg").symlink_to(tmp_path / "outside" / "secret.jpg")
    with pytest.raises(DataError, match=line) as caught:
        sources.scan(path, CLASSES)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "file", ["photos/9.jpg", "photos/9", "photos", "nowhere/1.jpg", "photos/fifo.jpg", "photos/1\0.jpg"]
)
def test_a_csvs_file_that_is_not_there_is_named_with_its_line(tmp_path, file):
    path = table(tmp_path, f"file,label\nphotos/1.jpg,cat\n{file},dog\n")
    os.mkfifo(tmp_path / "data" / "photos" / "fifo.jpg")
    assert f"line 3: there is no such file. Received: {labels.display_name(file)}" in refusal(path, NotFoundError)


def test_a_csvs_file_without_extension_must_be_the_only_one(tmp_path):
    path = table(tmp_path, "id,label\nphotos/1,cat\n")
    make_folder(tmp_path / "data", {"photos/1.png": b""})
    assert "photos/1.jpg or photos/1.png" in refusal(path)


def test_a_file_name_that_is_not_utf8_reaches_the_table_of_errors(tmp_path):
    make_folder(tmp_path, {os.fsdecode(b"cat\xff.jpg"): b""})
    (photo,) = sources.scan(str(tmp_path))
    assert rb"cat\udcff.jpg" in errors_csv([PredictionRow(photo.id, photo.member, None, "empty file")])


def test_the_deflated_window_equals_the_whole(tmp_path):
    """Any place, in any order, whatever the step."""
    rng = random.Random(5)
    content = rng.randbytes(50_000) + bytes(300_000) + rng.randbytes(50_000)
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    (tmp_path / "packed").write_bytes(b"front" + packer.compress(content) + packer.flush())
    with nested_zip.DeflatedMember(io.FileIO(tmp_path / "packed"), 5, 10**9, len(content)) as file:
        for _ in range(300):
            place, size = rng.randrange(len(content)), rng.randint(1, 9_000)
            file.seek(place)
            found = file.read(size)
            assert found
            assert content.startswith(found, place)
