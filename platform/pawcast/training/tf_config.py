"""Ray Train's backend for TensorFlow workers: it sets `TF_CONFIG`.

Ray's own `TensorflowConfig` does that as well, but also switches the workers to Keras 2.
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig


class _TensorFlowCluster(Backend):
    """Sets `TF_CONFIG` in each worker before TensorFlow is imported there."""

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        addresses = worker_group.execute(_free_address)
        ray.get(
            [
                worker_group.execute_single_async(i, _set_tf_config, addresses=addresses, index=i)
                for i in range(len(addresses))
            ]
        )


@dataclass
class TensorFlowClusterConfig(BackendConfig):
    """The `backend_config` of a `DataParallelTrainer` whose workers use TensorFlow and Keras 3."""

    @property
    def backend_cls(self) -> type[Backend]:
        return _TensorFlowCluster


def _free_address() -> str:
    with closing(socket.socket()) as probe:
        probe.bind(("", 0))
        return f"{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"


def _set_tf_config(addresses: list[str], index: int) -> None:
    task = {"type": "worker", "index": index}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
