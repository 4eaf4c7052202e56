"""What this process computes on: CPUs, precision, and TensorFlow's settings, which count before its first operation."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, cast

from pawcast.errors import PawcastError, UsageError

Precision = Literal["float32", "bfloat16"]
_CPUINFO = Path("/proc/cpuinfo")
# NVIDIA's Ampere, the first generation whose tensor cores know bfloat16.
_BFLOAT16_CAPABILITY = (8, 0)


def configure_tensorflow(threads: int | None = None, deterministic: bool = False) -> int:
    """Set up TensorFlow in this process: GPU memory on demand, threads, oneDNN kernels, a quiet log.

    Call it before anything that imports Keras. GPU memory then grows with use instead of being taken whole,
    and goes back to the system when the process ends.

    Args:
        threads: Threads for one operation, normally the CPUs that this process may use; TensorFlow's
            default if None.
        deterministic: Use only operations that give the same bits every time, and refuse the others.

    Returns:
        How many GPUs TensorFlow sees.
    """
    # TensorFlow turns oneDNN off on CPUs without AVX-512; there it made the article's training 1.6 times faster.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if os.environ.setdefault("KERAS_BACKEND", "tensorflow") != "tensorflow":
        raise PawcastError("Wrong Keras backend", received=os.environ["KERAS_BACKEND"], expected="tensorflow")
    with _native_log_silenced():
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
    try:
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
        if threads:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(max(2, threads))
        if deterministic:
            tf.config.experimental.enable_op_determinism()
    except RuntimeError:
        # TensorFlow is in use already (a second model in one process): its first settings stand.
        pass
    return len(gpus)


@contextmanager
def _native_log_silenced() -> Iterator[None]:
    """Drop what native code writes to standard error while the block runs.

    TensorFlow's libraries log some ten lines about absent GPUs before their own log level is in force.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def usable_cpus() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resolve_precision(precision: str = "auto") -> Precision:
    """Return the data type to compute in: what is asked for, or what this machine is fastest at.

    Weights, sums of gradients and the last layer are float32 in either case. Call `configure_tensorflow` first.

    Args:
        precision: `float32`, `bfloat16`, or `auto`: bfloat16 where the GPUs, or else the CPU, are faster in it.

    Raises:
        UsageError: For anything else.
    """
    if precision in ("float32", "bfloat16"):
        return cast(Precision, precision)
    if precision != "auto":
        raise UsageError("Unknown precision", received=repr(precision), expected="auto, float32 or bfloat16")
    import tensorflow as tf

    if gpus := tf.config.list_physical_devices("GPU"):
        found = [tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus]
        return "bfloat16" if min(found) >= _BFLOAT16_CAPABILITY else "float32"
    return "bfloat16" if prefers_bfloat16(cpu_info()) else "float32"


def prefers_bfloat16(facts: dict[str, str]) -> bool:
    """Whether a CPU computes faster in bfloat16 than in float32, by its `cpu_facts`.

    With AMX, and with AVX512-BF16 on AMD's cores, it is taken to be. On 2 cores of a Xeon that has AVX512-BF16 and no
    AMX a step of `article` took 1.33 s in bfloat16 and 0.92 s in float32. Without either, bfloat16 is emulated.
    """
    flags = facts.get("flags", "").split()
    return "amx_bf16" in flags or ("avx512_bf16" in flags and facts.get("vendor_id") == "AuthenticAMD")


def cpu_info() -> dict[str, str]:
    """What Linux tells of the first CPU, by its names; nothing where there is no `/proc`."""
    try:
        first, _, _ = _CPUINFO.read_text().partition("\n\n")
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
