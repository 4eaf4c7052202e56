"""Photos below `s3://bucket/prefix`, from a small S3 server in another process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pawcast.client.photos import SourcePhotos
from pawcast.data import sources
from pawcast.errors import DataError, NotFoundError, UsageError
from tests.support.cases import case
from tests.support.files import make_folder
from tests.support.services import free_port
from tests.support.sources import CLASSES, labelled_contents, refusal

JPEG = b"\xff\xd8\xff\xe0"
FILES = {f"pets/{name}/{i}.jpg": f"{name} {i}".encode() for name in CLASSES for i in range(40)}
OTHERS = {"pets/cat/photo": JPEG, "pets/notes": b"text", "pets/large.bin": bytes(99_999)}
TABLE = {"table/labels.csv": b"id,breed\na,cat\nb,dog\n", "table/a.jpg": b"1", "table/b.jpg": b"2"}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that holds `FILES`, `OTHERS` and `TABLE` below `s3://bucket/x`."""
    folder, port = make_folder(tmp_path / "objects", FILES | OTHERS | TABLE), free_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, str(case("fakes3.py")), str(port), "ok"]
    with subprocess.Popen(command, env={**os.environ, "PRELOAD": folder}) as process:
        try:
            _await(f"http://127.0.0.1:{port}")
            yield "s3://bucket/x"
        finally:
            process.terminate()


def _await(url: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            httpx.get(url, trust_env=False)
            return
        except httpx.TransportError:
            assert time.monotonic() < deadline, "the server didn't start"


def test_objects_are_photos_by_their_names_and_first_bytes(server):
    listing = sources.scan(f"{server}/pets/", CLASSES)
    assert [(item.kind, item.count) for item in listing.left_out] == [("other", 1), ("text", 1)]
    expected = [(f"{name}/{i}", k, FILES[f"pets/{name}/{i}.jpg"]) for k, name in enumerate(CLASSES) for i in range(40)]
    assert labelled_contents(f"{server}/pets") == [*expected[:40], ("cat/photo", 0, JPEG), *expected[40:]]


def test_a_table_among_the_objects_labels_them(server):
    assert labelled_contents(f"{server}/table") == [("a", 0, b"1"), ("b", 1, b"2")]
    assert labelled_contents(f"{server}/table/labels.csv") == [("a", 0, b"1"), ("b", 1, b"2")]


def test_a_bulk_run_reads_the_objects_and_notices_no_change(server):
    photos = SourcePhotos(f"{server}/pets")
    assert [data for _, data in photos.read(40, 42)] == [JPEG, b"dog 0"]
    assert {item.kind for item in photos.left_out} == {"other", "text"}
    photos.check()


def test_a_prefix_without_objects_says_so(server):
    assert "There is nothing below s3://bucket/nowhere/" in refusal("s3://bucket/nowhere", NotFoundError)
    assert "no such table" in refusal(f"{server}/table/other.csv", NotFoundError)


def test_a_server_that_refuses_is_an_error_of_the_store(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    refusal("s3://bucket/x", UsageError)


def test_other_schemes_are_refused_with_a_way_out():
    for uri in ("gs://bucket/x", "https://example.com/train.zip", "hf://datasets/pets"):
        assert "Fix: download it" in refusal(uri, DataError)
