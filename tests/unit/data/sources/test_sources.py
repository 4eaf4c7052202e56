"""Sources: a zip, a folder and a tree of folders give the same photos, labels and ids."""

from __future__ import annotations

import os
import random
import unicodedata
import zipfile
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawcast.client.journal import PredictionRow
from pawcast.client.submission import errors_csv
from pawcast.data import sources
from pawcast.errors import DataError, ImageError, NotFoundError
from pawcast.vision import decode
from pawcast.vision.decode import MAX_BYTES
from tests.support.files import make_folder, make_zip
from tests.support.sources import CLASSES, KAGGLE, below, labelled_contents, refusal


def portable_facts(photos: Iterable[sources.Photo]) -> list[tuple[str, str, int]]:
    """All of a photo that must not depend on how it is packed."""
    return [(photo.id, photo.name, photo.label) for photo in photos]


def names(path: str, classes: Iterable[str] = ()) -> list[str]:
    return [photo.name for photo in sources.scan(path, list(classes)).photos]


def test_kaggles_names_give_labels_in_natural_order(tmp_path):
    photos = sources.scan(make_zip(tmp_path / "train.zip", below("train", KAGGLE)), CLASSES).photos
    assert [photo.id for photo in photos] == [f"{name}.{i}" for name in CLASSES for i in range(12)]
    assert [photo.label for photo in photos] == [0] * 12 + [1] * 12
    assert photos[0].member == "train/cat.0.jpg"
    assert photos[0].name == "cat.0.jpg"


def test_zip_of_the_folder_zip_of_its_content_and_both_folders_agree(tmp_path):
    packed = [
        make_zip(tmp_path / "outer.zip", below("train", KAGGLE)),
        make_zip(tmp_path / "inner.zip", KAGGLE),
        make_zip(tmp_path / "deep.zip", below("data/train", KAGGLE)),
        make_folder(tmp_path / "outer", below("train", KAGGLE)),
        str(tmp_path / "outer" / "train"),
    ]
    expected = portable_facts(sources.scan(packed[0], CLASSES).photos)
    assert len(expected) == 24
    for path in packed:
        photos = sources.scan(path, CLASSES).photos
        assert portable_facts(photos) == expected
        assert list(sources.read(path, photos)) == [KAGGLE[photo.name] for photo in photos]


@given(st.randoms(use_true_random=False))
def test_the_archives_order_does_not_matter(tmp_path_factory, shuffler: random.Random):
    folder = tmp_path_factory.mktemp("zips")
    members = [*below("train", KAGGLE).items()]
    expected = sources.scan(make_zip(folder / "a.zip", members), CLASSES).photos
    shuffler.shuffle(members)
    assert sources.scan(make_zip(folder / "b.zip", members), CLASSES).photos == expected


TREE = {f"{folder}/{i}.jpg": f"{folder}{i}".encode() for folder in ("Cat", "Dog") for i in (0, 1, 2, 10)}


def test_an_imagefolder_tree_gets_its_labels_from_folders(tmp_path):
    for path in (
        make_folder(tmp_path / "tree", TREE),
        make_zip(tmp_path / "tree.zip", TREE),
        make_zip(tmp_path / "wrapped.zip", below("PetImages", TREE)),
    ):
        photos = sources.scan(path, CLASSES).photos
        assert [(photo.id, photo.label) for photo in photos] == [
            *((f"Cat/{i}", 0) for i in (0, 1, 2, 10)),
            *((f"Dog/{i}", 1) for i in (0, 1, 2, 10)),
        ]


def test_a_tree_of_one_class_keeps_the_classs_folder(tmp_path):
    photos = sources.scan(make_folder(tmp_path / "one", {"cats/1.jpg": b"", "cats/2.jpg": b""}), CLASSES).photos
    assert portable_facts(photos) == [("cats/1", "cats/1.jpg", 0), ("cats/2", "cats/2.jpg", 0)]


def test_a_folder_named_after_the_task_is_no_class(tmp_path):
    path = make_zip(tmp_path / "a.zip", below("dogs-vs-cats/test1", {"1.jpg": b"", "2.jpg": b""}))
    with pytest.raises(DataError, match="have no label"):
        sources.scan(path, CLASSES)


def test_a_wrapping_folder_named_after_the_task_is_not_part_of_the_ids(tmp_path):
    wrapped = make_zip(tmp_path / "a.zip", below("dogs-vs-cats/train", KAGGLE))
    expected = sources.scan(make_zip(tmp_path / "b.zip", below("train", KAGGLE)), CLASSES)
    assert portable_facts(sources.scan(wrapped, CLASSES).photos) == portable_facts(expected.photos)


def test_a_plural_class_name_works(tmp_path):
    path = make_folder(tmp_path / "glass", {"glass.1.jpg": b"", "dogs/1.jpg": b""})
    assert [photo.label for photo in sources.scan(path, ["glass", "dogs"]).photos] == [1, 0]


def test_photos_to_predict_have_no_label_and_sort_naturally(tmp_path):
    path = make_zip(tmp_path / "test1.zip", {f"test1/{i}.jpg": b"" for i in (10, 1, 2, 100, 9)})
    assert portable_facts(sources.scan(path).photos) == [(str(i), f"{i}.jpg", -1) for i in (1, 2, 9, 10, 100)]


def test_hidden_and_other_files_are_left_out(tmp_path):
    clutter = {
        "train/cat.1.jpg": b"1",
        "train/.DS_Store": b"",
        "train/._cat.1.jpg": b"",
        "__MACOSX/train/._cat.1.jpg": b"",
        "__MACOSX/train/cat.2.jpg": b"",
        "train/Thumbs.db": b"",
        "train/notes.txt": b"",
        ".git/cat.3.jpg": b"",
        "train/cat": b"",
        "README.md": b"",
    }
    assert names(make_zip(tmp_path / "a.zip", clutter), CLASSES) == ["cat.1.jpg"]
    assert names(make_folder(tmp_path / "a", clutter), CLASSES) == ["cat.1.jpg"]


def test_all_photo_extensions_count_in_either_case(tmp_path):
    files = {f"cat.{i}{ext}": b"" for i, ext in enumerate((*sources.EXTENSIONS, *map(str.upper, sources.EXTENSIONS)))}
    assert names(make_folder(tmp_path / "a", files), CLASSES) == sorted(files, key=sources.natural_key)


def test_links_are_not_followed(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "cat.2.jpg").write_bytes(b"secret")
    path = make_folder(tmp_path / "a", {"cat.1.jpg": b"1"})
    (tmp_path / "a" / "cat.2.jpg").symlink_to(tmp_path / "outside" / "cat.2.jpg")
    (tmp_path / "a" / "more").symlink_to(tmp_path / "outside")
    assert names(path, CLASSES) == ["cat.1.jpg"]
    link = zipfile.ZipInfo("cat.2.jpg")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("cat.1.jpg", b"1")
        archive.writestr(link, "/etc/passwd")
    assert names(str(tmp_path / "a.zip"), CLASSES) == ["cat.1.jpg"]


@pytest.mark.parametrize(
    ("make", "kind", "line"),
    [
        (lambda p: str(p / "nowhere"), NotFoundError, "There is no such file or folder"),
        (lambda p: make_folder(p / "empty", {"notes.txt": b""}), DataError, "holds no photos"),
        (lambda p: make_zip(p / "empty.zip", {}), DataError, "holds no photos"),
        (lambda p: make_zip(p / "text.zip", {"notes.txt": b""}), DataError, "holds no photos"),
        (
            lambda p: make_zip(p / "a.zip", {"cat.1.jpg": b"", "7.jpg": b""}),
            DataError,
            "1 of 2 photos .* have no label",
        ),
        (lambda p: make_zip(p / "a.zip", {f"{i}.jpg": b"" for i in range(9)}), DataError, "0.jpg, 1.jpg, 2.jpg, …"),
        (lambda p: make_folder(p / "b", {"no.zip": b"not a zip"}) + "/no.zip", DataError, "neither a folder nor"),
        (lambda p: make_folder(p / "b", {"no.zip": b""}) + "/no.zip", DataError, "neither a folder nor"),
        (lambda p: make_zip(p / "a.zip", [("cat.1.jpg", b"1"), ("cat.1.jpg", b"2")]), DataError, "two members"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_source_that_cannot_be_used_says_why(tmp_path, make, kind, line):
    path = make(tmp_path)
    with pytest.raises(kind, match=line):
        sources.scan(path, CLASSES)


def test_too_large_a_photo_is_its_own_error(tmp_path):
    too_large, fits = bytes(MAX_BYTES + 1), bytes(MAX_BYTES)
    files = {"1.jpg": too_large, "2.jpg": fits}
    for path in (
        make_folder(tmp_path / "a", files),
        make_zip(tmp_path / "a.zip", files, compression=zipfile.ZIP_DEFLATED, compresslevel=1),
    ):
        first, second = sources.read(path, sources.scan(path).photos)
        assert isinstance(first, ImageError)
        assert first.what == "larger than 32 MiB"
        assert second == fits


def test_leading_zeros_do_not_make_the_order_depend_on_the_archive(tmp_path):
    a = make_zip(tmp_path / "a.zip", {"02.jpg": b"", "2.jpg": b""})
    b = make_zip(tmp_path / "b.zip", {"2.jpg": b"", "02.jpg": b""})
    assert names(a) == names(b)


@pytest.mark.parametrize("name", ["²1.jpg", "1" * 5000 + ".jpg"])
def test_odd_digits_in_a_name_sort_somewhere(tmp_path, name):
    assert set(names(make_zip(tmp_path / "a.zip", {name: b"", "2.jpg": b""}))) == {name, "2.jpg"}


@pytest.mark.parametrize("pair", [("7.jpg", "7.png"), ("7.jpg", "7.JPG"), ("a/7.jpg", "a/7.jpeg")])
def test_ids_are_distinct(tmp_path, pair):
    first, second = sources.scan(make_folder(tmp_path / "a", dict.fromkeys(pair, b""))).photos
    assert first.id != second.id


ODD = [
    "cat 1 (copy).jpg",
    "cat.1'\".jpg",
    "cat,1;.jpg",
    "cat\n1.jpg",
    "cat\t1\x1b[31m.jpg",
    "cat-🐈-1.jpg",
    unicodedata.normalize("NFD", "cat.café.jpg"),
    "cat.\u202egpj.1.jpg",
    "cat.\u2028.jpg",
    "cat.日本.jpg",
    "cat%2e.jpg",
    "=cat.1.jpg",
    "-rf cat.jpg",
    "cat.$(id).jpg",
    "cat." + "n" * 200 + ".jpg",
    "cat.1.jpg.jpg",
    "cat. .jpg",
    "CON.jpg",
]


@pytest.mark.parametrize("make", [make_zip, make_folder])
def test_odd_names_are_photos_with_a_writable_name_each(tmp_path, make):
    path = make(tmp_path / "a.zip", {name: name.encode() for name in ODD})
    photos = sources.scan(path).photos
    assert len({photo.id for photo in photos}) == len(ODD) == len(photos)
    for photo, data in zip(photos, sources.read(path, photos), strict=True):
        assert data == photo.member.encode()
        assert len(photo.name.splitlines()) == 1
        assert "\x1b" not in photo.name


def test_odd_names_keep_a_message_on_one_short_line(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"x\ny\x1b.jpg": b"", "z" * 60_000 + ".jpg": b"", "\u202ewhat.jpg": b""})
    line = refusal(path)
    assert r"x\ny\x1b.jpg" in line
    assert len(line) < 700


@pytest.mark.parametrize("path", ["", "nowhere.zip", "a\0b", "x" * 5000, "/dev/null/x.zip", "nowhere/\n/a.csv"])
def test_a_path_that_is_none_is_one_line(path, tmp_path, monkeypatch):
    monkeypatch.chdir(make_folder(tmp_path / "empty", {"x.txt": b""}))
    with pytest.raises((NotFoundError, DataError)) as caught:
        sources.scan(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null"])
def test_a_device_is_no_source(path):
    assert "neither a folder nor" in refusal(path)


def test_petimages_with_its_broken_files(tmp_path):
    """Microsoft's zip: empty photos, other files between them, a licence beside the folder."""
    files = {
        "PetImages/Cat/0.jpg": b"cat",
        "PetImages/Cat/666.jpg": b"",
        "PetImages/Cat/Thumbs.db": b"x",
        "PetImages/Dog/0.jpg": b"dog",
        "PetImages/Dog/11702.jpg": b"",
        "PetImages/Dog/Thumbs.db": b"x",
        "MSR-LA - 3467.docx": b"x",
        "readme[1].txt": b"x",
    }
    expected = [("Cat/0", 0, b"cat"), ("Cat/666", 0, b""), ("Dog/0", 1, b"dog"), ("Dog/11702", 1, b"")]
    for path in (make_zip(tmp_path / "a.zip", files), make_folder(tmp_path / "a", files)):
        assert labelled_contents(path) == expected
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
        assert [(label, data) for _, label, data in labelled_contents(path)] == expected


def test_a_file_name_that_is_not_utf8_reaches_the_table_of_errors(tmp_path):
    make_folder(tmp_path, {os.fsdecode(b"cat\xff.jpg"): b""})
    (photo,) = sources.scan(str(tmp_path)).photos
    assert rb"cat\udcff.jpg" in errors_csv([PredictionRow(photo.id, photo.member, None, "empty file")])
