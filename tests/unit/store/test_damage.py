"""Any damage to any object that a job leaves is noticed by whoever reads it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pawcast.client import journal as journals
from pawcast.client.journal import Journal, JournalHeader, PredictionRow
from pawcast.errors import ConflictError, IntegrityError
from tests.support.damage import try_damages
from tests.support.memory_store import MemoryStore
from tests.support.store_contract import check_contract
from tests.support.whole_job import write_jobs

HEADER = JournalHeader("test1.zip", 96, "ab" * 32, "catdog@1", "cd" * 32)
BATCHES = {
    start: [PredictionRow(str(i), f"{i}.jpg", i / 100, None) for i in range(start, start + 8)]
    for start in range(0, 96, 8)
}


def test_the_store_of_these_tests_keeps_the_contract():
    check_contract(MemoryStore())


@pytest.mark.parametrize(("trials", "seed"), [(200, 0), pytest.param(2_000, 1, marks=pytest.mark.long)])
def test_no_damage_to_a_store_goes_unnoticed(trials, seed):
    store = MemoryStore()
    write_jobs(store)
    assert try_damages(store.values, trials, seed) == []


@pytest.mark.parametrize(("trials", "seed"), [(50, 0), pytest.param(1_000, 1, marks=pytest.mark.long)])
def test_no_damage_to_a_journal_goes_unnoticed(tmp_path: Path, trials: int, seed: int) -> None:
    with Journal(tmp_path, HEADER) as journal:
        for start, rows in BATCHES.items():
            journal.append(start, rows)
    path, picked = tmp_path / journals.NAME, random.Random(seed)
    whole = path.read_bytes()
    lines: list[str] = []
    for trial in range(trials):
        data = bytearray(whole)
        if trial % 4:
            data[picked.randrange(len(data))] ^= 1 << picked.randrange(8)
        else:
            del data[picked.randrange(1, len(data)) :]
        path.write_bytes(data)
        try:
            with Journal(tmp_path, HEADER) as journal:
                # SQLite doesn't use every byte of its file.
                assert journal.batches == BATCHES
        except (IntegrityError, ConflictError) as error:
            lines.append(str(error))
    assert len(lines) > trials / 4
    assert all(str(path) in line for line in lines)


def test_an_empty_journal_begins_again_and_says_so(tmp_path, caplog):
    (tmp_path / journals.NAME).write_bytes(b"")
    with Journal(tmp_path, HEADER) as journal:
        assert journal.batches == {}
    assert "bulk.sqlite is empty" in caplog.text
