"""The model registry: immutable versions, and refs that point at them."""

from pawcast.registry.versions import (
    MAX_DIFFERENCE,
    WEIGHTS,
    FileRecord,
    ModelVersion,
    Parity,
    find_run,
    move_ref,
    read_file,
    register,
    resolve,
)

__all__ = [
    "MAX_DIFFERENCE",
    "WEIGHTS",
    "FileRecord",
    "ModelVersion",
    "Parity",
    "find_run",
    "move_ref",
    "read_file",
    "register",
    "resolve",
]
