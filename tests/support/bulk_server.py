"""The real service in a process of its own, with a checksum in place of the network.

    python -m tests.support.bulk_server STORE MODEL@REF PORT SECONDS

For tests of the client. API, body limits, decoding, batches and registry are the service's own,
under uvicorn as Ray Serve runs it. A score is a checksum of the photo's pixels and the version's
number; a batch takes SECONDS. Without TensorFlow the service starts within a second or two.
"""

from __future__ import annotations

import os
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import numpy as np

from pawcast import registry
from pawcast.recipes import resolve
from pawcast.store import Store, open_store
from pawcast.vision.preprocess import Preprocessing


def register(store: Store) -> str:
    """Register a version without a network, and promote it; return its name."""
    version = registry.register(
        store,
        "sums",
        {"weights": b"none"},
        run="none",
        created="2026-01-01T00:00:00Z",
        code="0",
        recipe=resolve("smoke"),
        dataset="none",
        dataset_sha256="0" * 64,
        classes=["cat", "dog"],
        preprocessing=Preprocessing(image_size=16),
        metrics={},
        architecture="",
    )
    registry.move_ref(store, "sums", "production", version.version)
    return version.name


@contextmanager
def serving(store: str, port: int, seconds: float = 0.0, model: str = "sums@production") -> Iterator[str]:
    """Run the service; yield its address once it is ready. It is killed in the end."""
    # Imported here, because the service itself runs without pytest.
    from tests.support.services import started_process, wait_for

    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        try:
            return httpx.get(f"{address}/readyz").is_success
        except httpx.TransportError:
            return False

    arguments = ("-m", "tests.support.bulk_server", store, model, str(port), str(seconds))
    with started_process(*arguments, environment=environment()) as process:
        wait_for(answers, 60)
        yield address


def environment() -> dict[str, str]:
    """The environment of client and service: this one, without settings for Ray and Pawcast."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "PAWCAST_"))}


class Sums:
    """Stands for `pawcast.inference.engine.Engine`."""

    seconds = 0.0
    batch_sizes = (1, 8, 64)

    def __init__(self, version: registry.ModelVersion) -> None:
        self.version, self.size = version, version.preprocessing.image_size

    @classmethod
    def load(cls, store: Store, name: str) -> Sums:
        return cls(registry.resolve(store, name))

    @classmethod
    def from_version(cls, store: Store, version: registry.ModelVersion) -> Sums:
        return cls(version)

    @property
    def info(self) -> dict[str, str]:
        return {"framework": "none"}

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        time.sleep(self.seconds)
        sums = [zlib.crc32(photo.tobytes(), self.version.version) for photo in pixels]
        return (np.array(sums, np.float64) / 2**32).astype(np.float32)


def main(store: str, model: str, port: str, seconds: str) -> None:
    import uvicorn

    from pawcast.inference import engine

    Sums.seconds = float(seconds)
    # Replaced before the service imports it.
    engine.Engine = Sums  # type: ignore[assignment, misc]
    from pawcast_serve.api import create_api
    from pawcast_serve.classifier import Classifier

    uvicorn.run(create_api(Classifier(open_store(store), model)), host="127.0.0.1", port=int(port), log_level="error")


if __name__ == "__main__":
    main(*sys.argv[1:])
