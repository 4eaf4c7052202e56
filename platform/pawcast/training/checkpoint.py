"""A checkpoint: all that a run needs to go on from the end of an epoch as if nothing had happened.

    runs/RUN/checkpoints/000012/
        model.weights.h5    the network's weights after 12 epochs, in Keras's format
        best.weights.h5     those of the best epoch so far; empty before the first validation
        optimizer.npz       the optimizer's variables, in order
        state.json          epochs done, history, and a sha256 of each file; written last

A folder without `state.json`, or whose files aren't what it says, is no checkpoint; the one before it counts then.
Order, warps and dropout seeds are functions of (seed, epoch), so there is nothing else to keep.
"""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from pawcast.errors import NotFoundError
from pawcast.registry import WEIGHTS
from pawcast.store import Store

if TYPE_CHECKING:
    import keras

BEST = "best.weights.h5"
_OPTIMIZER = "optimizer.npz"
_STATE = "state.json"
_KEPT = 2


class TrainState(BaseModel):
    """Where a run is.

    Attributes:
        epochs_done: How many epochs are over.
        history: Values by name, one for each of them; None for what wasn't validated after one.
        best_epoch: The index of the best of those that were validated; -1 before the first.
        served: Validation of the best weights in the way they will be served; only once training is over.
        sha256: Of the checkpoint's files by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs_done: int
    history: dict[str, list[float | None]]
    best_epoch: int
    served: dict[str, float] | None = None
    sha256: dict[str, str] = {}

    def total(self, name: str) -> float:
        """A value of the history, added up over the epochs that have it."""
        return sum(value for value in self.history[name] if value is not None)


def save(store: Store, run: str, state: TrainState, weights: bytes, best: bytes, optimizer: keras.Optimizer) -> None:
    """Write a checkpoint, its state last; then remove what is older than the one before it."""
    file = io.BytesIO()
    values = {f"{i:04d}": np.asarray(variable) for i, variable in enumerate(optimizer.variables)}
    np.savez(file, allow_pickle=False, **values)
    files = {WEIGHTS: weights, BEST: best, _OPTIMIZER: file.getvalue()}
    folder = f"{_folder(run)}{state.epochs_done:06d}/"
    for name, data in files.items():
        store.put(folder + name, data)
    whole = state.model_copy(update={"sha256": {name: _sha256(data) for name, data in files.items()}})
    store.put(folder + _STATE, whole.model_dump_json().encode())
    for old in _folders(store, run)[_KEPT:]:
        for name in (_STATE, *files):
            store.delete(old + name)


def load_latest(store: Store, run: str) -> tuple[TrainState, dict[str, bytes]] | None:
    """Return the newest whole checkpoint's state and its files by name; None if there is none."""
    for folder in _folders(store, run):
        try:
            state = TrainState.model_validate_json(store.get(folder + _STATE))
            files = {name: store.get(folder + name) for name in state.sha256}
        except (NotFoundError, ValidationError):
            continue
        if files and all(_sha256(data) == state.sha256[name] for name, data in files.items()):
            return state, files
    return None


def restore(model: keras.Model, optimizer: keras.Optimizer, files: dict[str, bytes]) -> None:
    """Set a built model and optimizer to what a checkpoint holds."""
    from pawcast.models import weights

    weights.load(model, files[WEIGHTS])
    with np.load(io.BytesIO(files[_OPTIMIZER]), allow_pickle=False) as values:
        for variable, name in zip(optimizer.variables, sorted(values.files), strict=True):
            variable.assign(values[name])


def _folder(run: str) -> str:
    return f"runs/{run}/checkpoints/"


def _folders(store: Store, run: str) -> list[str]:
    """All folders of checkpoints, whole or not, the newest first."""
    prefix = _folder(run)
    return sorted({prefix + key.removeprefix(prefix).split("/")[0] + "/" for key in store.list(prefix)}, reverse=True)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
