"""TensorFlow and Keras, imported in one place, quietly and with Pawcast's settings.

Modules that compute import them from here, at their top:

    from pawcast.runtime.tensorflow import keras, tf

Importing this module takes seconds. So what must start fast (`import pawcast`, the commands'
`--help`, the HTTP client, the training driver, the doctor) imports no such module.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from pawcast.errors import PawcastError, UsageError
from pawcast.runtime.devices import Precision, cpu_info, prefers_bfloat16

# NVIDIA's Ampere, the first generation whose tensor cores compute in bfloat16.
_BFLOAT16_CAPABILITY = (8, 0)


@contextmanager
def _native_log_silenced() -> Iterator[None]:
    """Discard what native code writes to standard error while the block runs.

    TensorFlow's libraries log some ten lines about absent GPUs before their log level applies.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    devnull = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(devnull, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(devnull)


# TensorFlow turns oneDNN off on CPUs without AVX-512, where it makes `article` train 1.6 times as
# fast.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if os.environ.setdefault("KERAS_BACKEND", "tensorflow") != "tensorflow":
    raise PawcastError("KERAS_BACKEND must be tensorflow", received=os.environ["KERAS_BACKEND"], fix="unset it")
with _native_log_silenced():
    import keras
    import tensorflow as tf

    # The first query makes the libraries log, so it happens here.
    tf.config.list_physical_devices("GPU")

__all__ = ["configure_tensorflow", "keras", "resolve_precision", "tf"]


def configure_tensorflow(threads: int | None = None, deterministic: bool = False) -> int:
    """Set up TensorFlow in this process, before its first operation: later calls change nothing.

    GPU memory grows with use instead of being taken whole at the start.

    Args:
        threads: Threads for one operation, normally the CPUs that this process may use;
            TensorFlow's default if None.
        deterministic: Use only operations that give the same bits every time; TensorFlow then
            raises an error for the others.

    Returns:
        How many GPUs TensorFlow sees.
    """
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
        # TensorFlow has been used already (a second model in one process): the settings stay.
        pass
    return len(gpus)


def resolve_precision(precision: str = "auto") -> Precision:
    """Return the precision to compute in: the given one, or the fastest of this machine.

    Weights, sums of gradients and the last layer are float32 in either case.

    Args:
        precision: `float32`, `bfloat16`, or `auto`: bfloat16 where the GPUs, or else the CPU, are
            faster in it.

    Raises:
        UsageError: For anything else.
    """
    if precision in ("float32", "bfloat16"):
        return cast(Precision, precision)
    if precision != "auto":
        raise UsageError("Unknown precision", received=repr(precision), expected="auto, float32 or bfloat16")
    if gpus := tf.config.list_physical_devices("GPU"):
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        oldest = min(detail.get("compute_capability", (0, 0)) for detail in details)
        return "bfloat16" if oldest >= _BFLOAT16_CAPABILITY else "float32"
    return "bfloat16" if prefers_bfloat16(cpu_info()) else "float32"
