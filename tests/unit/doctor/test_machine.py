from __future__ import annotations

import json

import pytest

from pawcast.doctor import machine
from pawcast.doctor.finding import CheckWarning
from pawcast.errors import PawcastError

GPU = "NVIDIA H100 80GB HBM3, 550.54.15, 9.0, 81559 MiB"


def test_unmet_requirements_are_a_problem_but_not_those_of_extras_and_other_systems():
    met = ["numpy>=1", "Pillow", "mypy>=99; extra == 'dev'", "pywin32; sys_platform == 'nowhere'"]
    assert machine.packages(met) == "as Pawcast requires"
    with pytest.raises(PawcastError, match=r"numpy>=99 \(here \d.*\), no-such-package \(here not installed\)"):
        machine.packages([*met, "numpy>=99", "no-such-package"])


def test_this_environment_meets_all_requirements():
    assert machine.packages(machine.metadata.requires("pawcast"))


def nvidia_smi(folder, monkeypatch, script: str) -> None:
    """Put a tool of this name on the path."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_nvidias_tool_lists_gpus_or_says_why_not(tmp_path, monkeypatch):
    nvidia_smi(tmp_path, monkeypatch, f"echo '{GPU}'")
    assert machine.nvidia_smi() == [GPU]
    nvidia_smi(tmp_path, monkeypatch, "echo no driver; exit 9")
    with pytest.raises(CheckWarning, match="nvidia-smi fails: no driver"):
        machine.nvidia_smi()
    (tmp_path / "nvidia-smi").unlink()
    assert machine.nvidia_smi() == []


@pytest.mark.parametrize(("visible", "listed", "words"), [(0, [], "the CPU"), (1, [GPU], "H100"), (0, [GPU], None)])
def test_gpus_that_tensorflow_does_not_see_are_a_warning(monkeypatch, visible, listed, words):
    monkeypatch.setattr(machine, "_TENSORFLOW", f"print('noise'); print({json.dumps(json.dumps(['2.0', visible]))})")
    monkeypatch.setattr(machine, "nvidia_smi", lambda: listed)
    if words:
        assert words in machine.tensorflow()
    else:
        with pytest.raises(CheckWarning, match="sees no GPU, but there is NVIDIA H100"):
            machine.tensorflow()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise SystemExit('libcuda is broken')", "exit code 1, libcuda is broken"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "exit code -4.*use a CPU with AVX"),
        ("import time; time.sleep(60)", "No answer within 1 s"),
    ],
)
def test_a_tensorflow_that_does_not_start_is_a_problem(monkeypatch, code, words):
    monkeypatch.setattr(machine, "_TENSORFLOW", code)
    monkeypatch.setattr(machine, "_TENSORFLOW_SECONDS", 1)
    with pytest.raises(PawcastError, match=words):
        machine.tensorflow()
