"""Atomic writes: a file appears whole or not at all, and temporary files are removed."""

from __future__ import annotations

import errno
import os
import time

import pytest

from pawcast.core import atomic
from pawcast.errors import StoreError, StoreFullError


def test_write_makes_the_folder_and_replaces_an_older_file(tmp_path):
    target = tmp_path / "a" / "b" / "result.csv"
    atomic.write(target, b"old")
    atomic.write(target, b"new")
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in target.parent.iterdir()] == ["result.csv"]


@pytest.mark.parametrize("durable", [False, True])
def test_a_temporary_file_is_whole_and_lies_beside_its_target(tmp_path, durable):
    target = tmp_path / "new" / "x"
    with atomic.temporary_file(target, b"data", durable=durable) as temporary:
        assert temporary.read_bytes() == b"data"
        assert temporary.parent == target.parent
        assert temporary.name.startswith(atomic.PREFIX)
        os.link(temporary, target)
    assert target.read_bytes() == b"data"
    assert not temporary.exists()


def test_a_temporary_file_is_removed_when_the_block_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic.temporary_file(tmp_path / "x", b"data"):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, StoreFullError), (errno.EACCES, StoreError)])
def test_a_failed_write_is_a_store_error_and_leaves_the_older_file(tmp_path, monkeypatch, number, kind):
    target = tmp_path / "x"
    atomic.write(target, b"old")

    def fail(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(kind) as caught:
        atomic.write(target, b"new")
    assert type(caught.value) is kind
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_sweep_removes_only_old_temporary_files(tmp_path):
    now = time.time()
    for name, age in ((f"{atomic.PREFIX}old", 60), (f"{atomic.PREFIX}new", -60), ("old", 60)):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (now - age, now - age))
    atomic.sweep(tmp_path, now)
    assert {path.name for path in tmp_path.iterdir()} == {f"{atomic.PREFIX}new", "old"}
