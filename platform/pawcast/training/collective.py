"""Sums of tensors over all ranks: in shared memory within a node, else by TensorFlow's strategy.

Keras 3's `fit` fails under `MultiWorkerMirroredStrategy` (keras-team/keras#20585), so only the
strategy's public all-reduce is used, in a training step of our own. It is a ring over gRPC on CPUs
and NCCL on GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ray.train
import ray.train.collective

from pawcast.runtime.tensorflow import keras, tf
from pawcast.training.shared_memory import SharedMemory

# Gradients travel in messages of this size: the first leave while the last are still computed.
_BYTES_PER_PACK = 8 * 2**20


class Collective:
    """All ranks of a run, able to sum tensors.

    Create it on every rank, before any other TensorFlow operation. It returns once all have joined.

    Args:
        rank: This rank.
        world: How many ranks there are.
        memory: What they sum in, if all are on one node and compute on its CPUs.
    """

    def __init__(self, rank: int, world: int, memory: SharedMemory | None = None) -> None:
        self.rank, self.world, self._memory = rank, world, memory
        self._strategy = tf.distribute.MultiWorkerMirroredStrategy() if world > 1 else None

    def run(self, function: Callable[[], Any]) -> Any:
        """Run a function that may call `all_reduce`, inside a `tf.function` and on all ranks."""
        return function() if self._strategy is None else self._strategy.run(function)

    def all_reduce(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Return the sum of each tensor over all ranks, which is the same on each to the last bit.

        Args:
            tensors: Of one dtype.
        """
        if self._strategy is None:
            return list(tensors)
        if self._memory is not None:
            totals = tf.numpy_function(self._memory.sum, tensors, [tensor.dtype for tensor in tensors])
            return [tf.ensure_shape(total, tensor.shape) for total, tensor in zip(totals, tensors, strict=True)]
        options = tf.distribute.experimental.CommunicationOptions(bytes_per_pack=_BYTES_PER_PACK)
        # The sum is placed on the device of its inputs. A tensor from outside of `run` has a device
        # only after it is copied.
        copies = [tf.identity(tensor) for tensor in tensors]
        return list(tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, copies, options=options))

    def broadcast(self, variables: Sequence[keras.Variable]) -> None:
        """Give every rank the values of rank 0: a sum to which the other ranks add zeros."""
        if self.world == 1:
            return
        factor = float(self.rank == 0)
        # A message holds tensors of one dtype, and an optimizer counts its steps in integers.
        for dtype in sorted({variable.dtype for variable in variables}):
            same_dtype = [variable for variable in variables if variable.dtype == dtype]

            @tf.function
            def values_of_rank_0(same_dtype: list[Any] = same_dtype) -> list[tf.Tensor]:
                values = [tf.convert_to_tensor(variable) for variable in same_dtype]
                return self.run(lambda: self.all_reduce([value * tf.cast(factor, value.dtype) for value in values]))

            for variable, value in zip(same_dtype, values_of_rank_0(), strict=True):
                variable.assign(value)


def join(on_gpus: bool) -> Collective:
    """Join the ranks of the run that this process is a Ray Train worker of.

    Args:
        on_gpus: Whether the network is computed on GPUs.

    Raises:
        ClusterError: If the workers of one node can't share memory.
    """
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    memory = None
    if not on_gpus and 1 < world == context.get_local_world_size():
        memory = SharedMemory(rank, world, ray.train.collective.broadcast_from_rank_zero)
    return Collective(rank, world, memory)
