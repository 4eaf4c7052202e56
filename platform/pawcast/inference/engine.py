"""A model version in memory. Its code is ours; only weights come from the store, and only if their hash matches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pawcast import registry
from pawcast.inference.compiled import CompiledModel
from pawcast.inference.precision.fallback import Float32Fallback
from pawcast.recipes.schema import Recipe
from pawcast.registry import WEIGHTS, ModelVersion, Parity
from pawcast.runtime.devices import Precision, usable_cpus
from pawcast.runtime.tensorflow import configure_tensorflow, resolve_precision
from pawcast.store import Store

if TYPE_CHECKING:
    import keras

MAX_BATCH = 64
"""Photos that go to the engine together: more gains nothing on a CPU and costs memory."""
MAX_CONCURRENT_BATCHES = min(2, usable_cpus())
"""Batches that are computed at once, each by its share of the CPUs: one goes on where the other has a gap."""


def build_network(recipe: Recipe, weights: bytes) -> keras.Model:
    """Return a recipe's network with its weights, in float32.

    Args:
        recipe: What it was trained by.
        weights: The content of its weights file, verified.
    """
    from pawcast.models import build
    from pawcast.models import weights as files

    network = build.build_model(recipe)
    files.load(network, weights)
    return network


class Engine:
    """Runs one model version.

    Args:
        version: What to run.
        network: Its network, from `restore`.
        precision: What to compute in: `float32`, `bfloat16`, or `auto`, which is bfloat16 where the hardware is
            faster in it and the version was found to agree with Keras in it. Photos that bfloat16 was found to be
            unsure of are computed again in float32.

    Attributes:
        version: The version that it runs.
        size: Height and width in pixels that `predict` takes.
        network: The Keras model, float32 [n, S, S, 3] in [0, 1] to float32 [n, 1]; not to be changed.
        precision: What it computes in, `float32` or `bfloat16`.

    Raises:
        UsageError: For another precision.
    """

    def __init__(self, version: ModelVersion, network: keras.Model, precision: str = "auto") -> None:
        self.version = version
        self.size = version.preprocessing.image_size
        self.network = network
        self.precision = _chosen(version, precision)
        self._forward: CompiledModel | Float32Fallback = CompiledModel(network, version.preprocessing, self.precision)
        if self._fallback:
            exact = CompiledModel(network, version.preprocessing, "float32")
            self._forward = Float32Fallback(self._forward, exact, self._fallback.fallback_margin)

    @classmethod
    def load(cls, store: Store, name: str, precision: str = "auto") -> Engine:
        """Load `MODEL@REF` from a store.

        Args:
            store: Where the model is.
            name: Which version.
            precision: As for the class.

        Raises:
            NotFoundError: If there is no such version.
            IntegrityError: If its weights were changed.
            UsageError: For a precision that is none.
        """
        return cls.from_version(store, registry.resolve(store, name), precision)

    @classmethod
    def from_version(cls, store: Store, version: ModelVersion, precision: str = "auto") -> Engine:
        """Load a version that was looked up before. Raises as `load` does."""
        weights = registry.read_file(store, version, WEIGHTS)
        configure_tensorflow(usable_cpus() // MAX_CONCURRENT_BATCHES)
        return cls(version, build_network(version.recipe, weights), precision)

    @property
    def batch_sizes(self) -> list[int]:
        """How many photos are computed at once, ascending: `predict` takes others apart, or fills them up."""
        return self._forward.batch_sizes

    @property
    def info(self) -> dict[str, str | int | float]:
        """What it runs on, for people: framework, device, threads of a batch, precision, batches and photos at once.

        `fallback_share` is the share of validation's photos that were computed again.
        """
        import keras
        import tensorflow as tf

        return {
            "framework": f"Keras {keras.__version__} on TensorFlow {tf.__version__}",
            "device": "GPU" if tf.config.list_physical_devices("GPU") else "CPU",
            "threads": tf.config.threading.get_intra_op_parallelism_threads(),
            "precision": self.precision,
            "fallback_share": self._fallback.fallback_share if self._fallback else 0.0,
            "max_concurrent_batches": MAX_CONCURRENT_BATCHES,
            "max_batch": self.batch_sizes[-1],
        }

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Return the probability of class 1. A photo's is the same to the last bit in every batch, in any thread.

        Args:
            pixels: uint8 [n, S, S, 3] from `images.load`.

        Returns:
            float32 [n] in [0, 1].
        """
        return self._forward(pixels)

    @property
    def _fallback(self) -> Parity | None:
        """The agreement that needs some photos to be computed again, if this precision has one."""
        agreement = (self.version.parity or {}).get(self.precision)
        return agreement if agreement and agreement.fallback_margin else None


def _chosen(version: ModelVersion, precision: str) -> Precision:
    if precision == "auto":
        agreement = (version.parity or {}).get("bfloat16")
        if agreement is None or not agreement.acceptable:
            return "float32"
    return resolve_precision(precision)
