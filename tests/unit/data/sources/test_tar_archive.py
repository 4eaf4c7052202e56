"""A tar, plain or compressed by gzip, is read in place and in any order, and damage is refused."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
from pathlib import Path

import pytest

from pawcast.data import sources
from pawcast.data.sources import container, seekable, tar_archive
from pawcast.errors import DataError, PawcastError
from tests.support.cases import case
from tests.support.files import make_zip
from tests.support.sources import CLASSES, KAGGLE, below, labelled_contents, read_all, refusal


def tar_bytes(files: dict[str, bytes], *others: tarfile.TarInfo, format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in others:
            archive.addfile(info)
    return buffer.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_a_tar_gz_and_a_zip_of_the_same_photos_agree(tmp_path, format):
    data = tar_bytes(below("./train", KAGGLE) | {"train/" + "x" * 120 + "/cat.99.jpg": b"long name"}, format=format)
    files = below("train", KAGGLE) | {"train/" + "x" * 120 + "/cat.99.jpg": b"long name"}
    expected = labelled_contents(make_zip(tmp_path / "a.zip", files))
    assert labelled_contents(write(tmp_path / "a.tar", data)) == expected
    assert labelled_contents(write(tmp_path / "a.tar.gz", gzip.compress(data))) == expected
    assert labelled_contents(write(tmp_path / "no_extension", gzip.compress(data))) == expected
    parts = [gzip.compress(part) for part in (data[:9_000], data[9_000:])]
    assert labelled_contents(write(tmp_path / "b.tgz", b"".join(parts) + bytes(512))) == expected
    outer = make_zip(tmp_path / "outer.zip", {"in/a.tar.gz": gzip.compress(data)})
    assert labelled_contents(f"{outer}/in/a.tar.gz") == expected


def test_members_of_a_large_tar_gz_are_read_in_any_order(tmp_path, monkeypatch):
    monkeypatch.setattr(seekable, "_STEP", 20_000)
    monkeypatch.setattr(seekable, "_CHUNK", 3_000)
    monkeypatch.setattr(seekable, "_MAX_STATES", 16)
    rng = random.Random(2)
    files = {f"{i}.jpg": rng.randbytes(rng.randint(0, 9_000)) + bytes(9_000) for i in range(60)}
    path = write(tmp_path / "a.tar.gz", gzip.compress(tar_bytes(files)))
    photos = sources.scan(path).photos
    order = rng.choices(photos, k=200)
    assert list(sources.read(path, order)) == [files[photo.name] for photo in order]


def test_links_within_a_tar_are_followed_and_others_are_named(tmp_path):
    data = tar_bytes(
        {"a/cat/1.jpg": b"1"},
        link("a/dog/1.jpg", "../cat/1.jpg"),
        link("a/dog/2.jpg", "a/cat/1.jpg", tarfile.LNKTYPE),
        link("a/dog/3.jpg", "2.jpg"),
        link("a/dog/4.jpg", "/etc/passwd"),
        link("a/dog/5.jpg", "5.jpg"),
        link("a/dog/6.jpg", "", tarfile.FIFOTYPE),
        link("a/dog/7.jpg", "", tarfile.CHRTYPE),
    )
    path = write(tmp_path / "a.tar", data)
    assert labelled_contents(path) == [("cat/1", 0, b"1"), *((f"dog/{i}", 1, b"1") for i in (1, 2, 3))]
    assert [(item.kind, item.count) for item in sources.scan(path).left_out] == [("link", 2), ("special", 2)]


def test_links_of_the_case_that_lead_out_are_counted():
    path = str(case("links.tar"))
    listing = sources.scan(path, CLASSES)
    assert len(listing.photos) == 24
    assert [(item.kind, item.count) for item in listing.left_out] == [("link", 56)]


def test_the_pets_of_the_case_are_read():
    assert [label for _, label, _ in labelled_contents(str(case("pets.tar.gz")))] == [0] * 20 + [1] * 20


@pytest.mark.parametrize("name", ["../cat.1.jpg", "/cat.1.jpg", "a/../../cat.1.jpg", r"..\cat.1.jpg"])
def test_a_path_that_leads_out_refuses_the_tar(tmp_path, name):
    assert "leads out" in refusal(write(tmp_path / "a.tar", tar_bytes({name: b"1"})))


@pytest.mark.parametrize("other", ["cat.1.jpg", "CAT.1.jpg", "./cat.1.jpg"])
def test_names_that_collide_are_refused(tmp_path, other):
    members = tar_bytes({"cat.1.jpg": b"1"})[:1024] + tar_bytes({other: b"2"})
    assert "two members of one name" in refusal(write(tmp_path / "a.tar", members))


def test_too_many_members_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_archive, "MAX_MEMBERS", 10)
    assert "more than 10 members" in refusal(write(tmp_path / "a.tar", tar_bytes(KAGGLE)))


def test_a_header_that_asks_for_a_gigabyte_is_refused(tmp_path):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2**30
    data = info.tobuf(tarfile.USTAR_FORMAT) + bytes(2_048)
    assert "too large" in refusal(write(tmp_path / "a.tar", data))


def test_a_gzip_that_inflates_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(container, "_MAX_UNCHECKED", 2**20)
    data = tar_bytes({"cat.1.jpg": bytes(8 * 2**20)})
    assert "archive bomb" in refusal(write(tmp_path / "a.tar.gz", gzip.compress(data)))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_tar_is_refused_as_a_whole(tmp_path, share):
    data = tar_bytes({name: content * 200 for name, content in KAGGLE.items()})
    end = int(len(data.rstrip(b"\0")) * share)
    assert "can't be opened as a tar" in refusal(write(tmp_path / "a.tar", data[:end]))
    packed = gzip.compress(data)
    assert "can't be opened as a tar" in refusal(write(tmp_path / "b.tar.gz", packed[: int(len(packed) * share)]))


def test_a_damaged_header_in_the_middle_does_not_end_the_list_early(tmp_path):
    data = bytearray(tar_bytes(KAGGLE))
    data[10 * 1_024 + 100] ^= 1
    assert "damaged at byte 10,240" in refusal(write(tmp_path / "a.tar", bytes(data)))


def test_any_damage_to_a_tar_is_a_refusal_or_a_reason_and_no_photo_vanishes(tmp_path):
    whole = {"a.tar": tar_bytes(KAGGLE), "a.tar.gz": gzip.compress(tar_bytes(KAGGLE))}
    rng = random.Random(4)
    outcomes, lines = set(), []
    for i in range(300):
        name = ("a.tar", "a.tar.gz")[i % 2]
        data = bytearray(whole[name])
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        try:
            items = read_all(write(tmp_path / name, bytes(data)))
        except PawcastError as error:
            outcomes.add(type(error))
            lines.append(str(error))
        else:
            assert len(items) == len(KAGGLE)
            outcomes |= {type(item) for item in items}
    assert outcomes == {bytes, DataError}
    assert all(line.isprintable() for line in lines)


def test_a_gzip_of_something_else_is_refused(tmp_path):
    assert "can't be opened as a tar" in refusal(write(tmp_path / "a.csv.gz", gzip.compress(b"file,label\n" * 99)))


def test_a_tar_of_archives_says_to_unpack_it(tmp_path):
    assert "Fix: unpack it" in refusal(write(tmp_path / "a.tar", tar_bytes({"train.zip": b"PK\3\4"})))
