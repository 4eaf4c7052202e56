"""Checkpoints: all that a run needs to go on from the end of an epoch as if nothing had happened.

    runs/RUN/checkpoints/000012/
        model.weights.h5    the weights after 12 epochs, in Keras's format
        best.weights.h5     the weights of the best epoch so far; empty before the first validation
        optimizer.npz       the optimizer's variables, in order
        state.json          epochs done, history, and the sha256 of each file; written last

A folder without `state.json`, or with a file of another sha256, is not a checkpoint; the one before
it is used. The order of photos depends on (seed, epoch), augmentation on (seed, epoch, photo) and
dropout on (seed, step, photo), so a checkpoint needs no random state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from pydantic import Field, ValidationError

from pawcast.core.records import Record
from pawcast.errors import NotFoundError
from pawcast.registry import WEIGHTS
from pawcast.store import Store

BEST_WEIGHTS = "best.weights.h5"
OPTIMIZER = "optimizer.npz"
_FILES = (WEIGHTS, BEST_WEIGHTS, OPTIMIZER)
_STATE = "state.json"
_KEPT = 2


class TrainState(Record):
    """How far a run is.

    Attributes:
        epochs_done: How many epochs are over.
        history: Lists of values by name, one value for each epoch; None where the epoch was not
            validated.
        best_epoch: Index of the best validated epoch, from 0; -1 before the first validation.
        served: `val_acc` and `val_loss` of the best weights with the preprocessing of serving;
            measured when training is over.
        sha256: Of the checkpoint's files, by name.
    """

    epochs_done: int
    history: dict[str, list[float | None]]
    best_epoch: int
    served: dict[str, float] | None = None
    sha256: dict[str, str] = Field(default_factory=dict)

    def total(self, name: str) -> float:
        """Return the sum of a value of the history over the epochs that have it."""
        return sum(value for value in self.history[name] if value is not None)


def save(store: Store, run: str, state: TrainState, files: Mapping[str, bytes]) -> None:
    """Write a checkpoint, its state last; then delete all but the newest two.

    Args:
        store: Where the run is.
        run: The run's name.
        state: How far the run is; `sha256` is filled in here.
        files: The contents of `model.weights.h5`, `best.weights.h5` and `optimizer.npz`.
    """
    folder = f"{_folder(run)}{state.epochs_done:06d}/"
    for name, data in files.items():
        store.put(folder + name, data)
    digests = {name: _sha256(data) for name, data in files.items()}
    store.put(folder + _STATE, state.model_copy(update={"sha256": digests}).model_dump_json().encode())
    for old in _folders(store, run)[_KEPT:]:
        for name in (_STATE, *_FILES):
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


def _folder(run: str) -> str:
    return f"runs/{run}/checkpoints/"


def _folders(store: Store, run: str) -> list[str]:
    """Return the folders of all checkpoints, whole or not, the newest first."""
    prefix = _folder(run)
    return sorted({prefix + key.removeprefix(prefix).split("/")[0] + "/" for key in store.list(prefix)}, reverse=True)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
