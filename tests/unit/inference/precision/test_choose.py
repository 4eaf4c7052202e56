"""What decides bfloat16 or float32: the request, the machine, and the parity of the version."""

from __future__ import annotations

import pytest

from pawcast.errors import UsageError
from pawcast.inference.precision.choose import choose_precision
from pawcast.registry import Parity
from pawcast.runtime import devices
from pawcast.runtime.tensorflow import tf
from tests.support.served import version

GOOD = Parity(photos=1_000, same_label_share=1.0, max_difference=0.001)
POOR = Parity(photos=1_000, same_label_share=0.99, max_difference=0.001)


@pytest.mark.parametrize(
    ("flags", "requested", "parity", "precision"),
    [
        ("amx_bf16", "auto", {"float32": GOOD, "bfloat16": GOOD}, "bfloat16"),
        ("amx_bf16", "auto", {"float32": GOOD, "bfloat16": POOR}, "float32"),
        ("amx_bf16", "auto", None, "float32"),
        ("avx2", "auto", {"float32": GOOD, "bfloat16": GOOD}, "float32"),
        ("avx2", "bfloat16", None, "bfloat16"),
        ("amx_bf16", "float32", {"float32": GOOD, "bfloat16": GOOD}, "float32"),
    ],
)
def test_bfloat16_is_served_where_it_is_fast_and_parity_is_acceptable(
    tmp_path, monkeypatch, flags, requested, parity, precision
):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"flags : {flags}\n")
    monkeypatch.setattr(devices, "_CPUINFO", cpuinfo)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    assert choose_precision(version(48, parity=parity), requested) == precision


def test_another_precision_is_refused():
    with pytest.raises(UsageError, match="float16"):
        choose_precision(version(48), "float16")
