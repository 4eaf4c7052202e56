"""The journal of a bulk run: what is read from it was written to it, whatever happened."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pawcast.client import journal as journals
from pawcast.client.journal import Journal, JournalHeader, PredictionRow
from pawcast.errors import ConflictError, IntegrityError, StoreError, StoreFullError

HEADER = JournalHeader("test1.zip", 9, "ab" * 32, "catdog@3", "cd" * 32)
BATCHES = {
    0: [PredictionRow("1", "t/1.jpg", 0.1 + 0.2, None), PredictionRow("2", "t/2\udcff\n.jpg", None, "truncated")],
    4: [PredictionRow("5", "t/5.jpg", 5e-324, None)],
    2: [PredictionRow("3", "t/3.jpg", 1.0, None), PredictionRow("4", "ü 'x'.jpg", 0.0, None)],
}
NEXT = [PredictionRow("8", "8", 0.5, None)]


def written(folder: Path) -> bytes:
    with Journal(folder, HEADER) as journal:
        for start, rows in BATCHES.items():
            journal.append(start, rows)
    return (folder / journals.NAME).read_bytes()


def batches(folder: Path, header: JournalHeader = HEADER) -> dict[int, list[PredictionRow]]:
    with Journal(folder, header) as journal:
        return journal.batches


def recovers(folder: Path, data: bytes) -> bool:
    """Return whether a damaged journal can be used; if not, check that an error says so."""
    (folder / journals.NAME).write_bytes(data)
    try:
        with Journal(folder, HEADER) as journal:
            assert journal.batches in (BATCHES, {})
            journal.append(7, NEXT)
            count = len(journal.batches)
        assert len(batches(folder)) == count
        return True
    except IntegrityError as error:
        message = str(error)
    assert "--fresh" in message
    assert "\n" not in message
    # The advice works.
    with Journal(folder, HEADER, fresh=True) as journal:
        assert journal.batches == {}
        journal.append(7, NEXT)
    assert batches(folder) == {7: NEXT}
    return False


def test_appended_batches_are_read_again(tmp_path):
    assert not journals.exists(tmp_path / "new")
    written(tmp_path / "new")
    assert journals.exists(tmp_path / "new")
    assert batches(tmp_path / "new") == BATCHES
    assert [path.name for path in (tmp_path / "new").iterdir()] == [journals.NAME]


def test_a_truncated_journal_recovers_or_says_so(tmp_path):
    data = written(tmp_path)
    assert recovers(tmp_path, data)
    assert recovers(tmp_path, b"")
    for length in range(2, len(data), 97):
        assert not recovers(tmp_path, data[:length])


def test_a_damaged_journal_recovers_or_says_so(tmp_path):
    data = written(tmp_path)
    # Most of the file is free space.
    used = [at for at, byte in enumerate(data) if byte]
    outcomes = [recovers(tmp_path, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]) for at in used[::7]]
    assert not all(outcomes)
    # A power cut leaves zeros on some file systems.
    recovers(tmp_path, data + bytes(50))
    recovers(tmp_path, data[:2000] + bytes(len(data) - 2000))


def test_a_flipped_bit_in_a_score_is_noticed(tmp_path):
    data = written(tmp_path)
    assert data.count(b"5e-324") == 1
    assert not recovers(tmp_path, data.replace(b"5e-324", b"4e-324"))


def test_a_changed_header_is_noticed(tmp_path):
    data = written(tmp_path)
    assert data.count(b"catdog@3") == 1
    assert not recovers(tmp_path, data.replace(b"catdog@3", b"catdog@4"))


def test_a_file_of_another_kind_is_refused(tmp_path):
    assert not recovers(tmp_path, b"0123456789abcdef [1,[]]\n")
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as database:
        database.execute("CREATE TABLE batches (other TEXT)")
    database.close()
    assert not recovers(tmp_path, foreign.read_bytes())


@pytest.mark.parametrize(
    ("other", "line"),
    [
        (HEADER._replace(source_digest="00"), r"other photos.*Received: 9 photos.*Expected: 9 photos.*abab.*--fresh"),
        (HEADER._replace(total=8), r"other photos.*Received: 8 photos.*--out"),
        (HEADER._replace(model="catdog@4"), r"another model.*Received: .*catdog@4.*Expected: .*catdog@3.*--fresh"),
        (HEADER._replace(weights="ef" * 32), r"another model.*catdog@3 .weights efef.*cdcd"),
    ],
)
def test_another_header_is_refused_and_nothing_is_lost(tmp_path, other, line):
    data = written(tmp_path)
    with pytest.raises(ConflictError, match=line) as caught:
        Journal(tmp_path, other)
    assert "\n" not in str(caught.value)
    assert (tmp_path / journals.NAME).read_bytes() == data
    with Journal(tmp_path, other, fresh=True) as journal:
        assert journal.batches == {}
    assert batches(tmp_path, other) == {}


def test_the_same_photos_may_have_another_name(tmp_path):
    written(tmp_path)
    assert batches(tmp_path, HEADER._replace(photos="elsewhere\udcff.zip")) == BATCHES


@contextmanager
def another_run(folder: Path, work: str) -> Iterator[subprocess.Popen[str]]:
    """Open the journal in another process, which works with it until it is killed."""
    code = (
        "import sys, time; from pathlib import Path; from pawcast.client.journal import *\n"
        f"journal = Journal(Path(sys.argv[1]), JournalHeader(*{tuple(HEADER)!r})); print('open', flush=True)\n{work}"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "open\n"
        try:
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


def test_one_run_at_a_time(tmp_path):
    with another_run(tmp_path, "time.sleep(60)"):
        for fresh in (False, True):
            with pytest.raises(ConflictError, match="Another run"):
                Journal(tmp_path, HEADER, fresh)
    # The lock of a killed run is gone with it.
    assert batches(tmp_path) == {}
    with Journal(tmp_path, HEADER), pytest.raises(ConflictError, match="Another run"):
        Journal(tmp_path, HEADER)


def test_a_killed_run_loses_no_recorded_batch(tmp_path):
    work = (
        "start = max(journal.batches, default=-1) + 1\n"
        "while True:\n"
        "    journal.append(start, [PredictionRow(str(start), 'x' * 20_000, 0.5, None)])\n"
        "    print(start, flush=True)\n"
        "    start += 1\n"
    )
    for round_ in range(4):
        with another_run(tmp_path, work) as process:
            assert process.stdout
            last = [int(process.stdout.readline()) for _ in range(3 + round_)][-1]
        assert set(range(last + 1)) <= set(batches(tmp_path))
    with Journal(tmp_path, HEADER) as journal:
        journal.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_removed_journal_is_gone(tmp_path):
    written(tmp_path)
    with Journal(tmp_path, HEADER) as journal:
        journal.append(7, NEXT)
        journal.remove()
    assert list(tmp_path.iterdir()) == []
    assert batches(tmp_path) == {}


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=r"can't be written.*--out"):
        Journal(tmp_path / "file", HEADER)
    (tmp_path / journals.NAME).mkdir()
    with pytest.raises(StoreError, match=r"can't be written.*unable to open.*--out"):
        Journal(tmp_path, HEADER)


def test_a_full_disk_is_one_line(tmp_path):
    with Journal(tmp_path, HEADER) as journal:
        # SQLite gives the same error for its own limit as for a full disk.
        journal._database.execute("PRAGMA max_page_count = 1")
        with pytest.raises(StoreFullError, match="The disk is full"):
            journal.append(0, [PredictionRow("1", "x" * 20_000, 0.5, None)])
        assert journal.batches == {}
    assert batches(tmp_path) == {}
