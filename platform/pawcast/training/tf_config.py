"""Ray Train's backend for TensorFlow workers: it sets `TF_CONFIG`.

Ray's own `TensorflowConfig` does that as well, but also switches the workers to Keras 2.
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig


class _TensorFlowCluster(Backend):
    """Sets `TF_CONFIG` in each worker before TensorFlow is imported there."""

    def on_training_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        worker_group.execute(_set_tf_config, worker_group.execute(_free_address))


class TensorFlowClusterConfig(BackendConfig):
    """The `backend_config` of a `DataParallelTrainer` whose workers use TensorFlow and Keras 3."""

    backend_cls = _TensorFlowCluster


def _free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return f"{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"


def _set_tf_config(addresses: list[str]) -> None:
    task = {"type": "worker", "index": ray.train.get_context().get_world_rank()}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
