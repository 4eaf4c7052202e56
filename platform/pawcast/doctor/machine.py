"""This machine: CPUs, precision, memory, a TensorFlow that starts, and the GPUs it sees."""

from __future__ import annotations

import json
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from pawcast.doctor.finding import Finding, ok, problem, warning
from pawcast.errors import PawcastError
from pawcast.runtime.devices import cpu_info, prefers_bfloat16, usable_cpus

# The names of CPU features in /proc/cpuinfo, and the usual ones.
_FEATURES = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "AVX512-BF16", "amx_bf16": "AMX-BF16"}
_LOW_MEMORY = 4e9
_TENSORFLOW_SECONDS = 180
_TENSORFLOW = """
import json
from pawcast.runtime.tensorflow import configure_tensorflow, tf
gpus = configure_tensorflow()
tf.reduce_sum(tf.ones([8])).numpy()
print(json.dumps([tf.__version__, gpus]))
"""


def check() -> Iterator[Finding]:
    """Check CPUs, memory, TensorFlow and GPUs."""
    yield cpu(cpu_info(), usable_cpus())
    yield memory(_read("/proc/meminfo"), _read("/sys/fs/cgroup/memory.max"))
    finding, visible_gpus = tensorflow()
    yield finding
    try:
        yield gpus(visible_gpus, nvidia_smi())
    except PawcastError as error:
        yield warning("machine", "gpu", error.what, "install or reload NVIDIA's driver, if this machine has a GPU")


def cpu(facts: dict[str, str], cores: int) -> Finding:
    """Return the cores, what `cpu_info` tells about them, and the precision that `auto` chooses."""
    # ARM's kernels say "Features" where x86 kernels say "flags".
    flags = facts.get("flags", facts.get("Features", "")).split()
    features = [name for flag, name in _FEATURES.items() if flag in flags]
    precision = "bfloat16" if prefers_bfloat16(facts) else "float32"
    seen = f"{cores} cores; {', '.join(features) or 'no AVX2'}; precision=auto computes in {precision}"
    if not features and platform.machine() in ("x86_64", "AMD64"):
        return warning("machine", "cpu", seen, "use a newer CPU: training is slow here, and TensorFlow needs AVX")
    return ok("machine", "cpu", seen)


def memory(meminfo: str, limit: str) -> Finding:
    """Return the available memory, by /proc/meminfo and the container's limit, memory.max."""
    match = re.search(r"MemAvailable:\s*(\d+) kB", meminfo)
    if not match:
        return ok("machine", "memory", "unknown on this system")
    available = int(match[1]) * 1_024
    if limit.strip().isdigit():
        available = min(available, int(limit))
    seen = f"{available / 1e9:,.1f} GB available"
    if available < _LOW_MEMORY:
        fix = "end other programs, or train with --workers 1: each worker takes about 1.5 GB"
        return warning("machine", "memory", seen, fix)
    return ok("machine", "memory", seen)


def tensorflow() -> tuple[Finding, int | None]:
    """Start TensorFlow and compute a sum, in a process of its own.

    It takes a GPU's memory, and the system kills it on a CPU that lacks its instructions.

    Returns:
        The finding, and how many GPUs TensorFlow sees; None if it doesn't start.
    """
    command = [sys.executable, "-c", _TENSORFLOW]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TENSORFLOW_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        seen = f"did not start within {_TENSORFLOW_SECONDS} s"
        return problem("machine", "tensorflow", seen, "look at the machine's load"), None
    if done.returncode == 0:
        version, gpus = json.loads(done.stdout.splitlines()[-1])
        return ok("machine", "tensorflow", f"{version} starts and computes"), gpus
    reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    fix = "python -m pip install --force-reinstall --require-hashes -r requirements.lock"
    if done.returncode == -signal.SIGILL:
        reason, fix = "this CPU lacks instructions that TensorFlow is built with (AVX)", "use a newer CPU"
    return problem("machine", "tensorflow", f"doesn't start: {reason}", fix), None


def nvidia_smi() -> list[str]:
    """Return the GPUs that NVIDIA's tool lists: name, driver, compute capability, memory.

    Raises:
        PawcastError: If the tool is there and fails.
    """
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", "--query-gpu=name,driver_version,compute_cap,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired as error:
        raise PawcastError(f"nvidia-smi fails: {error}") from None
    if done.returncode:
        raise PawcastError(f"nvidia-smi fails: {' '.join((done.stdout + done.stderr).split())}")
    return done.stdout.strip().splitlines()


def gpus(visible: int | None, listed: list[str]) -> Finding:
    """Compare how many GPUs TensorFlow sees (None: it doesn't start) with those of `nvidia_smi`."""
    if visible:
        return ok("machine", "gpu", "; ".join(listed) or f"{visible} GPUs")
    if not listed:
        return ok("machine", "gpu", "none; training and serving run on the CPU")
    seen = f"{'; '.join(listed)}: present, but TensorFlow doesn't see it"
    fix = 'pip install "tensorflow[and-cuda]" in the same version, then run the doctor again'
    return warning("machine", "gpu", seen, fix)


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""
