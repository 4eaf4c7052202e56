"""The real application with a small model trained on drawn photos: `python -m tests.support.browser_served STORE PORT [ZIP]`.

Ray is left out: it would cost half a minute, and the page and the routes are the same without it.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import numpy as np
import uvicorn

import pawcast
from pawcast import recipes, registry
from pawcast.data import sources
from pawcast.registry import WEIGHTS
from pawcast.runtime.tensorflow import configure_tensorflow
from pawcast.store import open_store
from pawcast.vision import preprocess
from pawcast_serve.api import create_api
from pawcast_serve.classifier import Classifier

MODEL = "pets"


def train(store_uri: str, labelled: str, epochs: int = 8) -> None:
    """Train the smoke recipe's network and register it: its plain fit, on the last photos validated."""
    configure_tensorflow(2)
    import keras

    from pawcast.models import build
    from pawcast.models import weights as files

    config = recipes.resolve("smoke", ["image_size=64", "dropout=0.2", f"epochs={epochs}"])
    keras.utils.set_random_seed(1)
    network = build.build_model(config)
    listed = sources.scan(labelled, ["cat", "dog"])
    data = zip(listed, sources.read(labelled, listed), strict=True)
    loaded = [(preprocess.load_image(content, config.image_size), photo.label) for photo, content in data]
    order = np.random.default_rng(1).permutation(len(loaded))
    pixels = np.stack([loaded[i][0] for i in order]).astype(np.float32) / 255
    labels = np.array([loaded[i][1] for i in order], np.float32)
    network.compile(keras.optimizers.Adam(2e-3), "binary_crossentropy", metrics=["accuracy"])
    kept = len(pixels) // 6
    history = network.fit(
        pixels[kept:],
        labels[kept:],
        validation_data=(pixels[:kept], labels[:kept]),
        epochs=epochs,
        batch_size=32,
        verbose=0,
    ).history
    store = open_store(store_uri)
    registry.register(
        store,
        MODEL,
        {WEIGHTS: files.dump(network)},
        run="drawn",
        created=datetime.now(UTC).isoformat(),
        code=pawcast.__version__,
        recipe=config,
        dataset="drawn",
        dataset_sha256="0" * 64,
        classes=["cat", "dog"],
        preprocessing=registry.Preprocessing(image_size=config.image_size),
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
