"""Summing tensors over Ray Train's workers: through memory within a node, else with TensorFlow's collectives.

Keras 3's `fit` fails under `MultiWorkerMirroredStrategy` (keras-team/keras#20585) and Ray's TensorFlow
trainer falls back to Keras 2, so only the strategy's public all-reduce is used, in a step of our own:
ring over gRPC between nodes, NCCL on GPUs.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
import ray.train
import ray.train.collective
from ray.train.backend import Backend, BackendConfig

from pawcast.training.shared_memory import SharedMemory

if TYPE_CHECKING:
    import tensorflow as tf

# Gradients travel in packs of this size, so that the first leave while the last are still computed.
_BYTES_PER_PACK = 8 * 2**20


class _TensorFlowCluster(Backend):
    """Tells each worker who the others are, before TensorFlow is imported there."""

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        addresses = worker_group.execute(_free_address)
        ray.get(
            [
                worker_group.execute_single_async(i, _announce, addresses=addresses, index=i)
                for i in range(len(addresses))
            ]
        )


@dataclass
class TensorFlowClusterConfig(BackendConfig):
    """Ray Train's plug for TensorFlow workers: only sets `TF_CONFIG`. Ray's own also switches to Keras 2."""

    @property
    def backend_cls(self) -> type[Backend]:
        return _TensorFlowCluster


class Collective:
    """All ranks of a run, able to add up tensors.

    Create it before any other TensorFlow operation, on every rank; it returns once all have joined.

    Args:
        rank: This rank.
        world: How many there are.
        memory: Joins them where all are on one node and compute on its CPUs.
    """

    def __init__(self, rank: int, world: int, memory: SharedMemory | None = None) -> None:
        self.rank, self.world, self._memory = rank, world, memory
        self._strategy: tf.distribute.Strategy | None = None
        if world > 1:
            import tensorflow as tf

            self._strategy = tf.distribute.MultiWorkerMirroredStrategy()

    def run(self, function: Callable[[], Any]) -> Any:
        """Run a function in which `sum` may be called, inside a `tf.function`. All ranks must call it alike."""
        return function() if self._strategy is None else self._strategy.run(function)

    def sum(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Return each tensor summed over all ranks; the result is the same on each, to the last bit.

        All are of one type.
        """
        if self._strategy is None:
            return list(tensors)
        import tensorflow as tf

        if self._memory is not None:
            totals = tf.numpy_function(self._memory.sum, tensors, [tensor.dtype for tensor in tensors])
            return [tf.ensure_shape(total, tensor.shape) for total, tensor in zip(totals, tensors, strict=True)]
        options = tf.distribute.experimental.CommunicationOptions(bytes_per_pack=_BYTES_PER_PACK)
        context = tf.distribute.get_replica_context()
        # The reduction goes to where its inputs are; a tensor from outside of `run` is nowhere until it is copied.
        placed = [tf.identity(tensor) for tensor in tensors]
        return list(context.all_reduce(tf.distribute.ReduceOp.SUM, placed, options=options))

    def from_rank_zero(self, variables: Sequence[Any]) -> None:
        """Give every rank the values of rank 0: a sum in which the others take part with zeros."""
        if self.world == 1:
            return
        import tensorflow as tf

        mine = float(self.rank == 0)
        # A message holds tensors of one type: an optimizer counts its steps in integers.
        for dtype in sorted({v.dtype for v in variables}):
            alike = [v for v in variables if v.dtype == dtype]

            @tf.function
            def summed(alike: list[Any] = alike) -> list[tf.Tensor]:
                values = [tf.convert_to_tensor(v) for v in alike]
                return self.run(lambda: self.sum([value * tf.cast(mine, value.dtype) for value in values]))

            for variable, value in zip(alike, summed(), strict=True):
                variable.assign(value)


def joined(on_gpus: bool) -> Collective:
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


def _free_address() -> str:
    with closing(socket.socket()) as probe:
        probe.bind(("", 0))
        return f"{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"


def _announce(addresses: list[str], index: int) -> None:
    task = {"type": "worker", "index": index}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
