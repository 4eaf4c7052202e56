"""The model registry: immutable versions, and refs that point at them."""

from pawcast.registry.versions import (
    CURVES,
    WEIGHTS,
    ModelVersion,
    Parity,
    find_run,
    move_ref,
    objects,
    read_file,
    register,
    resolve,
)

__all__ = [
    "CURVES",
    "WEIGHTS",
    "ModelVersion",
    "Parity",
    "find_run",
    "move_ref",
    "objects",
    "read_file",
    "register",
    "resolve",
]
