"""A folder: links and devices are never opened, and a file that changes costs one photo."""

from __future__ import annotations

import os
from pathlib import Path

from pawcast.data import sources
from pawcast.errors import ImageError
from tests.support.files import make_folder
from tests.support.sources import read_all, reason, refusal


def test_a_fifo_or_device_in_a_folder_is_never_opened(tmp_path):
    path = make_folder(tmp_path / "a", {"cat.1.jpg": b"1"})
    os.mkfifo(tmp_path / "a" / "cat.2.jpg")
    assert read_all(path) == [b"1"]


def test_what_changes_between_scan_and_read_is_a_reason(tmp_path):
    path = make_folder(tmp_path / "a", {f"{i}.jpg": b"1" for i in range(5)} | {"secret.txt": b"secret"})
    photos = sources.scan(path).photos
    paths = [tmp_path / "a" / photo.member for photo in photos]
    for file in paths[:4]:
        file.unlink()
    os.mkfifo(paths[0])
    paths[1].symlink_to(tmp_path / "a" / "secret.txt")
    paths[2].mkdir()
    contents = list(sources.read(path, photos))
    assert [reason(item) for item in contents[:4]] == [
        "is not a regular file",
        "can't be read (Too many levels of symbolic links)",
        "can't be read (Is a directory)",
        "can't be read (No such file or directory)",
    ]
    assert contents[4] == b"1"


def test_a_photo_that_vanished_is_its_own_error(tmp_path):
    path = make_folder(tmp_path / "a", {"1.jpg": b"1", "2.jpg": b"2"})
    photos = sources.scan(path).photos
    (tmp_path / "a" / "1.jpg").unlink()
    first, second = sources.read(path, photos)
    assert isinstance(first, ImageError)
    assert second == b"2"


def test_a_folder_that_leads_back_to_itself_is_walked_once(tmp_path):
    path = make_folder(tmp_path / "a", {"b/cat.1.jpg": b"1"})
    (tmp_path / "a" / "b" / "again").symlink_to(tmp_path / "a")
    assert len(sources.scan(path).photos) == 1


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    """Photos must not be missed in silence."""
    path = make_folder(tmp_path / "a", {"cat/1.jpg": b"1", "dog/1.jpg": b"1"})
    listed = os.scandir

    def scandir(file):
        if Path(file).name == "dog":
            raise PermissionError(13, "Permission denied", str(file))
        return listed(file)

    monkeypatch.setattr(os, "scandir", scandir)
    line = refusal(path)
    assert "dog can't be listed" in line
    assert "Permission denied" in line


def test_a_file_that_cannot_be_read_is_a_reason(tmp_path, monkeypatch):
    path = make_folder(tmp_path / "a", {"1.jpg": b"1", "2.jpg": b"2"})
    photos = sources.scan(path).photos
    opened = os.open

    def open_(file, *rest):
        if Path(file).name == "1.jpg":
            raise PermissionError(13, "Permission denied")
        return opened(file, *rest)

    monkeypatch.setattr(os, "open", open_)
    first, second = sources.read(path, photos)
    assert reason(first) == "can't be read (Permission denied)"
    assert second == b"2"
