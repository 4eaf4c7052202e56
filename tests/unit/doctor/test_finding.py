from __future__ import annotations

from pawcast.doctor.finding import Finding, exit_code, failure, ok, problem, warning
from pawcast.errors import StoreError


def test_the_exit_code_is_that_of_the_worst_problem():
    fine = [ok("store", "x", "good"), warning("ray", "y", "slow", "do this")]
    assert exit_code([]) == exit_code(fine) == 0
    assert exit_code([*fine, problem("machine", "x", "bad", "do that")]) == 1
    stored = [*fine, problem("store", "x", "bad", "do that")]
    assert exit_code(stored) == 6
    assert exit_code([problem("ray", "x", "bad", "do that"), *stored]) == 8


def test_an_error_keeps_its_message_its_fix_and_its_exit_code():
    finding = failure("versions", "x", StoreError("Not there", received=3, fix="make it"))
    assert finding == Finding("versions", "x", "problem", "Not there. Received: 3.", "make it.", 6)
    assert failure("store", "x", StoreError("Not there"), "look").fix == "look"


def test_an_unexpected_error_is_one_line():
    finding = failure("store", "x", ZeroDivisionError("by nought\nand more"))
    assert finding.seen == "ZeroDivisionError: by nought and more"
    assert (finding.level, finding.exit_code) == ("problem", 6)
