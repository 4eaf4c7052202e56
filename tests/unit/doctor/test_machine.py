from __future__ import annotations

import subprocess
import sys

import pytest

from pawcast.doctor import machine
from pawcast.errors import PawcastError


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            "fpu avx avx2 avx512f avx512_bf16 amx_bf16",
            "AVX2, AVX-512, AVX512-BF16, AMX-BF16; precision=auto computes in bfloat16",
        ),
        ("fpu avx avx2 avx512f", "AVX2, AVX-512; precision=auto computes in float32"),
        ("fpu", "no AVX2"),
    ],
)
def test_a_cpu_is_described_by_its_instructions_and_precision(flags, words):
    assert words in machine.cpu({"processor": "0", "flags": flags}, 4).seen


@pytest.mark.parametrize(
    ("available", "limit", "level"),
    [
        (8_000_000, "", "ok"),
        (8_000_000, "max\n", "ok"),
        (8_000_000, "2000000000\n", "warning"),
        (10, "", "warning"),
    ],
)
def test_memory_is_what_is_available_within_the_containers_limit(available, limit, level):
    meminfo = f"MemTotal: 16000000 kB\nMemAvailable: {available} kB\nHugePages_Total: 0\n"
    assert machine.memory(meminfo, limit).level == level


def test_a_system_without_meminfo_is_no_problem():
    finding = machine.memory("", "")
    assert (finding.level, "unknown" in finding.seen) == ("ok", True)


@pytest.mark.parametrize(
    ("visible", "listed", "level", "words"),
    [
        (0, [], "ok", "none"),
        (None, [], "ok", "none"),
        (1, ["NVIDIA H100 80GB HBM3, 550.54.15, 9.0, 81559 MiB"], "ok", "550.54.15"),
        (2, [], "ok", "2 GPUs"),
        (0, ["NVIDIA H100"], "warning", "NVIDIA H100: present, but TensorFlow doesn't see it"),
        (None, ["NVIDIA H100"], "warning", "NVIDIA H100"),
    ],
)
def test_gpus_are_those_that_tensorflow_sees(visible, listed, level, words):
    finding = machine.gpus(visible, listed)
    assert finding.level == level
    assert words in finding.seen


def nvidia_smi(folder, monkeypatch, script: str) -> None:
    """Put a tool of this name on the path."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_nvidias_tool_lists_gpus_or_says_why_not(tmp_path, monkeypatch):
    nvidia_smi(tmp_path, monkeypatch, "echo 'NVIDIA H100, 550.54.15, 9.0, 81559 MiB'")
    assert machine.nvidia_smi() == ["NVIDIA H100, 550.54.15, 9.0, 81559 MiB"]
    nvidia_smi(tmp_path, monkeypatch, "echo no driver; exit 9")
    with pytest.raises(PawcastError, match="nvidia-smi fails: no driver"):
        machine.nvidia_smi()
    (tmp_path / "nvidia-smi").unlink()
    assert machine.nvidia_smi() == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise SystemExit('libcuda is broken')", "doesn't start: libcuda is broken"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "lacks instructions"),
        ("import time; time.sleep(60)", "did not start within"),
    ],
)
def test_a_tensorflow_that_does_not_start_is_a_problem(monkeypatch, code, words):
    monkeypatch.setattr(machine, "_TENSORFLOW", code)
    monkeypatch.setattr(machine, "_TENSORFLOW_SECONDS", 3)
    finding, visible = machine.tensorflow()
    assert (finding.level, visible) == ("problem", None)
    assert words in finding.seen


def test_the_doctor_imports_no_tensorflow_and_no_ray():
    code = "import sys, pawcast.doctor; assert not {'tensorflow', 'keras', 'ray'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
