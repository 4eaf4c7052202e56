"""The journal of a bulk run: whatever is cut off or damaged, what is read from it was written to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pawcast.client import journal as journals
from pawcast.client.journal import Journal, JournalHeader, PredictionRow
from pawcast.errors import ConflictError, StoreError

SUBJECT = JournalHeader("test1.zip", 9, "ab" * 32, "catdog@3", "cd" * 32)
BATCHES = {
    0: [PredictionRow("1", "t/1.jpg", 0.1 + 0.2, None), PredictionRow("2", "t/2\udcff\n.jpg", None, "truncated")],
    4: [PredictionRow("5", "t/5.jpg", 5e-324, None)],
    2: [PredictionRow("3", "t/3.jpg", 1.0, None), PredictionRow("4", "ü 'x'.jpg", 0.0, None)],
}


def written(folder) -> bytes:
    with Journal(folder, SUBJECT) as journal:
        for start, rows in BATCHES.items():
            journal.append(start, rows)
    return (folder / journals.NAME).read_bytes()


def batches(folder, subject: JournalHeader = SUBJECT) -> dict[int, list[PredictionRow]]:
    with Journal(folder, subject) as journal:
        return journal.batches


def test_what_was_appended_is_there_again(tmp_path):
    assert not journals.exists(tmp_path / "new")
    written(tmp_path / "new")
    assert journals.exists(tmp_path / "new")
    assert batches(tmp_path / "new") == BATCHES


def test_cut_anywhere_it_holds_whole_batches_and_goes_on(tmp_path):
    data = written(tmp_path)
    ends = [i for i, byte in enumerate(data, 1) if byte == ord("\n")]
    path = tmp_path / journals.NAME
    for length in range(len(data)):
        path.write_bytes(data[:length])
        whole = max(sum(end <= length for end in ends) - 1, 0)
        with Journal(tmp_path, SUBJECT) as journal:
            assert journal.batches == dict(list(BATCHES.items())[:whole])
            journal.append(7, [PredictionRow("8", "8", 0.5, None)])
        assert len(batches(tmp_path)) == whole + 1


def test_damage_costs_the_batches_that_it_hits_and_no_others(tmp_path):
    data = written(tmp_path)
    path = tmp_path / journals.NAME
    header = data.index(b"\n") + 1
    for at in range(header, len(data) - 1):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        found = batches(tmp_path)
        assert len(found) in (1, 2)
        assert found.items() <= BATCHES.items()
    # What a power cut leaves on some file systems.
    path.write_bytes(data + bytes(50))
    assert batches(tmp_path) == BATCHES
    path.write_bytes(b"x" + data[1:])
    with pytest.raises(ConflictError, match=r"can't be read as a journal.*--fresh"):
        Journal(tmp_path, SUBJECT)


@pytest.mark.parametrize(
    ("other", "line"),
    [
        (SUBJECT._replace(source_digest="00"), r"other photos.*Received: 9 photos.*Expected: the 9 photos.*--fresh"),
        (SUBJECT._replace(total=8), r"other photos.*Received: 8 photos.*--out"),
        (SUBJECT._replace(model="catdog@4"), r"another model.*Received: catdog@4.*Expected: catdog@3.*--fresh"),
        (SUBJECT._replace(weights="ef" * 32), r"another model.*catdog@3 with the weights efef.*cdcd"),
    ],
)
def test_another_subject_is_refused_and_nothing_lost(tmp_path, other, line):
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
    assert batches(tmp_path, SUBJECT._replace(photos="elsewhere.zip")) == BATCHES


def test_one_run_at_a_time_and_a_killed_one_is_none(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from pawcast.client.journal import *;"
        f"journal = Journal(Path(sys.argv[1]), JournalHeader(*{tuple(SUBJECT)!r})); print('open', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout
            assert other.stdout.readline() == "open\n"
            with pytest.raises(ConflictError, match="Another run"):
                Journal(tmp_path, SUBJECT)
        finally:
            other.send_signal(signal.SIGKILL)
    assert batches(tmp_path) == {}


def test_a_removed_journal_is_gone(tmp_path):
    written(tmp_path)
    with Journal(tmp_path, SUBJECT) as journal:
        journal.remove()
    assert list(tmp_path.iterdir()) == []
    assert batches(tmp_path) == {}


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="can't be written"):
        Journal(tmp_path / "file", SUBJECT)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(tmp_path):
    with Journal(tmp_path, SUBJECT) as journal:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, journal._file)
        os.close(full)
        with pytest.raises(StoreError, match="The disk is full"):
            journal.append(0, BATCHES[0])
        assert journal.batches == {}
