"""A disk that fills up: said so in one line, nothing half-written, and what was there stays readable."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pawcast.data import manifest as manifests
from pawcast.errors import StoreFullError
from pawcast.store import open_store
from tests.support.services import ROOT, job


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty disk of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk; the last test tries it in a namespace of its own")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Leave nothing but a few kilobytes."""
    status = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(status.f_bavail * status.f_frsize - 8_192))


def files(disk: Path) -> list[str]:
    """Every file, hidden and temporary ones too; not what `put_if_match` locks."""
    found = (path.relative_to(disk).as_posix() for path in disk.rglob("*") if path.is_file())
    return sorted(name for name in found if not name.endswith(".lock"))


def test_a_value_that_does_not_fit_changes_nothing(disk):
    store = open_store(str(disk))
    store.put("refs/latest", b"old")
    _, token = store.get_with_etag("refs/latest")
    large = bytes(2**22)
    for write in (
        lambda: store.put("refs/latest", large),
        lambda: store.put("other", large),
        lambda: store.put_if_absent("new", large),
        lambda: store.put_if_match("refs/latest", large, token),
    ):
        with pytest.raises(StoreFullError, match="full") as caught:
            write()
        assert "\n" not in str(caught.value)
        assert files(disk) == ["refs/latest"]
        assert store.get("refs/latest") == b"old"
    assert store.put_if_match("refs/latest", b"new", token)


def test_a_disk_full_to_the_brim_can_be_read_and_emptied(disk):
    store = open_store(str(disk))
    store.put("a/b", b"kept")
    fill(disk)
    with pytest.raises(StoreFullError):
        store.put("a/c", bytes(2**16))
    assert store.get("a/b") == b"kept"
    assert store.exists("a/b")
    assert list(store.list("a/")) == ["a/b"]
    store.delete("filler")
    store.put("a/c", bytes(2**16))


def test_an_ingest_that_does_not_fit_ends_with_one_line(disk, photos):
    store = open_store(str(disk))
    nothing = {
        "classes": ["cat", "dog"],
        "seed": 0,
        "source_sha256": "0",
        "splits": {},
        "quarantine": [],
        "report_sha256": "",
    }
    earlier = manifests.Manifest(dataset="pets", **nothing)
    manifests.publish(store, earlier)
    before = files(disk)
    fill(disk)
    code, output, errors = job(
        "ingest.py", "--labelled", str(photos.labelled), "--dataset", "pets", "--test-size", "60", "--store", str(disk),
        "--json",
    )  # fmt: skip
    assert (code, output) == (6, "")
    (line,) = [line for line in errors.splitlines() if not line.startswith(("checking", "writing"))]
    assert line.startswith("error: The disk under the store")
    assert "is full" in line
    assert files(disk) == sorted([*before, "filler"])
    assert manifests.load(store, "pets") == earlier


@pytest.mark.skipif(os.geteuid() == 0, reason="root has mounted the disks itself")
def test_all_of_this_in_a_namespace_of_its_own(tmp_path):
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may make no namespace to mount a small disk in")
    done = subprocess.run(
        [
            "unshare", "-rm", sys.executable, "-m", "pytest", __file__, "-p", "no:cacheprovider",
            f"--basetemp={tmp_path / 'inside'}",
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
