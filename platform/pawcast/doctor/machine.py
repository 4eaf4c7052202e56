"""This machine: the packages, a TensorFlow that starts, and the GPUs that it sees."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pawcast.doctor.finding import CheckWarning, Finding, find, last_line
from pawcast.errors import PawcastError

_TENSORFLOW_SECONDS = 180
_REINSTALL = "python -m pip install --force-reinstall --require-hashes -r requirements.lock"
_TENSORFLOW = """
import json
from pawcast.runtime.tensorflow import configure_tensorflow, tf
gpus = configure_tensorflow()
tf.reduce_sum(tf.ones([8])).numpy()
print(json.dumps([tf.__version__, gpus]))
"""


def check() -> Iterator[Finding]:
    """Check the packages, TensorFlow and the GPUs."""
    yield find("machine", "packages", packages, metadata.requires("pawcast"))
    yield find("machine", "tensorflow", tensorflow)


def packages(requirements: list[str]) -> str:
    """Compare the installed packages with requirements, extras and other platforms aside."""
    installed = {canonicalize_name(found.name): found.version for found in metadata.distributions()}
    unmet = []
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            version = installed.get(canonicalize_name(requirement.name), "")
            if not version or not requirement.specifier.contains(version, prereleases=True):
                unmet.append(f"{requirement} (here {version or 'not installed'})")
    if unmet:
        raise PawcastError("Pawcast requires other packages", expected=", ".join(unmet), fix=_REINSTALL)
    return "as Pawcast requires"


def tensorflow() -> str:
    """Start TensorFlow, compute a sum, and look for a GPU that it doesn't see."""
    done = run_python(_TENSORFLOW, seconds=_TENSORFLOW_SECONDS)
    if done.returncode:
        reason = f"exit code {done.returncode}, {last_line(done.stderr)}"
        fix = f"{_REINSTALL}; after exit code -4 use a CPU with AVX"
        raise PawcastError("TensorFlow doesn't start", received=reason, fix=fix)
    version, visible = json.loads(last_line(done.stdout))
    listed = nvidia_smi()
    if listed and not visible:
        fix = 'pip install "tensorflow[and-cuda]" in the same version, then run the doctor again'
        raise CheckWarning(f"TensorFlow sees no GPU, but there is {'; '.join(listed)}", fix=fix)
    return f"TensorFlow {version} computes on {'; '.join(listed) or 'the CPU'}"


def nvidia_smi() -> list[str]:
    """Return the GPUs that NVIDIA's tool lists: name, driver, compute capability, memory.

    Raises:
        CheckWarning: If the tool is there and fails.
    """
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", "--query-gpu=name,driver_version,compute_cap,memory.total", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        message = " ".join((done.stdout + done.stderr).split())
        raise CheckWarning(f"nvidia-smi fails: {message}", fix="install or reload NVIDIA's driver")
    return done.stdout.strip().splitlines()


def run_python(code: str, *arguments: str, seconds: float) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own: TensorFlow and Ray can hang, or end their process.

    Raises:
        PawcastError: If it takes longer than some seconds.
    """
    command = [sys.executable, "-c", code, *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise PawcastError(f"No answer within {seconds} s", fix="look at the load of this machine") from None
