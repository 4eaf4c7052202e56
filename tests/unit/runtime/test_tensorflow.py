"""The precision that TensorFlow computes in: the given one, or the fastest of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from pawcast.errors import UsageError
from pawcast.runtime import devices
from pawcast.runtime.tensorflow import resolve_precision, tf


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_given_precision_is_used_on_any_hardware(precision):
    assert resolve_precision(precision) == precision


@pytest.mark.parametrize("precision", ["", "bf16", "float16", "Auto"])
def test_an_unknown_precision_is_refused(precision):
    with pytest.raises(UsageError, match="Expected: auto, float32 or bfloat16"):
        resolve_precision(precision)


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [("flags\t\t: fpu avx512f amx_bf16\n", "bfloat16"), ("flags\t\t: fpu avx2\n", "float32"), (None, "float32")],
)
def test_auto_is_the_fastest_precision_of_the_cpu(tmp_path: Path, monkeypatch, cpuinfo, expected):
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("a GPU decides here")
    path = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        path.write_text(cpuinfo)
    monkeypatch.setattr(devices, "_CPUINFO", path)
    assert resolve_precision() == expected
