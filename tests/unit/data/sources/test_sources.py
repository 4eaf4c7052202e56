"""Sources: a zip, a folder or an ImageFolder tree gives the same photos, labels and ids, whatever lies around them."""

from __future__ import annotations

import io
import os
import random
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawcast.data import sources
from pawcast.data.sources import labels
from pawcast.errors import DataError, ImageError, NotFoundError
from pawcast.vision.decode import MAX_BYTES
from tests.support.files import make_folder, make_zip

CLASSES = ["cat", "dog"]
KAGGLE = {f"{name}.{i}.jpg": f"{name} {i}".encode() for i in range(12) for name in CLASSES}


def below(folder: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{name}": data for name, data in files.items()}


def facts(photos: Iterable[sources.Photo]) -> list[tuple[str, str, int]]:
    """All of a photo that must not depend on how it is packed."""
    return [(photo.id, photo.name, photo.label) for photo in photos]


def names(path: str, classes: Iterable[str] = ()) -> list[str]:
    return [photo.name for photo in sources.scan(path, list(classes))]


def only(path: str) -> bytes | ImageError:
    (data,) = sources.read(path, sources.scan(path))
    return data


def test_kaggles_names_give_labels_in_natural_order(tmp_path):
    photos = sources.scan(make_zip(tmp_path / "train.zip", below("train", KAGGLE)), CLASSES)
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
    expected = facts(sources.scan(packed[0], CLASSES))
    assert len(expected) == 24
    for path in packed:
        photos = sources.scan(path, CLASSES)
        assert facts(photos) == expected
        assert list(sources.read(path, photos)) == [KAGGLE[photo.name] for photo in photos]


@given(st.randoms(use_true_random=False))
def test_the_archives_order_does_not_matter(tmp_path_factory, shuffler: random.Random):
    folder = tmp_path_factory.mktemp("zips")
    members = [*below("train", KAGGLE).items()]
    expected = sources.scan(make_zip(folder / "a.zip", members), CLASSES)
    shuffler.shuffle(members)
    assert sources.scan(make_zip(folder / "b.zip", members), CLASSES) == expected


TREE = {f"{folder}/{i}.jpg": f"{folder}{i}".encode() for folder in ("Cat", "Dog") for i in (0, 1, 2, 10)}


def test_an_imagefolder_tree_gets_its_labels_from_folders(tmp_path):
    for path in (
        make_folder(tmp_path / "tree", TREE),
        make_zip(tmp_path / "tree.zip", TREE),
        make_zip(tmp_path / "wrapped.zip", below("PetImages", TREE)),
    ):
        photos = sources.scan(path, CLASSES)
        assert [(photo.id, photo.label) for photo in photos] == [
            *((f"Cat/{i}", 0) for i in (0, 1, 2, 10)),
            *((f"Dog/{i}", 1) for i in (0, 1, 2, 10)),
        ]


def test_a_tree_of_one_class_keeps_the_classs_folder(tmp_path):
    photos = sources.scan(make_folder(tmp_path / "one", {"cats/1.jpg": b"", "cats/2.jpg": b""}), CLASSES)
    assert facts(photos) == [("cats/1", "cats/1.jpg", 0), ("cats/2", "cats/2.jpg", 0)]


@pytest.mark.parametrize(
    ("member", "label"),
    [
        ("cat.7.jpg", 0), ("train/dog.12.jpg", 1), ("CAT_7.JPG", 0), ("Dog7.png", 1), ("cats/7.jpg", 0),
        ("train/Dogs/x.jpg", 1), ("PetImages/Cat/3.jpg", 0), ("dogs/cat.1.jpg", 0), ("cats/dogs/1.jpg", 1),
        ("7.jpg", -1), ("train/7.jpg", -1), ("cattle.7.jpg", -1), ("category/7.jpg", -1), ("hotdog.jpg", -1),
    ],
)  # fmt: skip
def test_a_label_is_the_names_first_word_else_the_nearest_folders(member, label):
    assert labels.label_from_path(member, CLASSES) == label


def test_a_folder_named_after_the_task_is_no_class(tmp_path):
    path = make_zip(tmp_path / "a.zip", below("dogs-vs-cats/test1", {"1.jpg": b"", "2.jpg": b""}))
    with pytest.raises(DataError, match="have no label"):
        sources.scan(path, CLASSES)


def test_a_wrapping_folder_named_after_the_task_is_not_part_of_the_ids(tmp_path):
    wrapped = make_zip(tmp_path / "a.zip", below("dogs-vs-cats/train", KAGGLE))
    assert facts(sources.scan(wrapped, CLASSES)) == facts(
        sources.scan(make_zip(tmp_path / "b.zip", below("train", KAGGLE)), CLASSES)
    )


def test_a_plural_class_name_works(tmp_path):
    path = make_folder(tmp_path / "glass", {"glass.1.jpg": b"", "dogs/1.jpg": b""})
    assert [photo.label for photo in sources.scan(path, ["glass", "dogs"])] == [1, 0]


def test_photos_to_predict_have_no_label_and_sort_naturally(tmp_path):
    path = make_zip(tmp_path / "test1.zip", {f"test1/{i}.jpg": b"" for i in (10, 1, 2, 100, 9)})
    assert facts(sources.scan(path)) == [(str(i), f"{i}.jpg", -1) for i in (1, 2, 9, 10, 100)]


def test_what_is_hidden_or_no_photo_is_left_out(tmp_path):
    clutter = {
        "train/cat.1.jpg": b"1", "train/.DS_Store": b"", "train/._cat.1.jpg": b"", "__MACOSX/train/._cat.1.jpg": b"",
        "__MACOSX/train/cat.2.jpg": b"", "train/Thumbs.db": b"", "train/notes.txt": b"", ".git/cat.3.jpg": b"",
        "train/cat": b"", "README.md": b"",
    }  # fmt: skip
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


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_truncated_zip_is_refused_as_a_whole(tmp_path, share):
    whole = Path(make_zip(tmp_path / "whole.zip", below("train", KAGGLE))).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match="neither a folder nor a whole zip"):
        sources.scan(str(tmp_path / "cut.zip"), CLASSES)


def test_an_encrypted_member_is_that_photos_error(tmp_path):
    """Only the flag is set: the reader must not even get as far as a wrong password."""
    data = bytearray(Path(make_zip(tmp_path / "a.zip", {"1.jpg": b"one", "2.jpg": b"two"})).read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.index(signature) + offset
        (flags,) = struct.unpack_from("<H", data, place)
        struct.pack_into("<H", data, place, flags | 1)
    (tmp_path / "encrypted.zip").write_bytes(data)
    path = str(tmp_path / "encrypted.zip")
    first, second = sources.read(path, sources.scan(path))
    assert isinstance(first, ImageError)
    assert "encrypted" in first.what
    assert second == b"two"


@pytest.mark.parametrize("size", [0, 28, 64, 65, 4_000])
def test_whatever_extra_fields_stand_before_it_a_photo_is_read_whole(tmp_path, size):
    path = tmp_path / "train.zip"
    info = zipfile.ZipInfo("cat.1.jpg")
    info.extra = struct.pack("<HH", 0xCAFE, size - 4) + bytes(size - 4) if size else b""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, bytes(range(256)))
        archive.writestr("cat.2.jpg", b"the next one")
    photos = sources.scan(str(path))
    assert list(sources.read(str(path), photos)) == [bytes(range(256)), b"the next one"]


def test_a_damaged_member_is_that_photos_error(tmp_path):
    members = {"1.jpg": os.urandom(500), "2.jpg": b"two"}
    data = bytearray(Path(make_zip(tmp_path / "a.zip", members)).read_bytes())
    data[200] ^= 0xFF
    (tmp_path / "damaged.zip").write_bytes(data)
    path = str(tmp_path / "damaged.zip")
    first, second = sources.read(path, sources.scan(path))
    assert isinstance(first, ImageError)
    assert second == b"two"


def test_any_damage_to_a_compressed_member_is_an_image_error_or_shows_no_difference(tmp_path):
    content = bytes(range(256)) * 20
    data = Path(make_zip(tmp_path / "a.zip", {"1.jpg": content}, compression=zipfile.ZIP_DEFLATED)).read_bytes()
    start = data.index(b"1.jpg") + 5
    for place in range(start, data.index(b"PK\x01\x02"), 7):
        path = tmp_path / f"{place}.zip"
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x5A]) + data[place + 1 :])
        found = only(str(path))
        assert isinstance(found, ImageError) or found == content


def test_a_zip_of_a_later_version_is_a_data_error(tmp_path):
    data = bytearray(Path(make_zip(tmp_path / "a.zip", {"1.jpg": b"1"})).read_bytes())
    struct.pack_into("<H", data, data.index(b"PK\x01\x02") + 6, 90)
    (tmp_path / "b.zip").write_bytes(data)
    with pytest.raises(DataError):
        sources.scan(str(tmp_path / "b.zip"))


def test_too_large_a_photo_is_its_own_error(tmp_path):
    too_large, fits = bytes(MAX_BYTES + 1), bytes(MAX_BYTES)
    files = {"1.jpg": too_large, "2.jpg": fits}
    for path in (
        make_folder(tmp_path / "a", files),
        make_zip(tmp_path / "a.zip", files, compression=zipfile.ZIP_DEFLATED, compresslevel=1),
    ):
        first, second = sources.read(path, sources.scan(path))
        assert isinstance(first, ImageError)
        assert first.what == "larger than 32 MiB"
        assert second == fits


def test_a_bomb_is_not_inflated_beyond_the_limit(tmp_path):
    """The directory may lie: this member says 10 bytes and inflates to 64 MiB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("1.jpg", bytes(2 * MAX_BYTES))
    data = bytearray(buffer.getvalue())
    struct.pack_into("<I", data, data.index(b"PK\x03\x04") + 22, 10)
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 10)
    (tmp_path / "bomb.zip").write_bytes(data)
    assert isinstance(only(str(tmp_path / "bomb.zip")), ImageError)


def test_a_photo_that_vanished_is_its_own_error(tmp_path):
    path = make_folder(tmp_path / "a", {"1.jpg": b"1", "2.jpg": b"2"})
    photos = sources.scan(path)
    (tmp_path / "a" / "1.jpg").unlink()
    first, second = sources.read(path, photos)
    assert isinstance(first, ImageError)
    assert second == b"2"


@given(st.lists(st.integers(0, 10**6), unique=True, max_size=20))
def test_natural_order_is_numeric_order(numbers):
    in_order = sorted((f"cat.{n}.jpg" for n in numbers), key=sources.natural_key)
    assert in_order == [f"cat.{n}.jpg" for n in sorted(numbers)]


def test_leading_zeros_do_not_make_the_order_depend_on_the_archive(tmp_path):
    a = make_zip(tmp_path / "a.zip", {"02.jpg": b"", "2.jpg": b""})
    b = make_zip(tmp_path / "b.zip", {"2.jpg": b"", "02.jpg": b""})
    assert names(a) == names(b)


@pytest.mark.parametrize("name", ["²1.jpg", "1" * 5000 + ".jpg"])
def test_odd_digits_in_a_name_sort_somewhere(tmp_path, name):
    assert set(names(make_zip(tmp_path / "a.zip", {name: b"", "2.jpg": b""}))) == {name, "2.jpg"}


@pytest.mark.parametrize("pair", [("7.jpg", "7.png"), ("7.jpg", "7.JPG"), ("a/7.jpg", "a/7.jpeg")])
def test_ids_are_distinct(tmp_path, pair):
    first, second = sources.scan(make_folder(tmp_path / "a", dict.fromkeys(pair, b"")))
    assert first.id != second.id
