"""What decides whether a version is served in bfloat16 or in float32."""

from __future__ import annotations

from pawcast.registry import ModelVersion
from pawcast.runtime.devices import Precision
from pawcast.runtime.tensorflow import resolve_precision


def choose_precision(version: ModelVersion, requested: str = "auto") -> Precision:
    """Return the precision that a version is served in.

    Args:
        version: Its `parity` was measured when it was registered.
        requested: `float32` and `bfloat16` are taken as they are. `auto` is bfloat16 if this
            machine is faster in it and the version's parity in bfloat16 is acceptable, else
            float32.

    Raises:
        UsageError: For any other request.
    """
    parity = (version.parity or {}).get("bfloat16")
    if requested == "auto" and not (parity and parity.acceptable):
        return "float32"
    return resolve_precision(requested)
