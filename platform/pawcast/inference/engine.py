"""A model version in memory. Its code is ours; only weights come from the store, and only if their hash matches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pawcast import registry
from pawcast.devices import Precision, compute_dtype, configure_tensorflow, usable_cpus
from pawcast.inference.cascade import Cascade
from pawcast.inference.forward import Forward
from pawcast.recipe import Recipe
from pawcast.registry import WEIGHTS, Agreement, Version
from pawcast.store import Store

if TYPE_CHECKING:
    import keras

MAX_BATCH = 64
"""Photos that go to the engine together: more gains nothing on a CPU and costs memory."""
LANES = min(2, usable_cpus())
"""Batches that are computed at once, each by its share of the CPUs: one goes on where the other has a gap."""


def restore(recipe: Recipe, weights: bytes) -> keras.Model:
    """Return a recipe's network with its weights, in float32.

    Args:
        recipe: What it was trained by.
        weights: The content of its weights file, verified.
    """
    from pawcast import models
    from pawcast.models import weights as files

    network = models.build(recipe)
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

    def __init__(self, version: Version, network: keras.Model, precision: str = "auto") -> None:
        self.version = version
        self.size = version.preprocessing.image_size
        self.network = network
        self.precision = _chosen(version, precision)
        self._forward: Forward | Cascade = Forward(network, version.preprocessing, self.precision)
        if self._again:
            exact = Forward(network, version.preprocessing, "float32")
            self._forward = Cascade(self._forward, exact, self._again.unsure_within)

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
    def from_version(cls, store: Store, version: Version, precision: str = "auto") -> Engine:
        """Load a version that was looked up before. Raises as `load` does."""
        weights = registry.read_file(store, version, WEIGHTS)
        configure_tensorflow(usable_cpus() // LANES)
        return cls(version, restore(version.recipe, weights), precision)

    @property
    def sizes(self) -> list[int]:
        """How many photos are computed at once, ascending: `predict` takes others apart, or fills them up."""
        return self._forward.sizes

    @property
    def facts(self) -> dict[str, str | int | float]:
        """What it runs on, for people: framework, device, threads of a batch, precision, batches and photos at once.

        `again_in_float32` is the share of validation's photos that were computed again.
        """
        import keras
        import tensorflow as tf

        return {
            "framework": f"Keras {keras.__version__} on TensorFlow {tf.__version__}",
            "device": "GPU" if tf.config.list_physical_devices("GPU") else "CPU",
            "threads": tf.config.threading.get_intra_op_parallelism_threads(),
            "precision": self.precision,
            "again_in_float32": self._again.again if self._again else 0.0,
            "lanes": LANES,
            "max_batch": self.sizes[-1],
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
    def _again(self) -> Agreement | None:
        """The agreement that needs some photos to be computed again, if this precision has one."""
        agreement = (self.version.agreement or {}).get(self.precision)
        return agreement if agreement and agreement.unsure_within else None


def _chosen(version: Version, precision: str) -> Precision:
    if precision == "auto":
        agreement = (version.agreement or {}).get("bfloat16")
        if agreement is None or not agreement.holds:
            return "float32"
    return compute_dtype(precision)
