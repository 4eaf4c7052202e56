"""The service with a small model trained on drawn photos, for tests of the web page.

    python -m tests.support.browser_served STORE PORT [ZIP]

Trains on the labelled photos of ZIP first, if given. It runs without Ray, which would take half a
minute to start and changes neither the page nor the routes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import pytest
import uvicorn

import pawcast
from pawcast import recipes, registry
from pawcast.data import sources
from pawcast.registry import WEIGHTS
from pawcast.runtime.tensorflow import configure_tensorflow
from pawcast.store import open_store
from pawcast.vision import preprocess
from pawcast.vision.preprocess import Preprocessing
from pawcast_serve.api import create_api
from pawcast_serve.classifier import Classifier
from tests.support.services import free_port, started_process, wait_for

MODEL = "pets"
_READY_SECONDS = 120


class PageServer(NamedTuple):
    """A running service in a process of its own."""

    url: str
    process: subprocess.Popen[str]

    def stop(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.wait()


@contextmanager
def page_server(store: Path, labelled: Path | None = None) -> Iterator[PageServer]:
    """Run the service until the block ends.

    Args:
        store: The folder of the store.
        labelled: A zip of labelled photos to train on first; None for a service without a model.
    """
    port = free_port()
    arguments = [str(store), str(port), *([str(labelled)] if labelled else [])]
    path = "readyz" if labelled else "healthz"
    command = ("-m", "tests.support.browser_served", *arguments)
    with started_process(*command, environment=dict(os.environ)) as process:
        server = PageServer(f"http://127.0.0.1:{port}", process)

        def is_ready() -> bool:
            if process.poll() is not None:
                pytest.fail(f"the service ended: {process.communicate()[1][-2000:]}")
            try:
                return httpx.get(f"{server.url}/{path}", timeout=60).status_code == 200
            except httpx.TransportError:
                return False

        wait_for(is_ready, _READY_SECONDS)
        yield server


def train(store_uri: str, labelled: str, epochs: int = 8) -> None:
    """Train the network of the `smoke` recipe with Keras's `fit`, and register it."""
    configure_tensorflow(2)
    import keras

    from pawcast.models import build
    from pawcast.models import weights as weights_file

    recipe = recipes.resolve("smoke", ["image_size=64", "dropout=0.2", f"epochs={epochs}"])
    keras.utils.set_random_seed(1)
    network = build.build_model(recipe)
    listed = sources.scan(labelled, ["cat", "dog"]).photos
    photos = zip(listed, sources.read(labelled, listed), strict=True)
    loaded = [(preprocess.load_image(content, recipe.image_size), photo.label) for photo, content in photos]
    order = np.random.default_rng(1).permutation(len(loaded))
    pixels = np.stack([loaded[i][0] for i in order]).astype(np.float32) / 255
    labels = np.array([loaded[i][1] for i in order], np.float32)
    network.compile(keras.optimizers.Adam(2e-3), "binary_crossentropy", metrics=["accuracy"])
    validation = len(pixels) // 6
    history = network.fit(
        pixels[validation:],
        labels[validation:],
        validation_data=(pixels[:validation], labels[:validation]),
        epochs=epochs,
        batch_size=32,
        verbose=0,
    ).history
    registry.register(
        open_store(store_uri),
        MODEL,
        {WEIGHTS: weights_file.dump(network)},
        run="drawn",
        created=datetime.now(UTC).isoformat(),
        code=pawcast.__version__,
        recipe=recipe,
        dataset="drawn",
        dataset_sha256="0" * 64,
        classes=["cat", "dog"],
        preprocessing=Preprocessing(image_size=recipe.image_size),
        metrics={"val_acc": float(history["val_accuracy"][-1])},
        architecture="",
    )


def main(store: str, port: str, labelled: str | None = None) -> None:
    if labelled:
        train(store, labelled)
    api = create_api(Classifier(open_store(store), f"{MODEL}@latest"))
    uvicorn.run(api, host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main(*sys.argv[1:])
