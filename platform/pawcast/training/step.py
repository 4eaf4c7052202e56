"""The graph functions of a run: the training step, the validation step, and sums over ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from pawcast.models import folding
from pawcast.models.build import head_variables
from pawcast.models.layers import dropout
from pawcast.recipes.schema import Recipe
from pawcast.runtime.tensorflow import keras, tf
from pawcast.training.collective import Collective
from pawcast.training.loader import Batch
from pawcast.training.metrics import MetricSums
from pawcast.vision.augment import warp
from pawcast.vision.augment.sample import AugmentationParams

# A batch of any number of photos.
_SIGNATURE = [
    Batch(
        pixels=tf.TensorSpec([None, None, None, 3], tf.uint8),
        augmentation=AugmentationParams(*(tf.TensorSpec([None, n]) for n in (8, 3, 4))),
        labels=tf.TensorSpec([None]),
        weights=tf.TensorSpec([None]),
        photos=tf.TensorSpec([]),
        first=tf.TensorSpec([], tf.int32),
    )
]


class TrainStep:
    """What one rank computes for a batch.

    Args:
        recipe: What to train.
        model: The built network.
        optimizer: Built for the network's trainable variables.
        collective: Joins the ranks.
        class_weights: What a photo of each class counts in the training loss; all alike if None.

    Attributes:
        world: How many ranks take part.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: keras.Model,
        optimizer: keras.Optimizer,
        collective: Collective,
        class_weights: tuple[float, float] | None = None,
    ) -> None:
        self._recipe, self._model, self._optimizer, self._collective = recipe, model, optimizer, collective
        self._class_weights = class_weights
        self._network = folding.fold_frozen_batch_norm(model)
        self._all_reduce = tf.function(lambda values: collective.run(lambda: collective.all_reduce([values]))[0])
        self._compiled: dict[tuple[Any, ...], Callable[..., tf.Tensor]] = {}
        self.world = collective.world

    def train(self, batch: Batch, epoch: int, step: int) -> tf.Tensor:
        """Update the weights by one global batch.

        Args:
            batch: This rank's slice of it.
            epoch: From 0.
            step: Of the whole run, from 0.

        Returns:
            This rank's sums, float32 [3], in the order of `MetricSums`. The loss is that of
            smoothed labels if the recipe smooths them, and weighted if it weights the classes.
        """
        dropout.set_batch_position(self._model, self._recipe.seed, step, int(batch.first), int(batch.photos))
        return self._graph(self._training_graph, self._recipe.size_at(epoch), self._is_frozen(epoch))(batch)

    def validate(self, batches: Iterable[Batch], size: int, mirror: bool = False) -> MetricSums:
        """Return the sums over the photos of all ranks.

        Args:
            batches: This rank's slices.
            size: Height and width of their photos.
            mirror: Take the mean of the predictions for a photo and for its mirror image.
        """
        validate = self._graph(self._validation_graph, size, mirror)
        return self.total([validate(batch) for batch in batches])

    def total(self, sums: list[tf.Tensor]) -> MetricSums:
        """Return the sums over steps and ranks, which are the same on all ranks."""
        return MetricSums(*self.sum_over_ranks(np.sum([np.asarray(s, np.float64) for s in sums], axis=0)))

    def sum_over_ranks(self, values: Sequence[float] | np.ndarray) -> list[float]:
        """Return the sum of each number over ranks, in float64; the same on all ranks."""
        totals: list[float] = self._all_reduce(np.asarray(values, np.float64)).numpy().tolist()
        return totals

    def augment_only(self, batch: Batch, epoch: int) -> float:
        """Run only the augmentation of `train`, for timing; return the mean pixel."""
        return float(self._graph(self._augmentation_graph, self._recipe.size_at(epoch))(batch))

    def all_reduce_only(self, epoch: int) -> float:
        """Run only the all-reduce of `train`, for timing; return one of its sums."""
        return float(self._graph(self._all_reduce_graph, self._is_frozen(epoch))())

    def _is_frozen(self, epoch: int) -> bool:
        return epoch < self._recipe.frozen_epochs

    def _trained_variables(self, frozen: bool) -> list[keras.Variable]:
        return head_variables(self._model) if frozen else list(self._model.trainable_variables)

    def _graph(self, make: Callable[..., Any], *arguments: int) -> Callable[..., Any]:
        """Return the one graph of a kind, photo size and phase, for batches of any length."""
        key = (make, *arguments)
        if key not in self._compiled:
            self._compiled[key] = make(*arguments)
        return self._compiled[key]

    def _training_graph(self, size: int, frozen: bool) -> Callable[..., tf.Tensor]:
        recipe, network, collective = self._recipe, self._network, self._collective
        variables = self._trained_variables(frozen)

        @tf.function(input_signature=_SIGNATURE)
        def step(batch: Batch) -> tf.Tensor:
            def on_this_rank() -> tuple[list[tf.Tensor], tf.Tensor]:
                pixels = warp.augment_batch(recipe.augment, batch.pixels, batch.augmentation, size)
                with tf.GradientTape() as tape:
                    # A frozen backbone also keeps its statistics and drops nothing.
                    probability = _probability(network, pixels, training=not frozen)
                    loss, sums = _loss_and_sums(batch, probability, recipe.label_smoothing, self._class_weights)
                    # Divided by the photos of all ranks: the sum of the gradients over ranks is
                    # then the gradient of the mean loss of the global batch.
                    loss = loss / batch.photos
                return collective.all_reduce(tape.gradient(loss, variables)), sums

            gradients, sums = collective.run(on_this_rank)
            # Outside of `run`: Keras's optimizer refuses to be called in a replica context.
            self._optimizer.apply(gradients, variables)
            return sums

        return step

    def _augmentation_graph(self, size: int) -> Callable[..., tf.Tensor]:
        @tf.function(input_signature=_SIGNATURE)
        def step(batch: Batch) -> tf.Tensor:
            return tf.reduce_mean(warp.augment_batch(self._recipe.augment, batch.pixels, batch.augmentation, size))

        return step

    def _all_reduce_graph(self, frozen: bool) -> Callable[..., tf.Tensor]:
        # Gradients have the shapes of these variables.
        variables = self._trained_variables(frozen)

        def on_this_rank() -> list[tf.Tensor]:
            return self._collective.all_reduce([tf.convert_to_tensor(variable) for variable in variables])

        @tf.function
        def step() -> tf.Tensor:
            return tf.add_n([tf.reshape(total, [-1])[0] for total in self._collective.run(on_this_rank)])

        return step

    def _validation_graph(self, size: int, mirror: bool) -> Callable[..., tf.Tensor]:
        network = self._network

        @tf.function(input_signature=_SIGNATURE)
        def step(batch: Batch) -> tf.Tensor:
            pixels = warp.rescale(batch.pixels)
            pixels.set_shape([None, size, size, 3])
            probability = _probability(network, pixels, training=False)
            if mirror:
                probability = (probability + _probability(network, pixels[:, :, ::-1], training=False)) / 2
            return _loss_and_sums(batch, probability)[1]

        return step


def _probability(network: keras.Model, pixels: tf.Tensor, training: bool) -> tf.Tensor:
    """Return the network's output as float32 [n]; a user's own network may end in bfloat16."""
    return tf.cast(network(pixels, training=training)[:, 0], tf.float32)


def _loss_and_sums(
    batch: Batch, probability: tf.Tensor, smoothing: float = 0.0, class_weights: tuple[float, float] | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the summed loss, float32 [], and `MetricSums` as float32 [3]."""
    target = batch.labels * (1 - smoothing) + smoothing / 2
    losses = keras.losses.binary_crossentropy(target[:, None], probability[:, None])
    if class_weights:
        losses *= tf.gather(class_weights, tf.cast(batch.labels, tf.int32))
    correct = tf.cast((probability > 0.5) == (batch.labels > 0.5), tf.float32)
    loss = tf.reduce_sum(losses * batch.weights)
    return loss, tf.stack([loss, tf.reduce_sum(correct * batch.weights), tf.reduce_sum(batch.weights)])
