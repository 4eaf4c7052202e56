"""Shared by the client's tests: a stub of the service, and little patience."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pawcast.client import retry
from tests.support.files import make_folder
from tests.support.stub_service import StubService, running


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.05)


@pytest.fixture
def stub() -> Iterator[StubService]:
    with running() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A folder of thirty photos, one of them bad."""
    files = {f"{i}.jpg": f"photo {i}".encode() for i in range(1, 31)}
    return make_folder(tmp_path / "photos", files | {"7.jpg": b"bad"})
