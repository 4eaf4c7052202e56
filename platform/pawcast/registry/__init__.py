"""The model registry: immutable versions, and refs that point at them."""

from pawcast.registry.versions import WEIGHTS, ModelVersion, Parity, move_ref, read_file, register, resolve

__all__ = ["WEIGHTS", "ModelVersion", "Parity", "move_ref", "read_file", "register", "resolve"]
