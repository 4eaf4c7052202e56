"""A CSV of labels beside its photos, and everything that can be wrong with one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pawcast.data import sources
from pawcast.data.sources import labels
from pawcast.errors import DataError, NotFoundError
from tests.support.files import make_folder
from tests.support.sources import CLASSES, labelled_contents, refusal


def make_csv(tmp_path: Path, text: str | bytes) -> str:
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
    assert labelled_contents(make_csv(tmp_path, text)) == ROWS


def test_a_csv_keeps_the_folders_ids(tmp_path):
    path = make_csv(tmp_path, "file,label\nphotos/0.jpg,cat\nphotos/1.jpg,dog\n")
    assert [photo.id for photo in sources.scan(path, CLASSES).photos] == ["0", "1"]
    assert [photo.id for photo in sources.scan(str(tmp_path / "data")).photos][:2] == ["0", "1"]


def test_photos_to_predict_need_no_label_in_a_csv(tmp_path):
    photos = sources.scan(make_csv(tmp_path, "file\nphotos/10.jpg\nphotos/1.jpg\n".replace("10", "3"))).photos
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
        ("file,label\nphotos/0.jpg,cat,x\n", "has 3 columns on line 2"),
        ("file,label\n../data/photos/0.jpg,cat\n", "line 2: the file is outside"),
        ("file,label\nphotos/../../x.jpg,cat\n", "outside"),
        ("file,label\n..\\x.jpg,cat\n", "outside"),
        ("file,label\n/etc/passwd,cat\n", "outside"),
        ("file,label\nC:\\x.jpg,cat\n", "outside"),
        ("file,label\nlink/secret.jpg,cat\n", "outside"),
        ("file,label\nlink.jpg,cat\n", "outside"),
        ("file,label\nphotos/1.jpg,cat\nphotos/0.jpg,dog\nphotos/1.jpg,dog\n", "line 4: one photo has two.*on line 2"),
        ("file,label\nphotos/1,cat\nphotos/1.jpg,dog\n", "two labels"),
        (f"file,label\n{'x' * 200_000}.jpg,cat\n", "can't be read as CSV"),
        (b"file,label\nphotos/\xff.jpg,cat\n", "UTF-8"),
        ('file,label\n"photos/0.jpg,cat\n', "can't be read as CSV"),
        ("file,label\nphotos\n/0.jpg,cat\n", "has 1 columns on line 2"),
    ],
)
def test_a_csv_that_cannot_be_used_says_why_and_where(tmp_path, text, line):
    path = make_csv(tmp_path, text)
    make_folder(tmp_path / "outside", {"secret.jpg": b"secret"})
    (tmp_path / "data" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "data" / "link.jpg").symlink_to(tmp_path / "outside" / "secret.jpg")
    with pytest.raises(DataError, match=line) as caught:
        sources.scan(path, CLASSES)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "file", ["photos/9.jpg", "photos/9", "photos", "nowhere/1.jpg", "photos/fifo.jpg", "photos/1\0.jpg", "x" * 300]
)
def test_a_csvs_file_that_is_not_there_is_named_with_its_line(tmp_path, file):
    path = make_csv(tmp_path, f"file,label\nphotos/1.jpg,cat\n{file},dog\n")
    os.mkfifo(tmp_path / "data" / "photos" / "fifo.jpg")
    assert f"line 3: there is no such file. Received: {labels.display_name(file)}" in refusal(path, NotFoundError)


def test_a_csvs_file_without_extension_must_be_the_only_one(tmp_path):
    path = make_csv(tmp_path, "id,label\nphotos/1,cat\n")
    make_folder(tmp_path / "data", {"photos/1.png": b""})
    assert "photos/1.jpg or photos/1.png" in refusal(path)
