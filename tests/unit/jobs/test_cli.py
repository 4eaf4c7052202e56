"""The `pawcast` command: every job is a subcommand, explained in its help."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from pawcast_jobs import cli

import pawcast
from pawcast.client.bulk import BulkOptions
from pawcast.data.report import CheckLimits

JOBS = Path(cli.__file__).parent


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pawcast_jobs.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={"COLUMNS": "80", "HOME": "/"})


def module_of(name: str) -> str:
    return name.replace("-", "_")


def test_every_job_is_a_subcommand():
    files = {path.stem for path in JOBS.glob("*.py")} - {"__init__", "cli"}
    assert {module_of(name) for name in cli.COMMANDS} == files


def test_the_help_lists_every_command_with_a_whole_sentence():
    done = run("--help")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in lines] == list(cli.COMMANDS)
    assert all(line.endswith(".") and not line.endswith("..") for line in lines)


def test_the_version_and_a_wrong_command():
    assert run("--version").stdout == f"pawcast {pawcast.__version__}\n"
    assert run("nothing").returncode == 2
    assert "Usage: pawcast" in run().stdout + run().stderr


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_help_of_a_command(name):
    done = run(name, "--help")
    assert done.returncode == 0, done.stderr
    assert f"Usage: pawcast {name} " in done.stdout
    assert done.stdout.count(f"Example: pawcast {name}") == 1
    assert done.stdout.count("Exit codes:") == 1
    assert "--json" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_job_file_needs_only_the_library_to_be_imported(name):
    """`ray job submit … -- python jobs/NAME.py` sets PYTHONPATH=platform and nothing else."""
    source = (JOBS / f"{module_of(name)}.py").read_text()
    top = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert not [line for line in top if "pawcast_" in line]


def test_defaults_of_options_are_those_of_the_library():
    bulk = inspect.signature(import_module("pawcast_jobs.bulk_predict").main).parameters
    assert {name: bulk[name].default for name in BulkOptions._fields} == BulkOptions()._asdict()
    ingest = import_module("pawcast_jobs.ingest").main
    options = inspect.signature(ingest, eval_str=True).parameters
    library = inspect.signature(pawcast.ingest).parameters
    for name in ("test_size", "val_fraction", "seed", "min_side"):
        assert options[name].default == library[name].default
    (limit,) = options["limit"].annotation.__metadata__
    limits = ", ".join(f"{name}={share:g}" for name, share in CheckLimits())
    assert f"[default: {limits}]" in limit.help
