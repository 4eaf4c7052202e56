"""The graph functions of a run: a training step, a validation step, and totals over steps and ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pawcast.recipes.schema import Recipe
from pawcast.training import optimizers
from pawcast.training.collective import Collective
from pawcast.training.loader import Batch
from pawcast.vision.augment import warp
from pawcast.vision.augment.warp import rescale

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


# Binary cross-entropy a photo. Guessing costs 0.69; to be sure, and wrong half of the time, about 8.
_DIVERGED = 5.0


class MetricSums(NamedTuple):
    """Totals over photos: summed loss, correct predictions, photos."""

    loss: float
    correct: float
    photos: float

    @property
    def finite(self) -> bool:
        """Whether the loss is a number."""
        return math.isfinite(self.loss)

    @property
    def diverged(self) -> bool:
        """Whether the loss is what no network has that has learnt anything; a fresh one may well begin there."""
        return self.mean_loss > _DIVERGED

    @property
    def mean_loss(self) -> float:
        """Binary cross-entropy a photo."""
        return self.loss / self.photos

    @property
    def accuracy(self) -> float:
        """The share of photos on the right side of one half."""
        return self.correct / self.photos


class TrainStep:
    """What one rank does with a batch.

    Args:
        recipe: What to train.
        model: The built network.
        optimizer: Built for its trainable variables.
        collective: Joins the ranks.
    """

    def __init__(self, recipe: Recipe, model: keras.Model, optimizer: keras.Optimizer, collective: Collective) -> None:
        import tensorflow as tf

        from pawcast.models import folding
        from pawcast.models.layers import dropout

        self._recipe, self._model, self._optimizer, self._collective = recipe, model, optimizer, collective
        self._network = folding.fold_frozen_batch_norm(model)
        self._place = dropout.set_batch_position
        self._sum = tf.function(lambda values: collective.run(lambda: collective.sum([values]))[0])
        self._compiled: dict[tuple[str, int, bool], Callable[..., tf.Tensor]] = {}

    def train(self, batch: Batch, epoch: int, step: int) -> tf.Tensor:
        """Move the weights by one global batch; return this rank's sums, float32 [3] in `Sums`'s order.

        The loss is that of the smoothed labels, if the recipe has them smoothed.

        Args:
            batch: This rank's part of it.
            epoch: From 0.
            step: Of the whole run, from 0.
        """
        self._place(self._model, self._recipe.seed, step, int(batch.first), int(batch.photos))
        size, frozen = self._recipe.size_at(epoch), epoch < self._recipe.frozen_epochs
        return self._function("train", size, frozen, lambda: self._compile_training(size, epoch))(*batch)

    def validate(self, batches: Iterable[Batch], size: int, mirror: bool = False) -> MetricSums:
        """Return loss and accuracy over all ranks' photos; with `mirror`, of the mean with the mirror image's."""
        function = self._function("validate", size, mirror, lambda: self._compile_validation(size, mirror))
        return self.total([function(*batch) for batch in batches])

    def total(self, sums: list[tf.Tensor]) -> MetricSums:
        """Add up over steps and ranks; the same on all ranks."""
        return MetricSums(*self.over_ranks(np.sum([np.asarray(s, np.float64) for s in sums], axis=0)))

    def over_ranks(self, values: Sequence[float] | np.ndarray) -> list[float]:
        """Add up numbers over ranks, in float64; the same on all ranks."""
        found: list[float] = self._sum(np.asarray(values, np.float64)).numpy().tolist()
        return found

    @property
    def world(self) -> int:
        """How many ranks take part."""
        return self._collective.world

    def augment(self, batch: Batch, epoch: int) -> float:
        """Do only the part of `train` that comes before the network; return the mean pixel, so that it is done."""
        size = self._recipe.size_at(epoch)
        return float(self._function("augment", size, False, lambda: self._compile_augmentation(size))(*batch))

    def add_gradients(self, epoch: int) -> float:
        """Do only the part of `train` in which the ranks add up; return one sum, so that it is done."""
        frozen = epoch < self._recipe.frozen_epochs
        return float(self._function("add", 0, frozen, lambda: self._compile_adding(epoch))())

    def _function(self, kind: str, size: int, flag: bool, make: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
        """One graph for each size and phase; the last, smaller batch uses it too."""
        key = (kind, size, flag)
        if key not in self._compiled:
            self._compiled[key] = make()
        return self._compiled[key]

    def _compile_training(self, size: int, epoch: int) -> Callable[..., tf.Tensor]:
        import tensorflow as tf

        recipe, network, collective = self._recipe, self._network, self._collective
        variables = optimizers.trainable_variables(recipe, self._model, epoch)
        # A frozen backbone also stays as it is in its dropout and statistics.
        frozen = epoch < recipe.frozen_epochs

        @tf.function(input_signature=_signature())
        def step(*parts: tf.Tensor) -> tf.Tensor:
            batch = Batch(*parts)

            def on_this_rank() -> tuple[list[tf.Tensor], tf.Tensor]:
                pixels = warp.augment_batch(recipe.augment, batch.pixels, batch.draws, size)
                with tf.GradientTape() as tape:
                    probability = _probability(network, pixels, not frozen)
                    loss, sums = _measure(batch, probability, recipe.label_smoothing)
                    # Over the global count, so that the sum over ranks is the gradient of the global mean.
                    loss = loss / batch.photos
                return collective.sum(tape.gradient(loss, variables)), sums

            gradients, sums = collective.run(on_this_rank)
            # Outside of the strategy: Keras's optimizer refuses to be called in it.
            self._optimizer.apply(gradients, variables)
            return sums

        return step

    def _compile_augmentation(self, size: int) -> Callable[..., tf.Tensor]:
        import tensorflow as tf

        @tf.function(input_signature=_signature())
        def step(*parts: tf.Tensor) -> tf.Tensor:
            batch = Batch(*parts)
            return tf.reduce_mean(warp.augment_batch(self._recipe.augment, batch.pixels, batch.draws, size))

        return step

    def _compile_adding(self, epoch: int) -> Callable[..., tf.Tensor]:
        import tensorflow as tf

        # The gradients of these have their shapes.
        variables = optimizers.trainable_variables(self._recipe, self._model, epoch)

        def on_this_rank() -> list[tf.Tensor]:
            return self._collective.sum([tf.convert_to_tensor(variable) for variable in variables])

        @tf.function
        def step() -> tf.Tensor:
            return tf.add_n([tf.reshape(total, [-1])[0] for total in self._collective.run(on_this_rank)])

        return step

    def _compile_validation(self, size: int, mirror: bool) -> Callable[..., tf.Tensor]:
        import tensorflow as tf

        network = self._network

        @tf.function(input_signature=_signature())
        def step(*parts: tf.Tensor) -> tf.Tensor:
            batch = Batch(*parts)
            pixels = rescale(batch.pixels)
            pixels.set_shape([None, size, size, 3])
            probability = _probability(network, pixels, False)
            if mirror:
                probability = (probability + _probability(network, pixels[:, :, ::-1], False)) / 2
            return _measure(batch, probability)[1]

        return step


def _probability(network: keras.Model, pixels: tf.Tensor, training: bool) -> tf.Tensor:
    """Run the network; float32 [n] also where the last layer of a user's own computes in bfloat16."""
    import tensorflow as tf

    return tf.cast(network(pixels, training=training)[:, 0], tf.float32)


def _measure(batch: Batch, probability: tf.Tensor, smoothing: float = 0.0) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the summed loss, and the sums of `Sums`."""
    import keras
    import tensorflow as tf

    target = batch.labels * (1 - smoothing) + smoothing / 2
    losses = keras.losses.binary_crossentropy(target[:, None], probability[:, None])
    correct = tf.cast((probability > 0.5) == (batch.labels > 0.5), tf.float32)
    loss = tf.reduce_sum(losses * batch.weights)
    return loss, tf.stack([loss, tf.reduce_sum(correct * batch.weights), tf.reduce_sum(batch.weights)])


def _signature() -> list[tf.TensorSpec]:
    """A batch of any number of photos."""
    import tensorflow as tf

    rows = {
        "transforms": [None, 8],
        "color_factors": [None, 3],
        "cutouts": [None, 4],
        "labels": [None],
        "weights": [None],
    }
    shapes = {"pixels": [None, None, None, 3], **rows, "photos": [], "first": []}
    types = {"pixels": tf.uint8, "first": tf.int32}
    return [tf.TensorSpec(shapes[name], types.get(name, tf.float32), name) for name in Batch._fields]
