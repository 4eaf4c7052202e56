"""A hostile zip is refused in one line, or costs one photo; it takes little memory."""

from __future__ import annotations

import bz2
import io
import os
import random
import stat
import struct
import tracemalloc
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from pawcast.data import sources
from pawcast.data.sources import zip_archive
from pawcast.errors import DataError, ImageError, PawcastError
from pawcast.vision.decode import MAX_BYTES
from tests.support.files import make_zip
from tests.support.sources import CLASSES, KAGGLE, below, read_all, reason, refusal

MIB = 2**20


class Entry(NamedTuple):
    """A member whose directory entry may say anything."""

    name: str
    data: bytes
    size: int
    crc: int = 0
    method: int = zipfile.ZIP_DEFLATED
    flags: int = 0
    start: int | None = None
    packed: int | None = None


def forge(path: Path, entries: list[Entry]) -> str:
    """Write a zip by hand."""
    body, directory = b"", b""
    for entry in entries:
        name = entry.name.encode()
        packed = len(entry.data) if entry.packed is None else entry.packed
        facts = (20, entry.flags | 0x800, entry.method, 0, 0x21, entry.crc, packed, entry.size, len(name))
        start = len(body) if entry.start is None else entry.start
        if entry.start is None:
            body += struct.pack("<4s5H3L2H", b"PK\3\4", *facts, 0) + name + entry.data
        directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, *facts, 0, 0, 0, 0, 0, start) + name
    count = min(len(entries), 0xFFFF)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(body), 0)
    path.write_bytes(body + directory + end)
    return str(path)


def stored(name: str, data: bytes) -> Entry:
    return Entry(name, data, len(data), zlib.crc32(data), zipfile.ZIP_STORED)


def inflating_to(size: int) -> bytes:
    """A deflate stream of zeros: one flushed block repeated, so that a gigabyte is made quickly."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * (size // MIB) + b"\x03\x00"


@contextmanager
def allocating_at_most(limit: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "name",
    [
        "../cat.1.jpg",
        "../../etc/cron.d/x",
        "a/../../cat.1.jpg",
        "a/..",
        "/cat.1.jpg",
        "//host/cat.1.jpg",
        "C:/cat.1.jpg",
        "c:cat.1.jpg",
        r"C:\cat.1.jpg",
        r"..\cat.1.jpg",
        r"\\host\share\cat.1.jpg",
        r"a\..\..\x.txt",
    ],
)
def test_a_path_that_leads_out_refuses_the_archive(tmp_path, name):
    path = make_zip(tmp_path / "a.zip", {name: b"evil", "train/cat.2.jpg": b"good"})
    assert "leads out" in refusal(path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.zip"]


def test_a_photos_name_never_leads_out_of_its_source(tmp_path):
    for name in ("cat..jpg", "cat.1...jpg", "..cat.1.jpg", "a..b/cat.1.jpg", "./cat.1.jpg", "x/./cat.1.jpg", "~/c.jpg"):
        for photo in sources.scan(make_zip(tmp_path / "a.zip", {name: b"", "cat.2.jpg": b""})).photos:
            assert not {"", ".."} & set(photo.name.split("/"))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("train/cat.1.jpg", "train/CAT.1.jpg"),
        ("Cat/1.jpg", "cat/1.JPG"),
        ("cat/1.jpg", r"cat\1.jpg"),
        ("./cat.1.jpg", "cat.1.jpg"),
        ("straße/cat.1.jpg", "STRASSE/cat.1.jpg"),
        (f"{unicodedata.normalize('NFC', 'é')}/cat.1.jpg", f"{unicodedata.normalize('NFD', 'é')}/cat.1.jpg"),
    ],
)
def test_names_that_collide_on_some_system_are_both_named(tmp_path, first, second):
    line = refusal(make_zip(tmp_path / "a.zip", {first: b"1", second: b"2"}))
    assert "two members" in line
    for name in (first, second):
        assert name in line.replace("\\\\", "\\")


def test_thousands_of_duplicates_are_refused_at_once(tmp_path):
    entries = [stored(f"cat.{i}.jpg", b"") for i in range(20_000)]
    assert "two members of one name" in refusal(forge(tmp_path / "a.zip", [*entries, entries[-1]]))


def test_members_that_are_not_regular_files_are_left_out(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for i, kind in enumerate((stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK, stat.S_IFREG)):
            info = zipfile.ZipInfo(f"cat.{i}.jpg")
            info.external_attr = (kind | 0o644) << 16
            file.writestr(info, b"/etc/passwd")
    assert [photo.name for photo in sources.scan(str(tmp_path / "a.zip")).photos] == ["cat.5.jpg"]


def test_too_many_members_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(zip_archive, "MAX_MEMBERS", 100)
    members = {f"{i}.jpg": b"" for i in range(100)}
    assert len(sources.scan(make_zip(tmp_path / "a.zip", members)).photos) == 100
    line = refusal(make_zip(tmp_path / "b.zip", members | {"cat.1.jpg": b""}))
    assert "too many members, 101 of at most 100" in line


def test_too_large_a_directory_is_refused_unread(tmp_path):
    size = zip_archive.MAX_DIRECTORY + 1
    with open(tmp_path / "a.zip", "wb") as file:
        file.truncate(size)
        file.seek(size)
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, size, 0, 0))
    with allocating_at_most(MIB):
        assert "directory is too large" in refusal(str(tmp_path / "a.zip"))


def test_members_that_share_their_bytes_are_refused(tmp_path):
    data = inflating_to(8 * MIB)
    once = Entry("cat.0.jpg", data, 8 * MIB)
    shared = [once._replace(name=f"cat.{i}.jpg", start=0) for i in range(1, 50)]
    assert "overlap" in refusal(forge(tmp_path / "a.zip", [once, *shared]))


def test_a_bomb_of_quoted_headers_is_refused(tmp_path):
    """Each stream contains the next member's header and data, so all starts differ."""
    body, header, starts = inflating_to(4 * MIB), b"", []
    for i in reversed(range(30)):
        name = f"cat.{i:02}.jpg"
        # A stored deflate block that holds the next header; the stream goes on behind it.
        quote = struct.pack("<BHH", 0, len(header), len(header) ^ 0xFFFF) if header else b""
        packed = len(quote) + len(body)
        header = (
            struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 0x21, 0, packed, 4 * MIB, len(name), 0) + name.encode()
        )
        body = header + quote + body
        starts.append((name, len(body), packed))
    entries = [Entry(name, b"", 4 * MIB, start=len(body) - behind, packed=packed) for name, behind, packed in starts]
    path = forge(tmp_path / "a.zip", entries)
    directory = Path(path).read_bytes()
    end = directory[-22:-6] + struct.pack("<LH", len(body), 0)
    Path(path).write_bytes(body + directory[:-22] + end)
    assert "overlap" in refusal(path)


def test_photos_that_all_shrink_too_well_are_a_bomb(tmp_path):
    data = inflating_to(MAX_BYTES)
    path = forge(tmp_path / "a.zip", [Entry(f"cat.{i}.jpg", data, MAX_BYTES) for i in range(40)])
    with allocating_at_most(MIB):
        line = refusal(path)
    assert "zip bomb" in line
    assert f"{40 * MAX_BYTES:,}" in line


def test_one_huge_member_is_that_photos_reason_and_not_inflated(tmp_path):
    huge, good = Entry("1.jpg", inflating_to(1024 * MIB), 1024 * MIB), stored("2.jpg", b"good")
    path = forge(tmp_path / "a.zip", [huge, good])
    with allocating_at_most(3 * MIB):
        first, second = read_all(path)
    assert reason(first) == "larger than 32 MiB"
    assert second == b"good"


@pytest.mark.parametrize(("declared", "limit"), [(0, MIB), (10, MIB), (MIB, 4 * MIB), (MAX_BYTES, 4 * MAX_BYTES)])
def test_a_directory_that_lies_about_a_size_does_not_cost_memory(tmp_path, declared, limit):
    path = forge(tmp_path / "a.zip", [Entry("1.jpg", inflating_to(1024 * MIB), declared, 1)])
    sources.scan(path)
    with allocating_at_most(limit + 3 * MIB):
        (item,) = read_all(path)
    assert reason(item) == "doesn't match its size or checksum in the archive"


def test_a_bomb_is_not_inflated_beyond_the_limit(tmp_path):
    """The directory may lie: this member says 10 bytes and inflates to 64 MiB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("1.jpg", bytes(2 * MAX_BYTES))
    data = bytearray(buffer.getvalue())
    struct.pack_into("<I", data, data.index(b"PK\x03\x04") + 22, 10)
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 10)
    (tmp_path / "bomb.zip").write_bytes(data)
    assert isinstance(read_all(str(tmp_path / "bomb.zip"))[0], ImageError)


def test_a_member_shorter_than_declared_is_that_photos_reason(tmp_path):
    data = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = data.compress(b"abc") + data.flush()
    entries = [Entry("1.jpg", packed, 9, zlib.crc32(b"abc")), stored("2.jpg", b"good")]
    first, second = read_all(forge(tmp_path / "a.zip", entries))
    assert reason(first) == "doesn't match its size or checksum in the archive"
    assert second == b"good"


def test_a_bzip2_bomb_is_never_inflated(tmp_path):
    bomb = bz2.compress(bytes(40 * MIB))
    entries = [Entry("1.jpg", bomb, 1000, method=zipfile.ZIP_BZIP2), stored("2.jpg", b"good")]
    path = forge(tmp_path / "a.zip", entries)
    with allocating_at_most(MIB):
        first, second = read_all(path)
    assert reason(first) == "is compressed by bzip2, which isn't read"
    assert second == b"good"


@pytest.mark.parametrize(
    ("method", "name"),
    [(9, "Deflate64"), (12, "bzip2"), (14, "LZMA"), (93, "Zstandard"), (98, "PPMd"), (77, "method 77")],
)
def test_an_archive_packed_in_another_way_is_refused_as_a_whole(tmp_path, method, name):
    entries = [Entry(f"cat.{i}.jpg", b"xyz", 3, method=method) for i in range(3)]
    assert f"cat.0.jpg is compressed by {name}" in refusal(forge(tmp_path / "a.zip", entries))


def test_an_encrypted_archive_is_refused_as_a_whole(tmp_path):
    entries = [Entry(f"cat.{i}.jpg", b"xyz", 3, flags=1) for i in range(3)]
    assert "cat.0.jpg is encrypted" in refusal(forge(tmp_path / "a.zip", entries))


def test_an_encrypted_member_is_that_photos_error(tmp_path):
    """Only the flag is set: the reader must not even get as far as a wrong password."""
    data = bytearray(Path(make_zip(tmp_path / "a.zip", {"1.jpg": b"one", "2.jpg": b"two"})).read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        position = data.index(signature) + offset
        (flags,) = struct.unpack_from("<H", data, position)
        struct.pack_into("<H", data, position, flags | 1)
    (tmp_path / "encrypted.zip").write_bytes(data)
    path = str(tmp_path / "encrypted.zip")
    first, second = sources.read(path, sources.scan(path).photos)
    assert isinstance(first, ImageError)
    assert "encrypted" in first.what
    assert second == b"two"


def test_equal_damage_has_equal_reasons(tmp_path):
    """They are counted; a file's name in each would tell nothing of how many there are."""
    entries = [Entry(f"{i}.jpg", b"x", 1, 5, zipfile.ZIP_STORED) for i in range(5)]
    assert {reason(item) for item in read_all(forge(tmp_path / "a.zip", entries))} == {
        "doesn't match its size or checksum in the archive"
    }


def test_bytes_in_front_of_a_zip_are_ignored(tmp_path):
    path = Path(make_zip(tmp_path / "a.zip", {"cat.1.jpg": b"one", "dog.1.jpg": b"two"}))
    path.write_bytes(b"#!/bin/sh\nexit 1\n" * 99 + path.read_bytes())
    assert read_all(str(path)) == [b"one", b"two"]


def test_a_name_that_is_not_the_utf8_it_claims_to_be_is_refused(tmp_path):
    path = Path(make_zip(tmp_path / "a.zip", {"caté.1.jpg": b"one"}))
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xff\xff"))
    assert "can't be opened as a zip" in refusal(str(path))


def test_an_archive_replaced_meanwhile_is_read_anew(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"1.jpg": b"one", "2.jpg": b"two"})
    photos = sources.scan(path).photos
    make_zip(tmp_path / "b.zip", {"2.jpg": b"new two"})
    os.replace(tmp_path / "b.zip", path)
    first, second = sources.read(path, photos)
    assert reason(first) == "is no longer in the archive"
    assert second == b"new two"


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_truncated_zip_is_refused_as_a_whole(tmp_path, share):
    whole = Path(make_zip(tmp_path / "whole.zip", below("train", KAGGLE))).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match="neither a folder nor a whole zip"):
        sources.scan(str(tmp_path / "cut.zip"), CLASSES)


def test_a_zip_of_a_later_version_is_a_data_error(tmp_path):
    data = bytearray(Path(make_zip(tmp_path / "a.zip", {"1.jpg": b"1"})).read_bytes())
    struct.pack_into("<H", data, data.index(b"PK\x01\x02") + 6, 90)
    (tmp_path / "b.zip").write_bytes(data)
    with pytest.raises(DataError):
        sources.scan(str(tmp_path / "b.zip"))


@pytest.mark.parametrize("size", [0, 28, 64, 65, 4_000])
def test_whatever_extra_fields_stand_before_it_a_photo_is_read_whole(tmp_path, size):
    path = tmp_path / "train.zip"
    info = zipfile.ZipInfo("cat.1.jpg")
    info.extra = struct.pack("<HH", 0xCAFE, size - 4) + bytes(size - 4) if size else b""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, bytes(range(256)))
        archive.writestr("cat.2.jpg", b"the next one")
    photos = sources.scan(str(path)).photos
    assert list(sources.read(str(path), photos)) == [bytes(range(256)), b"the next one"]


def test_a_damaged_member_is_that_photos_error(tmp_path):
    members = {"1.jpg": os.urandom(500), "2.jpg": b"two"}
    data = bytearray(Path(make_zip(tmp_path / "a.zip", members)).read_bytes())
    data[200] ^= 0xFF
    (tmp_path / "damaged.zip").write_bytes(data)
    path = str(tmp_path / "damaged.zip")
    first, second = sources.read(path, sources.scan(path).photos)
    assert isinstance(first, ImageError)
    assert second == b"two"


def test_any_damage_to_a_compressed_member_is_an_image_error_or_shows_no_difference(tmp_path):
    content = bytes(range(256)) * 20
    data = Path(make_zip(tmp_path / "a.zip", {"1.jpg": content}, compression=zipfile.ZIP_DEFLATED)).read_bytes()
    start = data.index(b"1.jpg") + 5
    for position in range(start, data.index(b"PK\x01\x02"), 7):
        path = tmp_path / f"{position}.zip"
        path.write_bytes(data[:position] + bytes([data[position] ^ 0x5A]) + data[position + 1 :])
        item = read_all(str(path))[0]
        assert isinstance(item, ImageError) or item == content


def test_any_damage_to_a_zip_is_a_refusal_or_a_reason(tmp_path):
    whole = Path(make_zip(tmp_path / "a.zip", {f"train/cat.{i}.jpg": bytes([i]) * 90 for i in range(4)})).read_bytes()
    directory = whole.index(b"PK\1\2")
    rng = random.Random(0)
    outcomes, lines = set(), []
    for i in range(800):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            position = rng.randrange(directory if i % 4 else 0, len(data))
            data[position] = rng.choice((rng.randrange(256), data[position] ^ 1 << rng.randrange(8), 0, 255))
        if i % 5 == 0:
            cut = rng.randrange(len(data))
            del data[cut : cut + rng.randint(1, 60)]
        path = tmp_path / f"{i}.zip"
        path.write_bytes(data)
        try:
            items = read_all(str(path))
        except PawcastError as error:
            outcomes.add(type(error))
            lines.append(str(error))
        else:
            outcomes |= {type(item) for item in items}
            assert all(len(reason(item)) < 90 for item in items if not isinstance(item, bytes))
        path.unlink()
    assert all(line.isprintable() for line in lines)
    assert outcomes == {bytes, ImageError, DataError}
    assert [file.name for file in tmp_path.iterdir()] == ["a.zip"]
