from __future__ import annotations

from email.utils import formatdate

import pytest

from pawcast.doctor import store
from pawcast.errors import StoreError
from pawcast.store import open_store
from pawcast.store.folder import FolderStore

OPERATIONS = ["put", "get", "list", "put_if_absent", "put_if_match", "arrow", "delete"]


@pytest.mark.parametrize(
    ("ahead", "level", "words"),
    [
        (0, "ok", "0 s"),
        (-30, "ok", "30 s behind"),
        (90, "warning", "90 s ahead"),
        (-1_200, "warning", "1,200 s behind"),
    ],
)
def test_a_clock_that_is_off_is_reported(ahead, level, words):
    now = 1_900_000_000.0
    finding = store.clock(formatdate(now + ahead, usegmt=True), now)
    assert finding.level == level
    assert words in finding.seen


@pytest.mark.parametrize("date", [None, "", "yesterday"])
def test_a_server_without_a_clock_is_a_warning(date):
    assert store.clock(date, 0.0).level == "warning"


def test_a_folder_passes_every_check_and_is_left_as_it_was(tmp_path):
    folder = tmp_path / "not" / "there"
    findings = list(store.check(str(folder)))
    assert [finding.check for finding in findings] == [*OPERATIONS, "space"]
    assert {finding.level for finding in findings if finding.check != "space"} == {"ok"}
    assert not list(tmp_path.iterdir())


def problems(tried: FolderStore) -> dict[str, store.Finding]:
    with store.scratch(tried) as prefix:
        findings = store.try_operations(tried, prefix)
    return {finding.check: finding for finding in findings if finding.level != "ok"}


class Unconditional(FolderStore):
    """A store that accepts every write, as servers do that don't know conditional requests."""

    def put_if_absent(self, key: str, data: bytes, sha256: str | None = None) -> bool:
        self.put(key, data)
        return True

    def put_if_match(self, key: str, data: bytes, etag: str) -> bool:
        self.put(key, data)
        return True


def test_a_store_that_ignores_conditions_is_a_problem(tmp_path):
    found = problems(Unconditional(str(tmp_path)))
    assert set(found) == {"put_if_absent", "put_if_match"}
    assert all("WRITES CAN BE LOST" in finding.seen for finding in found.values())
    assert all("one job at a time" in finding.fix and finding.exit_code == 6 for finding in found.values())


class Broken(FolderStore):
    """A store that returns other bytes and deletes nothing."""

    def get(self, key: str) -> bytes:
        return b"something else"

    def delete(self, key: str) -> None:
        raise StoreError("Never")


def test_wrong_bytes_and_a_refused_delete_are_problems(tmp_path):
    assert {"get", "arrow", "delete"} <= set(problems(Broken(str(tmp_path))))
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_behind_after_an_interrupt(tmp_path):
    tried = open_store(str(tmp_path / "not" / "there"))

    def interrupted() -> None:
        with store.scratch(tried) as prefix:
            tried.put(f"{prefix}/a/b", b"x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_the_values_of_others_are_kept(tmp_path):
    kept = open_store(str(tmp_path / "kept"))
    kept.put("k", b"x")
    assert not problems(kept)
    assert list(kept.list("")) == ["k"]


@pytest.mark.parametrize(("free", "level"), [(4e9, "warning"), (6e9, "ok")])
def test_little_space_is_a_warning(free, level):
    assert store.space("/folder", free).level == level
