"""Parity: whether a network gives the same scores where it is served as in Keras.

It is measured before a version is registered. What is served is a compiled graph that computes
whole batches, in bfloat16 with the float32 fallback where bfloat16 is faster. It is compared with
plain Keras: float32, eager, on the CPU, on pixels that NumPy scaled and mirrored.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from pawcast.data.manifest import Split
from pawcast.data.reader import SplitReader
from pawcast.errors import TrainingError
from pawcast.inference.batcher import MAX_BATCH
from pawcast.inference.compiled import CompiledModel
from pawcast.inference.engine import build_network
from pawcast.inference.precision.fallback import fallback_margin, needs_fallback
from pawcast.recipes.schema import Recipe
from pawcast.registry.versions import MAX_DIFFERENCE, Parity
from pawcast.runtime.devices import Precision, usable_cpus
from pawcast.runtime.tensorflow import configure_tensorflow, keras, tf
from pawcast.store import Store
from pawcast.vision.preprocess import Preprocessing

MAX_PHOTOS = 2_048
"""Most photos that are compared: enough to see that one label in a thousand differs."""
# Emulated bfloat16 is slower, so fewer are compared.
_MAX_EMULATED = 1_024


def measure_parity(
    store: Store,
    split: Split,
    recipe: Recipe,
    weights: bytes,
    preprocessing: Preprocessing,
    photos: int = MAX_PHOTOS,
) -> dict[Precision, Parity]:
    """Compare what would be served with Keras, in both precisions, whatever machine this is.

    Where this machine isn't faster in bfloat16, bfloat16 is emulated, and at most about a thousand
    photos are compared.

    Args:
        store: Where the photos are.
        split: Photos that the network wasn't trained on.
        recipe, weights: As for `build_network`.
        preprocessing: What photos go through before the network.
        photos: Most photos to compare, spread over the split.

    Returns:
        Parity by precision. In float32 it is acceptable. In bfloat16 it is that of scores with the
        float32 fallback, and includes the fallback margin; if it isn't acceptable, the version is
        served in float32.

    Raises:
        TrainingError: If parity in float32 isn't acceptable, or a score is NaN or infinite.
        IntegrityError: If a shard was changed.
    """
    configure_tensorflow(usable_cpus())
    network = build_network(recipe, weights)
    float32_model = CompiledModel(network, preprocessing, "float32")
    bfloat16_model = CompiledModel(network, preprocessing, "bfloat16")
    wanted = min(photos, split.photos, _MAX_EMULATED if bfloat16_model.emulated else photos)
    measured = [
        np.stack([_keras_scores(network, batch, preprocessing), float32_model(batch), bfloat16_model(batch)])
        for batch in _batches(store, split, preprocessing, wanted)
    ]
    expected, float32_scores, bfloat16_scores = np.concatenate(measured, 1)
    float32 = compare_scores(expected, float32_scores)
    if not float32.acceptable:
        raise TrainingError(
            "The network gives other scores where it is served than in Keras, so it was not registered",
            received=float32,
            expected="99.9% equal, within 0.01",
        )
    return {"float32": float32, "bfloat16": compare_with_fallback(expected, float32_scores, bfloat16_scores)}


def compare_with_fallback(expected: np.ndarray, float32_scores: np.ndarray, bfloat16_scores: np.ndarray) -> Parity:
    """Compare bfloat16 scores, with the float32 fallback, with the expected scores.

    Args:
        expected: float32 [n], n at least 1.
        float32_scores: float32 [n], served in float32, of the same photos.
        bfloat16_scores: float32 [n], served in bfloat16, of the same photos.

    Raises:
        TrainingError: If a score is NaN or infinite.
    """
    margin = fallback_margin(bfloat16_scores, float32_scores, MAX_DIFFERENCE)
    unsure = needs_fallback(bfloat16_scores, margin)
    parity = compare_scores(expected, np.where(unsure, float32_scores, bfloat16_scores))
    return parity.model_copy(update={"fallback_margin": margin, "fallback_share": float(unsure.mean())})


def compare_scores(expected: np.ndarray, served: np.ndarray) -> Parity:
    """Compare served scores with the expected ones.

    Args:
        expected, served: float32 [n], n at least 1, the probability of class 1 for each photo.

    Raises:
        TrainingError: If a score is NaN or infinite.
    """
    valid = np.isfinite(expected) & np.isfinite(served)
    if not valid.all():
        raise TrainingError(
            "The network gives scores that are NaN or infinite, so it was not registered",
            received=f"{np.sum(~valid):,} of {len(valid):,} photos",
            expected="a probability for every photo",
            fix="train with a lower learning rate",
        )
    return Parity(
        photos=len(expected),
        same_label_share=float(np.mean((expected > 0.5) == (served > 0.5))),
        max_difference=float(np.abs(expected - served).max()),
    )


def _batches(store: Store, split: Split, preprocessing: Preprocessing, wanted: int) -> Iterator[np.ndarray]:
    """Yield `wanted` photos, evenly spread over the split, in batches: uint8 [n, S, S, 3]."""
    # Shards may be ordered by class or source, so the first photos alone would be no fair sample.
    sample = (photo for i, photo in enumerate(SplitReader(store, split)) if i * wanted % split.photos < wanted)
    while batch := list(islice(sample, MAX_BATCH)):
        yield np.stack([preprocessing.apply(photo.data) for photo in batch if isinstance(photo.data, bytes)])


def _keras_scores(network: keras.Model, pixels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    images = pixels.astype(np.float32) * np.float32(preprocessing.scale)
    views = [images, images[:, :, ::-1]] if preprocessing.mirror else [images]
    with tf.device("CPU"):
        scores = [network(view, training=False).numpy()[:, 0] for view in views]
    return np.mean(scores, axis=0)
