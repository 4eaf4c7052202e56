"""Pawcast: distributed training and serving for image classification on Ray.

This module is the public Python API. Importing it is cheap: TensorFlow, Keras, Ray and Arrow are
imported by the first function that needs them.

Every function takes `store`: a `Store`, a folder, `s3://bucket/prefix`, or None, which means
`PAWCAST_STORE` or else `var/store`. All errors are `pawcast.errors.PawcastError`.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pawcast import errors
from pawcast.core.progress import Progress, silent

if TYPE_CHECKING:
    from pawcast.data.ingest import IngestResult
    from pawcast.data.report import CheckLimits
    from pawcast.evaluation.evaluate import Evaluation
    from pawcast.inference.model import Model
    from pawcast.inference.predictor import Prediction
    from pawcast.recipes.schema import Augmentation, Recipe
    from pawcast.store import Store
    from pawcast.training.runs import Workers
    from pawcast.training.trainer import Callbacks, Trained

__version__ = "0.1.0"
__all__ = [
    "Augmentation",
    "Model",
    "Prediction",
    "Recipe",
    "Workers",
    "__version__",
    "errors",
    "evaluate",
    "get_recipe",
    "ingest",
    "load_model",
    "open_store",
    "resume",
    "train",
]
_CLASSES = {
    "Augmentation": "pawcast.recipes.schema",
    "Model": "pawcast.inference.model",
    "Prediction": "pawcast.inference.predictor",
    "Recipe": "pawcast.recipes.schema",
    "Workers": "pawcast.training.runs",
}


def __getattr__(name: str) -> Any:
    """Import a public class on its first use (PEP 562)."""
    if name not in _CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_CLASSES[name]), name)


def open_store(store: Store | str | None = None) -> Store:
    """Open the store that datasets, runs and models live in.

    Example:
        >>> store = pawcast.open_store("s3://bucket/pawcast")

    Raises:
        UsageError: If the URI is neither a folder nor `s3://…`.
    """
    from pawcast.core.settings import store_uri
    from pawcast.store import open_store

    return open_store(store_uri(store)) if store is None or isinstance(store, str) else store


def ingest(  # noqa: PLR0913 - each option is a parameter, as in the command
    dataset: str,
    labelled: str,
    unlabelled: str | None = None,
    *,
    classes: Sequence[str] = ("cat", "dog"),
    test_size: int = 1_000,
    val_fraction: float = 0.25,
    seed: int = 0,
    min_side: int = 16,
    label_column: str = "",
    group: str = "",
    split_folders: bool = False,
    limits: CheckLimits | None = None,
    progress: Progress = silent,
    store: Store | str | None = None,
) -> IngestResult:
    """Turn photos into a dataset: checked, hashed, split, and stored as Parquet shards. Uses Ray.

    Example:
        >>> pawcast.ingest("pets", "train.zip", "test1.zip").manifest.splits["train"].photos

    Args:
        dataset: The name of the dataset.
        labelled: A zip, a folder or a CSV of photos with labels.
        unlabelled: A zip or a folder of photos without labels, to predict later.
        classes: The names of class 0 and class 1, as they occur in the photos' paths.
        test_size: How many labelled photos go to the split `test`.
        val_fraction: The validation split's share of the other labelled photos, in [0, 0.9].
        seed: Another seed gives other splits.
        min_side: Leave out photos with a side shorter than this, in pixels.
        label_column: The CSV's column of labels. Empty: `label`, `class` and the like.
        group: A column of the CSV, or a regular expression on the photos' names. Photos with the
            same value stay in one split; sizes are then as near as whole groups allow.
        split_folders: Use the source's own `train/`, `validation/` and `test/` as splits.
        limits: The share of photos with each finding above which the ingest fails.
        progress: Receives reports of the progress.
        store: Where the dataset goes.

    Returns:
        The manifest of the dataset, and a report of what was found.

    Raises:
        NotFoundError: If a source is missing.
        DataError: If a source has no usable photos, or more findings than the limits allow.
        ConflictError: If another ingest published the same name in the meantime.
    """
    from pawcast.data.ingest import ingest
    from pawcast.data.report import CheckLimits

    return ingest(
        open_store(store),
        dataset,
        labelled,
        unlabelled,
        classes=classes,
        test_size=test_size,
        val_fraction=val_fraction,
        seed=seed,
        min_side=min_side,
        label_column=label_column,
        group=group,
        split_folders=split_folders,
        limits=limits or CheckLimits(),
        progress=progress,
    )


def get_recipe(name: str = "article", **overrides: Any) -> Recipe:
    """Return a recipe by its name, with some of its fields replaced.

    Example:
        >>> pawcast.get_recipe("article", epochs=3, augment={"rotation": 10}).epochs
        3

    Args:
        name: A built-in recipe, or `package.module:function` of your own.
        overrides: Fields of `Recipe`. A dictionary replaces only the fields that it names.

    Raises:
        UsageError: For an unknown recipe or field, or a value out of range.
        NotFoundError: If the module of your own recipe is missing.
    """
    from pawcast.recipes import resolve

    return resolve(name, list(_assignments(overrides)))


def train(
    dataset: str,
    recipe: Recipe | str = "article",
    *,
    workers: Workers | int | None = None,
    model: str = "catdog",
    run: str | None = None,
    max_failures: int = 3,
    callbacks: Callbacks | None = None,
    store: Store | str | None = None,
) -> Trained:
    """Train a recipe on a dataset; register the best epoch as a new version of a model. Uses Ray.

    Example:
        >>> pawcast.train("pets", recipe="article", workers=1).version.name
        'catdog@1'

    Args:
        dataset: `NAME`, or `NAME@DIGEST`.
        recipe: A recipe or the name of one.
        workers: Data-parallel workers: how many, or also what each of them gets.
        model: The name of the model.
        run: The name of the run; by default the recipe's name and the time.
        max_failures: How many lost workers to replace. Training then continues from a checkpoint.
        callbacks: Receive the progress of the run.
        store: Where dataset and model are.

    Returns:
        The registered version, and the history of all epochs.

    Raises:
        NotFoundError: If there is no such dataset.
        UsageError: If recipe and workers don't fit the dataset.
        ClusterError: If Ray lacks the CPUs, GPUs or memory.
        TrainingError: If the loss isn't finite, or a worker fails.
    """
    from pawcast.training.runs import Workers
    from pawcast.training.trainer import Callbacks, train

    return train(
        open_store(store),
        dataset,
        get_recipe(recipe) if isinstance(recipe, str) else recipe,
        Workers(number=workers) if isinstance(workers, int) else workers or Workers(),
        run=run,
        model=model,
        max_failures=max_failures,
        callbacks=callbacks or Callbacks(),
    )


def resume(
    run: str,
    *,
    workers: Workers | int | None = None,
    max_failures: int = 3,
    callbacks: Callbacks | None = None,
    store: Store | str | None = None,
) -> Trained:
    """Continue a run that was stopped, from its last checkpoint. Uses Ray.

    Example:
        >>> pawcast.resume("article-20261124-090000")

    Args:
        run: The name of the run. Recipe and dataset are those that it began with.
        workers: Other workers than the run began with.
        max_failures, callbacks, store: As for `train`.

    Raises:
        NotFoundError: If there is no such run.
        ConflictError: If the run is finished.
        UsageError, ClusterError, TrainingError: As for `train`.
    """
    from pawcast.training.runs import Workers
    from pawcast.training.trainer import Callbacks, resume

    return resume(
        open_store(store),
        run,
        Workers(number=workers) if isinstance(workers, int) else workers,
        max_failures=max_failures,
        callbacks=callbacks or Callbacks(),
    )


def load_model(name: str = "catdog@production", *, precision: str = "auto", store: Store | str | None = None) -> Model:
    """Load a version of a model, to predict photos in this process.

    Example:
        >>> pawcast.load_model("catdog@latest").predict("cat.jpg")[0].label
        'cat'

    Args:
        name: `MODEL@REF` or `MODEL@NUMBER`.
        precision: `float32`, `bfloat16`, or `auto`: bfloat16 where the hardware is faster in it
            and the version was found to be accurate in it.
        store: Where the model is.

    Raises:
        NotFoundError: If there is no such version.
        IntegrityError: If its weights don't match their sha256.
    """
    from pawcast.inference.model import Model

    return Model.load(open_store(store), name, precision)


def evaluate(
    model: Model | str = "catdog@latest",
    *,
    split: str = "test",
    labelled: str | None = None,
    progress: Progress = silent,
    store: Store | str | None = None,
) -> Evaluation:
    """Measure a model on a split of its own dataset, or on other labelled photos.

    Example:
        >>> pawcast.evaluate("catdog@latest").metrics.accuracy

    Args:
        model: A loaded model, or the name of one.
        split: `test`, `val` or `train`.
        labelled: A zip, folder or CSV of labelled photos, instead of a split.
        progress: Receives reports of the progress.
        store: Where model and dataset are.

    Returns:
        The metrics, and some photos that the model gets wrong and right.

    Raises:
        NotFoundError: If there is no such model or source.
        UsageError: If the dataset has no such split with labels.
        DataError: If no photo can be used.
    """
    from pawcast.evaluation.versions import evaluate_engine

    store = open_store(store)
    engine = load_model(model, store=store).engine if isinstance(model, str) else model.engine
    return evaluate_engine(store, engine, split=split, labelled=labelled, progress=progress)


def _assignments(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield fields and nested fields as the words that `--set` takes: `key=value`."""
    for key, value in values.items():
        if hasattr(value, "model_dump"):
            value = value.model_dump()
        if isinstance(value, Mapping):
            yield from _assignments(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={json.dumps(value)}"
