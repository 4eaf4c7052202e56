"""A CSV of labels beside its photos, and everything that can be wrong with one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pawcast.data import sources
from pawcast.data.sources import labels
from pawcast.errors import DataError, NotFoundError
from tests.support.cases import case
from tests.support.files import make_folder, make_zip
from tests.support.sources import CLASSES, below, labelled_contents, refusal


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
        "file;label\nphotos/0.jpg;cat\nphotos/1.jpg;dog\nphotos/2.jpg;cat\n",
        "sep=;\r\nfile;label\r\nphotos/0.jpg;cat\r\nphotos/1.jpg;dog\r\nphotos/2.jpg;cat\r\n",
        "file_name\tlabel\nphotos/0.jpg\tcat\nphotos/1.jpg\tdog\nphotos/2.jpg\tcat\n",
        "filepath|target\nphotos/0.jpg|0.0\nphotos/1.jpg|1.0\nphotos/2.jpg|0\n",
        "File Name,Class Name\nphotos/0.jpg,cats\nphotos/1.jpg,dogs\nphotos/2.jpg,cats\n",
        "image_id,breed\n0,cat\n1,dog\n2,cat\n",
        "breed,id\ncat,0\ndog,1\ncat,2\n",
        ",file,label\n0,photos/0.jpg,cat\n1,photos/1.jpg,dog\n2,photos/2.jpg,cat\n",
        "id,filename,label\n77,0.jpg,cat\n78,1.jpg,dog\n79,2.jpg,cat\n",
        "name,image,label\nTom,0,cat\nRex,1,dog\nSue,2,cat\n",
        "no,what,label\nx,0.jpg,cat\nx,1.jpg,dog\nx,2.jpg,cat\n",
        "file,label\nphotos/0.jpg,cat\nphotos/1.jpg,dog\nphotos/2.jpg,cat\n".encode("utf-16"),
        "\ufefffile\tlabel\nphotos/0.jpg\tcat\nphotos/1.jpg\tdog\nphotos/2.jpg\tcat\n".encode("utf-16-be"),
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
        ("file,label\n", "lists no photo"),
        ("file,label\nphotos/0.jpg,cta\n", r"line 2: unknown label. Received: 'cta'.*did you mean 'cat'.*or 0 to 1"),
        ("file,label\nphotos/0.jpg,2\n", "unknown label"),
        ("file,label\nphotos/0.jpg,0.97\n", "unknown label"),
        ("file,label\nphotos/0.jpg,\n", "unknown label"),
        ("file,label\nphotos/0.jpg,cat,x\n", "has another number of columns on line 2"),
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
        ("file,label\nphotos\n/0.jpg,cat\n", "has another number of columns on line 2"),
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


@pytest.mark.parametrize("name", ["a;b.jpg", "a,b.jpg", "a\u2028b.jpg", "a b.jpg", "kät.jpg"])
def test_odd_names_are_read_from_a_table(tmp_path, name):
    make_folder(tmp_path / "data", {name: b"1"})
    (tmp_path / "data" / "labels.csv").write_text(f'file,label\n"{name}",cat\n')
    assert [label for _, label, _ in labelled_contents(str(tmp_path / "data" / "labels.csv"))] == [0]


LABELS = b"id,breed\n" + b"".join(b"a%d,%s\n" % (i, (b"cat", b"dog")[i % 2]) for i in range(4))
PHOTOS = {f"train/a{i}.jpg": b"%d" % i for i in range(4)}
EXPECTED = [(f"a{i}", i % 2, b"%d" % i) for i in range(4)]


@pytest.mark.parametrize("make", [make_zip, make_folder])
def test_a_table_within_a_source_labels_its_photos(tmp_path, make):
    others = {"test/b1.jpg": b"", "sample_submission.csv": b"id,label\nb1,0.5\n", "about.csv": b"a,b,c\n1,2,3\n"}
    path = make(tmp_path / "dog-breed", PHOTOS | others | {"labels.csv": LABELS})
    for source in (path, f"{path}/labels.csv"):
        assert labelled_contents(source) == EXPECTED
    listing = sources.scan(path, CLASSES)
    assert listing.left_out == [
        sources.LeftOut("text", 2, ("about.csv", "sample_submission.csv")),
        sources.LeftOut("unlisted", 1, ("test/b1.jpg",)),
    ]
    assert len(sources.scan(path).photos) == 5


def test_a_table_beside_an_archive_labels_its_photos(tmp_path):
    make_folder(tmp_path / "data", {"labels.csv": LABELS})
    path = make_zip(tmp_path / "data" / "train.zip", PHOTOS)
    assert labelled_contents(str(tmp_path / "data" / "labels.csv")) == EXPECTED
    assert f"Fix: name {labels.display_name(str(tmp_path / 'data' / 'labels.csv'))} instead" in refusal(path)


def test_a_table_in_a_folder_of_its_own_finds_photos_beside_it(tmp_path):
    files = below("pets", PHOTOS | {"meta.csv": b"file_name,y\ntrain/a0.jpg,cat\n"})
    assert labelled_contents(make_zip(tmp_path / "a.zip", files)) == EXPECTED[:1]


def test_a_photo_without_extension_is_found_by_the_end_of_its_path(tmp_path):
    files = {"train/a": b"\xff\xd8\xff1", "labels.csv": b"id,label\na,cat\n"}
    assert labelled_contents(make_zip(tmp_path / "a.zip", files)) == [("a", 0, b"\xff\xd8\xff1")]


def test_several_tables_of_labels_are_named(tmp_path):
    path = make_folder(tmp_path / "a", PHOTOS | {"labels.csv": LABELS, "other.csv": LABELS})
    assert "several tables of labels. Received: labels.csv, other.csv. Fix: name one of them, such as" in refusal(path)
    assert labelled_contents(f"{path}/other.csv") == EXPECTED


def test_a_table_in_each_of_several_folders_labels_the_photos_there(tmp_path):
    files = {f"{split}/{i}.jpg": split.encode() for split in ("train", "test") for i in range(2)}
    tables = {
        "train/metadata.csv": b"file_name,label\n0.jpg,cat\n1.jpg,dog\n",
        "test/metadata.csv": b"file_name,label\n1.jpg,cat\n",
    }
    path = make_folder(tmp_path / "a", files | tables)
    assert labelled_contents(path) == [("test/1", 0, b"test"), ("train/0", 0, b"train"), ("train/1", 1, b"train")]
    assert sources.scan(path, CLASSES).left_out == [sources.LeftOut("unlisted", 1, ("test/0.jpg",))]


def test_names_of_photos_decide_without_a_column_that_is_asked_for(tmp_path):
    files = {"cat.1.jpg": b"1", "dog.1.jpg": b"2", "labels.csv": b"file,label,breed\ncat.1,dog,cat\ndog.1,cat,cat\n"}
    path = make_folder(tmp_path / "a", files)
    assert [photo.label for photo in sources.scan(path, CLASSES).photos] == [0, 1]
    assert [photo.label for photo in sources.scan(path, CLASSES, label_column="LABEL").photos] == [1, 0]
    assert [photo.label for photo in sources.scan(path, CLASSES, label_column="breed").photos] == [0, 0]
    with pytest.raises(DataError, match="has no table with the column size"):
        sources.scan(path, CLASSES, label_column="size")
    with pytest.raises(DataError, match="has no column size"):
        sources.scan(f"{path}/labels.csv", CLASSES, label_column="size")


def test_a_table_of_several_photos_of_one_name_asks_for_the_whole_path(tmp_path):
    files = {"a/1.jpg": b"1", "b/1.jpg": b"2", "labels.csv": b"file,label\n1.jpg,cat\n"}
    assert "Fix: write the whole path" in refusal(make_zip(tmp_path / "a.zip", files) + "/labels.csv")


def test_a_column_of_groups(tmp_path):
    path = make_csv(tmp_path, "file,label,Owner\nphotos/0.jpg,cat,ann\nphotos/1.jpg,dog,\nphotos/2.jpg,cat,ann\n")
    assert [photo.group for photo in sources.scan(path, CLASSES, group="owner").photos] == ["ann", "", "ann"]


@pytest.mark.parametrize("name", ["good", "metadata", "image_id", "semicolon", "float", "utf16", "breed", "target"])
def test_dialects_of_the_cases_agree(name):
    photos = sources.scan(str(case(f"csv/{name}.csv")), CLASSES).photos
    assert [photo.label for photo in photos] == [0] * 12 + [1] * 12
