"""Checkpoints: all that a run needs to go on from the end of an epoch as if nothing had happened.

    runs/RUN/checkpoints/000012/
        model.weights.h5    the weights after 12 epochs, in Keras's format
        best.weights.h5     the weights of the best epoch so far; empty before the first validation
        optimizer.npz       the optimizer's variables, in order
        summary.txt         the network, as Keras prints it
        state.json          epochs done, history, and the sha256 of each file; written last

A folder without `state.json` is what a killed run left of a checkpoint. Then, and if the checkpoint
is damaged, the one before it is used. The order of photos depends on (seed, epoch), augmentation on
(seed, epoch, photo) and dropout on (seed, step, photo), so a checkpoint needs no random state.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from pydantic import Field

from pawcast.core.records import Record
from pawcast.errors import IntegrityError
from pawcast.registry import WEIGHTS
from pawcast.store import Store, records

BEST_WEIGHTS = "best.weights.h5"
OPTIMIZER = "optimizer.npz"
SUMMARY = "summary.txt"
_FILES = (WEIGHTS, BEST_WEIGHTS, OPTIMIZER, SUMMARY)
_STATE = "state.json"
_KEPT = 2
_log = logging.getLogger(__name__)


class TrainState(Record):
    """How far a run is.

    Attributes:
        epochs_done: How many epochs are over.
        history: Lists of values by name, one value for each epoch; None where the epoch was not
            validated.
        best_epoch: Index of the best validated epoch, from 0; -1 before the first validation.
        served: `val_acc` and `val_loss` of the best weights with the preprocessing of serving;
            measured when training is over.
        files: The sha256 of each of the checkpoint's files, by name.
    """

    epochs_done: int
    history: dict[str, list[float | None]]
    best_epoch: int
    served: dict[str, float] | None = None
    files: dict[str, str] = Field(default_factory=dict)

    def total(self, name: str) -> float:
        """Return the sum of a value of the history over the epochs that have it."""
        return sum(value for value in self.history[name] if value is not None)


def save(store: Store, run: str, state: TrainState, files: Mapping[str, bytes]) -> None:
    """Write a checkpoint, its state last; then delete all but the newest two.

    Args:
        store: Where the run is.
        run: The run's name.
        state: How far the run is; `files` is filled in here.
        files: The contents of the checkpoint's files, by name.
    """
    folder = f"{_folder(run)}{state.epochs_done:06d}/"
    for name, data in files.items():
        store.put(folder + name, data)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    records.write(store, folder + _STATE, state.model_copy(update={"files": digests}))
    for old in _folders(store, run)[_KEPT:]:
        for name in (_STATE, *_FILES):
            store.delete(old + name)


def load_latest(
    store: Store, run: str, note: Callable[[str], None] = _log.warning
) -> tuple[TrainState, dict[str, bytes]] | None:
    """Return the newest whole checkpoint's state and its files by name.

    Args:
        store: Where the run is.
        run: The run's name.
        note: Called with a sentence for each newer checkpoint that can't be used.

    Returns:
        The checkpoint; None if the run has not finished writing its first one.

    Raises:
        IntegrityError: If there are checkpoints, and all of them are damaged.
    """
    folders, damaged = _folders(store, run), []
    for folder in folders:
        try:
            state = records.read(store, folder + _STATE, TrainState, "")
            files = {
                name: records.read_content(store, folder + name, sha256, "") for name, sha256 in state.files.items()
            }
        except IntegrityError as error:
            damaged.append(error.what)
            continue
        for what in damaged:
            note(f"{what}. The checkpoint before it is used.")
        return state, files
    if len(folders) > 1 or (folders and store.exists(folders[0] + _STATE)):
        raise IntegrityError(
            f"No checkpoint of the run {run!r} can be used",
            received="; ".join(damaged),
            fix=f"delete runs/{run}/checkpoints/ in the store to begin the run again, or train a new one",
        )
    for what in damaged:
        note(f"{what}. The run was killed while it wrote its first checkpoint, and begins again.")
    return None


def objects(store: Store, run: str) -> Iterator[records.Read]:
    """Yield every object of a run's checkpoints and how to read it."""
    fix = f"resume the run: pawcast train --resume {run}"
    for folder in _folders(store, run):
        key = folder + _STATE
        if not store.exists(key):
            # Not a checkpoint, or no longer one.
            continue
        yield key, partial(records.read, store, key, TrainState, fix)
        try:
            state = records.read(store, key, TrainState, fix)
        except IntegrityError:
            continue
        for name, sha256 in state.files.items():
            yield folder + name, partial(records.read_content, store, folder + name, sha256, fix)


def _folder(run: str) -> str:
    return f"runs/{run}/checkpoints/"


def _folders(store: Store, run: str) -> list[str]:
    """Return the folders of all checkpoints, whole or not, the newest first."""
    prefix = _folder(run)
    return sorted({prefix + key.removeprefix(prefix).split("/")[0] + "/" for key in store.list(prefix)}, reverse=True)
