"""Whether a network answers the same where it is served as in Keras: measured before a version is registered.

Served are whole batches in a compiled graph, in bfloat16 where that is faster, with float32 for what that is unsure of.
What that is held against is plain Keras: float32, eagerly, on the CPU, from pixels that NumPy scaled and mirrored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from pawcast.data.manifest import Split
from pawcast.data.reader import SplitReader
from pawcast.errors import TrainingError
from pawcast.inference.compiled import CompiledModel
from pawcast.inference.engine import MAX_BATCH, build_network
from pawcast.inference.precision import fallback
from pawcast.recipes.schema import Recipe
from pawcast.registry import MAX_DIFFERENCE, Parity
from pawcast.runtime.devices import Precision, usable_cpus
from pawcast.runtime.tensorflow import configure_tensorflow, resolve_precision
from pawcast.store import Store
from pawcast.vision.preprocess import Preprocessing

if TYPE_CHECKING:
    import keras

PHOTOS = 2_048
"""Most photos that are compared: enough to see that one label in a thousand differs."""
_EMULATED = 1_024


def measure_parity(
    store: Store,
    split: Split,
    recipe: Recipe,
    weights: bytes,
    preprocessing: Preprocessing,
    photos: int = PHOTOS,
) -> dict[Precision, Parity]:
    """Compare what would be served with Keras, in every precision that some machine may serve in.

    That is both of them, on whatever machine. Where bfloat16 isn't in hardware its rounding is emulated, which takes
    longer, so at most some thousand photos are compared in it.

    Args:
        store: Where the photos are.
        split: Photos that weren't trained on.
        recipe: What the network was trained by.
        weights: The content of its weights file.
        preprocessing: What it will be fed.
        photos: Most photos to compare, spread over the split.

    Returns:
        For each precision, how far they agree; float32 holds. Where bfloat16 doesn't, it won't be served. Its
        agreement is that of `inference.cascade`, and says how near to one half scores are computed again.

    Raises:
        TrainingError: If they don't agree in float32, or a score is no number.
        IntegrityError: If a shard was changed.
    """
    configure_tensorflow(usable_cpus())
    network = build_network(recipe, weights)
    wanted = min(photos, split.photos)
    emulated = resolve_precision() != "bfloat16"
    every = math.ceil(wanted / _EMULATED) if emulated else 1
    exact_forward = CompiledModel(network, preprocessing, "float32")
    coarse_forward = CompiledModel(network, preprocessing, "bfloat16", emulated)
    pairs, triples = [], []
    for number, batch in enumerate(_batches(store, split, preprocessing, wanted)):
        expected, exact = _by_keras(network, batch, preprocessing), exact_forward(batch)
        pairs.append(np.stack([expected, exact]))
        if number % every == 0:
            triples.append(np.stack([expected, exact, coarse_forward(batch)]))
    float32 = compare_scores(*np.concatenate(pairs, 1))
    if not float32.acceptable:
        raise TrainingError(
            "The network answers differently where it is served, so it was not registered",
            received=float32,
            expected="99.9% equal, within 0.01",
        )
    return {"float32": float32, "bfloat16": compare_with_fallback(*np.concatenate(triples, 1))}


def compare_with_fallback(expected: np.ndarray, exact: np.ndarray, coarse: np.ndarray) -> Parity:
    """Hold bfloat16's probabilities, those that it is unsure of computed again, against those that are right.

    Args:
        expected: float32 [n], n at least 1, the right ones.
        exact, coarse: float32 [n], those of the same photos served in float32 and in bfloat16.

    Raises:
        TrainingError: If one of them is no number.
    """
    within = fallback.fallback_margin(coarse, exact, MAX_DIFFERENCE)
    again = fallback.needs_fallback(coarse, within)
    found = compare_scores(expected, np.where(again, exact, coarse))
    return found.model_copy(update={"fallback_margin": within, "fallback_share": float(again.mean())})


def compare_scores(expected: np.ndarray, found: np.ndarray) -> Parity:
    """Hold probabilities against those that are right.

    Args:
        expected, found: float32 [n], n at least 1, the probability of class 1 for each photo.

    Raises:
        TrainingError: If one of them is no number.
    """
    if not (np.isfinite(expected).all() and np.isfinite(found).all()):
        raise TrainingError("The network answers no number to some photos, so it was not registered")
    return Parity(
        photos=len(expected),
        same_label_share=float(np.mean((expected > 0.5) == (found > 0.5))),
        max_difference=float(np.abs(expected - found).max()),
    )


def _batches(store: Store, split: Split, preprocessing: Preprocessing, wanted: int) -> Iterator[np.ndarray]:
    """Yield as many photos as wanted, evenly spread over the split: uint8 [n, S, S, 3] at a time."""
    # Shards may be in the order of classes or of sources, so the first photos alone wouldn't do.
    chosen = (photo for i, photo in enumerate(SplitReader(store, split)) if i * wanted % split.photos < wanted)
    while batch := list(islice(chosen, MAX_BATCH)):
        yield np.stack([preprocessing.apply(photo.data) for photo in batch if isinstance(photo.data, bytes)])


def _by_keras(network: keras.Model, pixels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    import tensorflow as tf

    unit = pixels.astype(np.float32) * np.float32(preprocessing.scale)
    with tf.device("CPU"):
        scores = [network(seen, training=False).numpy()[:, 0] for seen in _seen(unit, preprocessing.mirror)]
    return np.mean(scores, axis=0)


def _seen(unit: np.ndarray, mirror: bool) -> list[np.ndarray]:
    return [unit, unit[:, :, ::-1]] if mirror else [unit]
