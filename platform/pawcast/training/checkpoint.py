"""A checkpoint: all that a run needs to go on from the end of an epoch as if nothing had happened.

    model.weights.h5    the network's weights, in Keras's format
    optimizer.npz       the optimizer's variables, in order
    state.json          epochs done, history, and a sha256 of the other two; written last

Order, warps and dropout seeds are functions of (seed, epoch), so there is nothing else to keep.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pawcast.errors import IntegrityError

if TYPE_CHECKING:
    import keras

WEIGHTS = "model.weights.h5"
_OPTIMIZER = "optimizer.npz"
_STATE = "state.json"


def save(folder: Path, model: keras.Model, optimizer: keras.Optimizer, state: dict[str, Any]) -> None:
    """Write a checkpoint into an empty folder. `state` must be JSON."""
    model.save_weights(folder / WEIGHTS)
    values = {f"{i:04d}": np.asarray(variable) for i, variable in enumerate(optimizer.variables)}
    np.savez(folder / _OPTIMIZER, allow_pickle=False, **values)
    digests = {name: _sha256(folder / name) for name in (WEIGHTS, _OPTIMIZER)}
    (folder / _STATE).write_text(json.dumps({**state, "sha256": digests}))


def restore(folder: Path, model: keras.Model, optimizer: keras.Optimizer) -> dict[str, Any]:
    """Load a checkpoint into a built model and optimizer; return its state.

    Raises:
        IntegrityError: If a file is missing or isn't what was written.
    """
    try:
        state: dict[str, Any] = json.loads((folder / _STATE).read_text())
        for name, digest in state["sha256"].items():
            if _sha256(folder / name) != digest:
                raise ValueError(f"{name} was changed")
    except (OSError, ValueError, KeyError) as error:
        raise IntegrityError(f"The checkpoint {folder.name} is not whole", received=error) from None
    model.load_weights(folder / WEIGHTS)
    with np.load(folder / _OPTIMIZER, allow_pickle=False) as values:
        for variable, name in zip(optimizer.variables, sorted(values.files), strict=True):
            variable.assign(values[name])
    return state


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
