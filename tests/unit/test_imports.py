"""Modules that must not import heavy libraries: they start fast, or run on small machines."""

from __future__ import annotations

import subprocess
import sys

import pytest

COMPUTING = ("ray", "tensorflow", "keras")
STORING = ("pyarrow", "boto3")
HEAVY = (*COMPUTING, *STORING, "matplotlib")
COMMANDS_HELP = "import sys; sys.argv = ['pawcast', '--help']; from pawcast_jobs import cli; cli.main()"


def loaded(code: str) -> set[str]:
    """Run code in a new process; return which heavy libraries it has imported by its end."""
    report = f"import atexit, sys; atexit.register(lambda: print('\\n', *(m for m in {HEAVY!r} if m in sys.modules)))"
    done = subprocess.run([sys.executable, "-c", f"{report}\n{code}"], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import pawcast",
        "import pawcast; pawcast.get_recipe('article', epochs=3); pawcast.Workers",
        "import pawcast.errors, pawcast.core.command, pawcast.core.settings, pawcast.core.plugins",
        "import pawcast.recipes",
        "import pawcast.client.bulk, pawcast.client.photos, pawcast.client.submission",
        "import pawcast.store",
        "import pawcast.doctor",
        COMMANDS_HELP,
    ],
)
def test_needs_no_heavy_library(code):
    assert loaded(code) == set()


@pytest.mark.parametrize(
    "code",
    [
        "import pawcast.data.reader, pawcast.evaluation.reports.gallery",
        "import tempfile, pawcast; pawcast.open_store(tempfile.mkdtemp()).put('a', b'')",
        "import pawcast.registry",
    ],
)
def test_needs_neither_ray_nor_tensorflow(code):
    assert not loaded(code) & set(COMPUTING)


@pytest.mark.parametrize("module", ["pawcast.training.trainer", "pawcast.training.runs", "pawcast.data.ingest"])
def test_a_driver_needs_no_tensorflow(module):
    assert not loaded(f"import {module}") & {"tensorflow", "keras"}


def test_loading_a_model_needs_no_ray():
    assert "ray" not in loaded("import pawcast.inference.model")
