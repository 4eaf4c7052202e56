"""What to compute in: asked for, or what the CPU's flags say."""

from __future__ import annotations

from pathlib import Path

import pytest

from pawcast.errors import UsageError
from pawcast.runtime import devices
from pawcast.runtime.tensorflow import resolve_precision, tf


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_precision_that_is_asked_for_is_taken_on_any_hardware(precision):
    assert resolve_precision(precision) == precision


@pytest.mark.parametrize("precision", ["", "bf16", "float16", "Auto"])
def test_what_is_no_precision_is_refused(precision):
    with pytest.raises(UsageError, match="Expected: auto, float32 or bfloat16"):
        resolve_precision(precision)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f amx_bf16 amx_tile\nbugs\t: x\n", "bfloat16"),
        ("vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx512_bf16\n", "bfloat16"),
        ("vendor_id\t: GenuineIntel\nflags\t\t: fpu avx512_bf16\n", "float32"),
        ("vendor_id\t: GenuineIntel\nflags\t\t: fpu avx512_bf16 amx_bf16\n", "bfloat16"),
        ("flags\t\t: fpu avx2 avx512f\n\nflags\t\t: fpu\n", "float32"),
        ("model name\t: amx_bf16\n", "float32"),
        (None, "float32"),
    ],
)
def test_auto_is_what_the_cpu_is_fastest_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content, expected):
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("a GPU decides here")
    path = tmp_path / "cpuinfo"
    if content is not None:
        path.write_text(content)
    monkeypatch.setattr(devices, "_CPUINFO", path)
    assert resolve_precision() == expected
