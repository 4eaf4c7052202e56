"""The wrapper around every command: `--json`, exit codes and errors in one line."""

from __future__ import annotations

import json
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner, Result

from pawcast.core import command
from pawcast.core.command import ErrorWithResult
from pawcast.errors import DataError


def run(job: command.Command, *arguments: str) -> Result:
    app = command.new_app(add_completion=False)
    command.add(app, job)
    return CliRunner().invoke(app, arguments)


def double(
    number: Annotated[int, typer.Option(min=0, help="Any number.")] = 1,
) -> tuple[command.Result, str]:
    """Double a number.

    Example: double --number 3
    """
    return {"double": 2 * number}, f"twice {number} is {2 * number}\n\n"


def test_a_result_is_text_for_people_and_json_for_machines():
    assert run(double, "--number", "3").stdout == "twice 3 is 6\n"
    assert json.loads(run(double, "--number", "3", "--json").stdout) == {"double": 6}


def test_what_a_library_prints_goes_to_standard_error():
    def chatty() -> tuple[command.Result, str]:
        print("a worker died")  # noqa: T201
        return {"done": True}, "done"

    assert (run(chatty).stdout, run(chatty).stderr) == ("done\n", "a worker died\n")


def test_help_has_the_example_on_its_own_line_and_the_exit_codes():
    lines = [line.strip() for line in run(double, "--help").stdout.splitlines()]
    assert "Double a number." in lines
    assert "Example: double --number 3" in lines
    assert sum(line.startswith("Exit codes: 0 success") for line in lines) == 1


@pytest.mark.parametrize("option", [(), ("--json",)])
def test_an_error_is_one_line_and_an_exit_code(option):
    def fail() -> tuple[command.Result, str]:
        raise DataError("No [photos]", fix="add some")

    result = run(fail, *option)
    assert (result.exit_code, result.stdout, result.stderr) == (4, "", "error: No [photos]. Fix: add some.\n")


def test_an_error_with_a_result_prints_the_result_as_json():
    def fail() -> tuple[command.Result, str]:
        raise ErrorWithResult("2 problems", {"problems": 2}, 8)

    result = run(fail, "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (8, {"problems": 2})
    assert run(fail).stdout == ""


def test_an_interrupt_is_exit_code_130():
    def interrupt() -> tuple[command.Result, str]:
        raise KeyboardInterrupt

    result = run(interrupt)
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "interrupted\n")


def test_a_wrong_option_is_exit_code_2():
    assert run(double, "--number", "-1").exit_code == 2
    assert run(double, "--numbr", "1").exit_code == 2


def test_an_unexpected_exception_is_not_hidden():
    def fail() -> tuple[command.Result, str]:
        raise ZeroDivisionError

    assert isinstance(run(fail).exception, ZeroDivisionError)
