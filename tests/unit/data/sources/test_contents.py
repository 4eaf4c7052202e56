"""Everything in a source is accounted for: a photo by its first bytes, or left out by its kind."""

from __future__ import annotations

import zipfile

import pytest

from pawcast.data import sources
from pawcast.data.sources import contents
from pawcast.data.sources.opening import kind_of
from tests.support.cases import case
from tests.support.files import make_folder, make_zip
from tests.support.sources import CLASSES, labelled_contents, refusal

JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0"
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
FILES = {
    "cat/1.jpg": JPEG,
    "cat/2": JPEG,
    "cat/3.jfif": JPEG,
    "dog/4.txt": JPEG,
    "dog/5.heic": JPEG,
    "dog/6.HEIC": HEIC,
    "dog/7.jpg.heic": HEIC,
    "dog/8.psd": b"8BPS\0\1",
    "dog/9.nef": b"MM\0*\0\0\0\x08",
    "notes.md": b"# Notes",
    "utf16.txt": "notes".encode("utf-16"),
    "empty": b"",
    "more.zip": b"PK\3\4",
    "more.tar": b"\0" * 257 + b"ustar\0" + b"\0" * 249,
    "film.mp4": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom",
    "train.parquet": b"PAR1\0\0",
    "weights.bin": bytes(range(40)),
    ".hidden.jpg": JPEG,
    ".private/cat.1.jpg": JPEG,
    ".private/cat.2.jpg": JPEG,
    "cat/.DS_Store": b"\0\0\0\1Bud1",
    "cat/Thumbs.db": b"\xd0\xcf\x11\xe0",
    "cat/desktop.ini": b"[.ShellClassInfo]",
    "cat/._1.jpg": b"\0\5\x16\7",
    "__MACOSX/cat/._1.jpg": b"\0\5\x16\7",
    "__MACOSX/cat/8.jpg": JPEG,
    ".git/config": b"[core]",
}


@pytest.mark.parametrize("make", [make_zip, make_folder])
def test_every_file_is_a_photo_or_left_out_by_its_kind(tmp_path, make, monkeypatch):
    monkeypatch.setattr(contents, "READABLE", contents.READABLE - {"heic"})
    listing = sources.scan(make(tmp_path / "pets", FILES), CLASSES)
    assert [(photo.name, photo.label) for photo in listing.photos] == [
        ("cat/1.jpg", 0),
        ("cat/2", 0),
        ("cat/3.jfif", 0),
        ("dog/4.txt", 1),
        ("dog/5.heic", 1),
    ]
    assert {item.kind: item.count for item in listing.left_out} == {
        "archive": 2,
        "heic": 2,
        "hidden": 2,
        "text": 2,
        "camera_raw": 1,
        "empty": 1,
        "other": 1,
        "parquet": 1,
        "psd": 1,
        "video": 1,
    }
    assert listing.left_out[1] == sources.LeftOut("heic", 2, ("dog/6.HEIC", "dog/7.jpg.heic"))
    assert listing.left_out[2].examples == (".hidden.jpg", ".private")


def test_heic_is_a_photo_where_it_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "READABLE", contents.READABLE | {"heic"})
    listing = sources.scan(make_folder(tmp_path / "a", {"cat.1.heic": HEIC, "dog.1.jpg": JPEG}), CLASSES)
    assert [photo.name for photo in listing.photos] == ["cat.1.heic", "dog.1.jpg"]
    assert not listing.left_out


def test_examples_are_the_first_three_in_natural_order(tmp_path):
    path = make_folder(tmp_path / "a", {"cat.1.jpg": JPEG} | {f"{i}.txt": b"text" for i in range(12)})
    assert sources.scan(path).left_out == [sources.LeftOut("text", 12, ("0.txt", "1.txt", "2.txt"))]


@pytest.mark.parametrize("head", [b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8 "])
def test_an_image_of_another_format_than_its_extension_is_a_photo(tmp_path, head):
    assert len(sources.scan(make_folder(tmp_path / "a", {"cat.1.dat": head})).photos) == 1


def test_text_may_be_cut_off_in_the_middle_of_a_character():
    assert kind_of("ä".encode()[:1] + b"bc") == "text"
    assert kind_of("日本語".encode()[:512]) == "text"


def test_links_within_a_folder_are_followed_and_others_are_named(tmp_path):
    path = make_folder(tmp_path / "a", {"cat/1.jpg": b"1", "dog/1.jpg": b"2", "store/x": JPEG, ".annex/y": b"3"})
    make_folder(tmp_path / "outside", {"9.jpg": b"secret"})
    for name, target in {
        "cat/inside.jpg": "../dog/1.jpg",
        "cat/absolute.jpg": str(tmp_path / "a" / "store" / "x"),
        "cat/annex.jpg": "../.annex/y",
        "cat/outside.jpg": "../../outside/9.jpg",
        "cat/nowhere.jpg": "nothing.jpg",
        "cat/loop.jpg": "loop.jpg",
        "more": "../outside",
        "again": "cat",
        "annex": ".annex",
    }.items():
        (tmp_path / "a" / name).symlink_to(target)
    assert labelled_contents(path) == [
        ("cat/1", 0, b"1"),
        ("cat/absolute", 0, JPEG),
        ("cat/annex", 0, b"3"),
        ("cat/inside", 0, b"2"),
        ("dog/1", 1, b"2"),
    ]
    left_out = sources.scan(path, CLASSES).left_out
    assert [(item.kind, item.count) for item in left_out] == [("link", 5), ("hidden", 1)]
    assert left_out[0].examples == ("annex", "cat/loop.jpg", "cat/nowhere.jpg")


def test_a_link_that_leads_out_after_the_scan_is_not_followed(tmp_path):
    path = make_folder(tmp_path / "a", {"cat.1.jpg": b"1"})
    make_folder(tmp_path / "outside", {"9.jpg": b"secret"})
    link = tmp_path / "a" / "cat.2.jpg"
    link.symlink_to("cat.1.jpg")
    photos = sources.scan(path).photos
    link.unlink()
    link.symlink_to("../outside/9.jpg")
    first, second = sources.read(path, photos)
    assert first == b"1"
    assert "symbolic links" in str(second)


def test_links_within_a_zip_are_followed_and_others_are_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("cat/1.jpg", b"1")
        for name, target in {"dog/1.jpg": "../cat/1.jpg", "dog/2.jpg": "1.jpg", "dog/3.jpg": "/etc/passwd"}.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o120777 << 16
            archive.writestr(info, target)
    path = str(tmp_path / "a.zip")
    assert labelled_contents(path) == [("cat/1", 0, b"1"), ("dog/1", 1, b"1"), ("dog/2", 1, b"1")]
    assert sources.scan(path).left_out == [sources.LeftOut("link", 1, ("dog/3.jpg",))]


@pytest.mark.parametrize(
    ("files", "received", "fix"),
    [
        ({"1.heic": HEIC}, "1 heic", "install pillow-heif"),
        ({"a.txt": b"text", "b.txt": b"text"}, "2 text", "name the folder or archive"),
        ({".DS_Store": b""}, "no file", "name the folder or archive"),
    ],
)
def test_a_source_without_photos_tells_what_it_holds(tmp_path, files, received, fix, monkeypatch):
    monkeypatch.setattr(contents, "READABLE", contents.READABLE - {"heic"})
    line = refusal(make_folder(tmp_path / "a", files))
    assert f"Received: {received}." in line
    assert f"Fix: {fix}" in line


def test_links_that_all_lead_out_are_refused_with_a_way_out(tmp_path):
    path = make_folder(tmp_path / "a", {})
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "cat.1.jpg").symlink_to("/etc/hostname")
    assert "Received: 1 link. " in refusal(path)


def test_photos_of_every_extension_are_used():
    assert len(sources.scan(str(case("extensions.zip")), CLASSES).photos) == 33


def test_a_name_that_contradicts_its_folder_is_named():
    listing = sources.scan(str(case("contradict.zip")), CLASSES)
    assert listing.contradictions == [f"cats/dog_bed_photo_{i}.jpg" for i in range(5)]
    assert [photo.label for photo in listing.photos] == [0] * 20 + [1] * 20
