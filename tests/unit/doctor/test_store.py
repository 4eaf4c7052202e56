from __future__ import annotations

import pytest

from pawcast.doctor import store
from pawcast.errors import StoreError
from pawcast.store import open_store
from pawcast.store.folder import FolderStore


def test_a_folder_passes_every_check_and_keeps_nothing(tmp_path):
    kept = open_store(str(tmp_path))
    kept.put("k", b"x")
    findings = list(store.check(str(tmp_path)))
    assert [finding.check for finding in findings] == ["read_write", "conditional_writes", "arrow"]
    assert {finding.level for finding in findings} == {"ok"}
    assert list(kept.list("")) == ["k"]
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


def problems(monkeypatch, tried: FolderStore) -> dict[str, store.Finding]:
    monkeypatch.setattr(store, "open_store", lambda uri: tried)
    return {finding.check: finding for finding in store.check("") if finding.level != "ok"}


class Unconditional(FolderStore):
    """A store that accepts every write, as servers do that don't know conditional requests."""

    def put_if_absent(self, key: str, data: bytes, sha256: str | None = None) -> bool:
        self.put(key, data)
        return True


class Unmatched(FolderStore):
    """A store that knows `If-None-Match`, but ignores `If-Match`."""

    def put_if_match(self, key: str, data: bytes, etag: str) -> bool:
        self.put(key, data)
        return True


@pytest.mark.parametrize("kind", [Unconditional, Unmatched])
def test_a_store_that_ignores_conditions_is_a_problem(monkeypatch, tmp_path, kind):
    (finding,) = problems(monkeypatch, kind(str(tmp_path))).values()
    assert finding.check == "conditional_writes"
    assert "WRITES CAN BE LOST" in finding.seen
    assert "one job at a time" in finding.fix
    assert finding.exit_code == 6


class WrongBytes(FolderStore):
    """A store that returns other bytes."""

    def get(self, key: str) -> bytes:
        return b"something else"


class NoDelete(FolderStore):
    """A store that deletes nothing."""

    def delete(self, key: str) -> None:
        raise StoreError("Never")


@pytest.mark.parametrize("kind", [WrongBytes, NoDelete])
def test_wrong_bytes_or_a_refused_delete_end_the_checks(monkeypatch, tmp_path, kind):
    assert set(problems(monkeypatch, kind(str(tmp_path)))) == {"read_write"}
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_behind_after_an_interrupt(tmp_path):
    tried = open_store(str(tmp_path))

    def interrupted() -> None:
        with store.scratch(tried) as prefix:
            tried.put(f"{prefix}/a/b", b"x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())
