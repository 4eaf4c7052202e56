"""A full disk: one clear line, no partial file, and what was stored stays readable."""

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
        pytest.skip("this user may not mount a small disk; the last test mounts it in its own namespace")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Fill the disk up to a few kilobytes."""
    status = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(status.f_bavail * status.f_frsize - 8_192))


def files(disk: Path) -> list[str]:
    """Every file, with hidden and temporary ones, without the locks of `put_if_match`."""
    names = (path.relative_to(disk).as_posix() for path in disk.rglob("*") if path.is_file())
    return sorted(name for name in names if not name.endswith(".lock"))


def test_a_value_that_does_not_fit_changes_nothing(disk):
    store = open_store(str(disk))
    store.put("refs/latest", b"old")
    _, etag = store.get_with_etag("refs/latest")
    large = bytes(2**22)
    for write in (
        lambda: store.put("refs/latest", large),
        lambda: store.put("other", large),
        lambda: store.put_if_absent("new", large),
        lambda: store.put_if_match("refs/latest", large, etag),
    ):
        with pytest.raises(StoreFullError, match="full") as caught:
            write()
        assert "\n" not in str(caught.value)
        assert files(disk) == ["refs/latest"]
        assert store.get("refs/latest") == b"old"
    assert store.put_if_match("refs/latest", b"new", etag)


def test_a_full_disk_can_be_read_and_emptied(disk):
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
    facts = {
        "classes": ["cat", "dog"],
        "seed": 0,
        "source_sha256": "0",
        "splits": {},
        "quarantine": [],
        "report_sha256": "",
    }
    earlier = manifests.Manifest(dataset="pets", **facts)
    manifests.publish(store, earlier)
    before = files(disk)
    fill(disk)
    code, output, errors = job(
        "ingest.py",
        *("--labelled", str(photos.labelled), "--dataset", "pets", "--test-size", "60"),
        *("--store", str(disk), "--json"),
    )
    assert (code, output) == (6, "")
    (line,) = [line for line in errors.splitlines() if not line.startswith(("checking", "writing"))]
    assert line.startswith("error: The store")
    assert "No space left" in line
    assert files(disk) == sorted([*before, "filler"])
    assert manifests.load(store, "pets") == earlier


@pytest.mark.skipif(os.geteuid() == 0, reason="root mounts the disks without a namespace")
def test_this_module_in_a_mount_namespace(tmp_path):
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make a namespace")
    options = ["-p", "no:cacheprovider", f"--basetemp={tmp_path / 'inside'}"]
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, "-m", "pytest", __file__, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout
