"""Atomic writes: a file appears whole or not at all, and temporary files are removed."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from typing import BinaryIO

import pytest

from pawcast.core import atomic
from pawcast.errors import StoreError, StoreFullError


def test_write_makes_the_folder_and_replaces_an_older_file(tmp_path):
    target = tmp_path / "a" / "b" / "result.csv"
    atomic.write(target, b"old")
    atomic.write(target, b"new")
    assert target.read_bytes() == b"new"
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


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_the_umask_decides_who_may_read(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        atomic.write(tmp_path / "x", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == mode


def test_the_file_of_a_killed_writer_is_removed_at_the_next_write_and_no_other(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from pawcast.core import atomic\n"
        "with atomic.temporary_file(Path(sys.argv[1]), b'half'): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path / "x"], check=False).returncode == -signal.SIGKILL
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"half"]
    with atomic.temporary_file(tmp_path / "y", b"living") as living:
        atomic.write(tmp_path / "x", b"new")
        assert {path.name for path in tmp_path.iterdir()} == {living.name, "x"}


def test_a_file_that_is_swept_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    lock, calls = fcntl.flock, []

    def flock(file: BinaryIO, operation: int) -> None:
        calls.append(file.name)
        if len(calls) == 1:
            os.unlink(file.name)  # noqa: PTH108
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    atomic.write(tmp_path / "x", b"data")
    assert (tmp_path / "x").read_bytes() == b"data"
    assert len(set(calls)) == 2
