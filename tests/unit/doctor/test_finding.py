from __future__ import annotations

from pawcast.doctor.finding import CheckWarning, Finding, find
from pawcast.errors import StoreError


def failing(error: Exception) -> Finding:
    def check() -> str:
        raise error

    return find("store", "x", check)


def test_a_check_that_ends_well_says_what_it_saw():
    assert find("store", "x", str, 3) == Finding("store", "x", "ok", "3", "", 0)


def test_an_error_keeps_its_message_its_fix_and_its_exit_code():
    finding = failing(StoreError("Not there", received=3, fix="make it"))
    assert finding == Finding("store", "x", "problem", "Not there. Received: 3.", "make it.", 6)


def test_a_warning_has_no_exit_code():
    assert failing(CheckWarning("Slow", fix="wait")) == Finding("store", "x", "warning", "Slow.", "wait.", 0)


def test_an_unexpected_error_is_one_line():
    finding = failing(ZeroDivisionError("much text\nby nought"))
    assert (finding.level, finding.seen, finding.exit_code) == ("problem", "ZeroDivisionError: by nought", 1)
