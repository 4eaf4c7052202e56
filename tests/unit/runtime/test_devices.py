from __future__ import annotations

import os

import pytest

from pawcast.runtime import devices


@pytest.mark.parametrize(
    ("content", "faster"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f amx_bf16 amx_tile\nbugs\t: x\n", True),
        ("vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx512_bf16\n", True),
        ("vendor_id\t: GenuineIntel\nflags\t\t: fpu avx512_bf16\n", False),
        ("vendor_id\t: GenuineIntel\nflags\t\t: fpu avx512_bf16 amx_bf16\n", True),
        ("flags\t\t: fpu avx2 avx512f\n\nflags\t\t: fpu amx_bf16\n", False),
        ("model name\t: amx_bf16\n", False),
        (None, False),
    ],
)
def test_the_flags_of_the_first_cpu_decide_whether_bfloat16_is_faster(tmp_path, monkeypatch, content, faster):
    path = tmp_path / "cpuinfo"
    if content is not None:
        path.write_text(content)
    monkeypatch.setattr(devices, "_CPUINFO", path)
    assert devices.prefers_bfloat16(devices.cpu_info()) is faster


def test_usable_cpus_are_those_of_this_process():
    assert 1 <= devices.usable_cpus() <= (os.cpu_count() or 1)
