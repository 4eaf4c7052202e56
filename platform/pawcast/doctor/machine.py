"""What this machine has: CPUs and what they do fast, memory, GPUs, and a TensorFlow that starts."""

from __future__ import annotations

import json
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from pawcast.doctor.finding import Finding, Notes, first_line
from pawcast.runtime.devices import cpu_info, prefers_bfloat16, usable_cpus

# The names that /proc/cpuinfo uses, and ours.
_FEATURES = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "AVX512-BF16", "amx_bf16": "AMX-BF16"}
_LITTLE_MEMORY = 4e9
_TENSORFLOW_SECONDS = 180
# In a process of its own: it takes a second and a GPU's memory, and may be killed on a CPU that it isn't built for.
_TENSORFLOW = """
import json
from pawcast.runtime.tensorflow import configure_tensorflow
configure_tensorflow()
import tensorflow as tf
gpus = tf.config.list_physical_devices("GPU")
details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
total = float(tf.reduce_sum(tf.ones([8])))
print(json.dumps({"version": tf.__version__, "gpus": details, "total": total}))
"""
_CUDA = 'pip install "tensorflow[and-cuda]" in the same version, and run the doctor again'


def check() -> list[Finding]:
    """Look at CPUs, memory, TensorFlow and GPUs."""
    notes = Notes("machine")
    with notes.guarded("cpu"):
        cpu(cpu_info(), usable_cpus(), notes)
    with notes.guarded("memory"):
        memory(_read("/proc/meminfo"), _read("/sys/fs/cgroup/memory.max"), notes)
    with notes.guarded("tensorflow"):
        gpus(tensorflow(notes), nvidia_smi(), notes)
    return notes.findings


def cpu(facts: dict[str, str], cores: int, notes: Notes) -> None:
    """Note the cores and what they do fast, from `cpu_facts`."""
    # ARM's kernels call them features.
    flags = facts.get("flags", facts.get("Features", "")).split()
    if not flags:
        notes.ok("cpu", f"{cores} cores of {platform.machine()}; what they do fast is unknown here")
        return
    features = [name for flag, name in _FEATURES.items() if flag in flags]
    precision = "bfloat16" if prefers_bfloat16(facts) else "float32"
    seen = f"{cores} cores; {', '.join(features) or 'no AVX2'}; precision=auto computes in {precision}"
    if not features and platform.machine() in ("x86_64", "AMD64"):
        notes.warning("cpu", seen, "training will be slow; TensorFlow may not start at all without AVX")
    else:
        notes.ok("cpu", seen)


def memory(info: str | None, limit: str | None, notes: Notes) -> None:
    """Note total and available memory, from the text of /proc/meminfo and a container's limit."""
    values = {}
    for line in (info or "").splitlines():
        name, _, rest = line.partition(":")
        if rest.split()[1:] == ["kB"]:
            values[name] = int(rest.split()[0]) * 1_024
    if "MemTotal" not in values:
        notes.ok("memory", "unknown here")
        return
    total, available = values["MemTotal"], values.get("MemAvailable", values["MemTotal"])
    if limit and limit.strip().isdigit() and int(limit) < total:
        total, available = int(limit), min(available, int(limit))
    seen = f"{available / 1e9:,.1f} of {total / 1e9:,.1f} GB available"
    if available < _LITTLE_MEMORY:
        notes.warning("memory", seen, "end other programs, or train with --workers 1: each worker takes about 1.5 GB")
    else:
        notes.ok("memory", seen)


def tensorflow(notes: Notes) -> list[dict[str, Any]] | None:
    """Start TensorFlow once; return the GPUs that it sees, or None if it doesn't start."""
    command = [sys.executable, "-c", _TENSORFLOW]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TENSORFLOW_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        notes.problem("tensorflow", f"did not start within {_TENSORFLOW_SECONDS} s", "look at the machine's load")
        return None
    if done.returncode == 0:
        answer = json.loads(done.stdout.splitlines()[-1])
        notes.ok("tensorflow", f"{answer['version']} starts and computes")
        found: list[dict[str, Any]] = answer["gpus"]
        return found
    said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    fix = "python -m pip install --force-reinstall --require-hashes -r requirements.lock"
    if done.returncode == -signal.SIGILL:
        said, fix = "this CPU lacks instructions that TensorFlow is built with (AVX)", "use a newer CPU"
    elif done.returncode < 0:
        said = f"killed by signal {-done.returncode}"
    notes.problem("tensorflow", f"doesn't start: {said}", fix)
    return None


def nvidia_smi() -> list[str]:
    """Return the GPUs as NVIDIA's tool lists them: name, driver, compute capability, memory."""
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", "--query-gpu=name,driver_version,compute_cap,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [f"nvidia-smi fails: {first_line(error)}"]
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or [f"exit code {done.returncode}"]
        return [f"nvidia-smi fails: {said[0]}"]
    return [_described(line) for line in done.stdout.splitlines() if line.strip()]


def gpus(seen: list[dict[str, Any]] | None, listed: list[str], notes: Notes) -> None:
    """Note the GPUs that TensorFlow sees (None: it doesn't start) and those that NVIDIA's tool lists."""
    if seen:
        for index, details in enumerate(seen):
            capability = ".".join(str(part) for part in details.get("compute_capability", ()))
            name = f"{details.get('device_name', 'a GPU')}, compute capability {capability or 'unknown'}"
            notes.ok(f"gpu {index}", listed[index] if index < len(listed) else name)
    elif not listed:
        notes.ok("gpu", "none; training and serving run on the CPU")
    elif listed[0].startswith("nvidia-smi fails"):
        notes.warning("gpu", listed[0], "install or reload NVIDIA's driver, if this machine has a GPU")
    elif seen is not None:
        notes.warning("gpu", f"{'; '.join(listed)}: there, but TensorFlow doesn't see it", _CUDA)


def _described(line: str) -> str:
    name, driver, capability, size = (part.strip() for part in [*line.split(","), "?", "?", "?"][:4])
    return f"{name}, driver {driver}, compute capability {capability}, {size}"


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text()
    except OSError:
        return None
