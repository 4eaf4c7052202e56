"""The peers of `train.py`: the article's network and augmentation in other libraries.

    python peers_train.py NAME PHOTOS EPOCHS

Runs in the peers' environment. PHOTOS holds a folder of JPEGs for each class. Prints the seconds
and the loss of each epoch as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

SIZE, BATCH, RATE, MOMENTUM, DROPOUT = 150, 128, 1e-4, 0.9, 0.3
ROTATION, SHIFT, SHEAR, ZOOM = 20, 0.1, 5.7, 0.2
FILTERS, UNITS = (32, 64, 128, 128), 512
CPUS = len(os.sched_getaffinity(0))

Epochs = list[dict[str, float]]


def image_data_generator(photos: Path, epochs: int) -> Epochs:
    """As in the article: ImageDataGenerator reads, resizes and warps each photo; then `fit`."""
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    generator = ImageDataGenerator(
        rescale=1 / 255,
        rotation_range=ROTATION,
        width_shift_range=SHIFT,
        height_shift_range=SHIFT,
        shear_range=SHEAR,
        zoom_range=ZOOM,
        horizontal_flip=True,
        fill_mode="nearest",
    )
    flow = generator.flow_from_directory(
        str(photos), target_size=(SIZE, SIZE), batch_size=BATCH, class_mode="binary", seed=0
    )
    return _fit(flow, epochs)


def tf_data(photos: Path, epochs: int) -> Epochs:
    """tf.data caches decoded photos; Keras's layers augment whole batches."""
    import keras
    import tensorflow as tf
    from keras import layers

    names, labels = _listed(photos)

    def load(name: Any, label: Any) -> tuple[Any, Any]:
        pixels = tf.image.decode_jpeg(tf.io.read_file(name), channels=3)
        return tf.cast(tf.round(tf.image.resize(pixels, (SIZE, SIZE), antialias=True)), tf.uint8), label

    fill: dict[str, Any] = {"fill_mode": "nearest"}
    # RandomShear takes a fraction of a side: the tangent of the angle.
    slant = SHEAR * 3.1416 / 180
    augment = keras.Sequential(
        [
            layers.Rescaling(1 / 255),
            layers.RandomFlip("horizontal"),
            layers.RandomRotation(ROTATION / 360, **fill),
            layers.RandomTranslation(SHIFT, SHIFT, **fill),
            layers.RandomShear(x_factor=slant, **fill),
            layers.RandomZoom((-ZOOM, ZOOM), (-ZOOM, ZOOM), **fill),
        ]
    )
    data = tf.data.Dataset.from_tensor_slices((names, labels)).map(load, tf.data.AUTOTUNE).cache()
    data = data.shuffle(len(names), seed=0).batch(BATCH)
    data = data.map(lambda x, y: (augment(x, training=True), y), tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    return _fit(data, epochs)


def pytorch(photos: Path, epochs: int) -> Epochs:
    """PyTorch: decoded photos in memory, warped by torchvision in a DataLoader's workers."""
    import numpy as np
    import torch
    from PIL import Image
    from torch import nn
    from torch.utils.data import DataLoader, Dataset
    from torchvision.transforms import InterpolationMode, v2

    names, labels = _listed(photos)
    kept = np.stack([np.asarray(Image.open(name).convert("RGB").resize((SIZE, SIZE))) for name in names])
    pixels = torch.from_numpy(kept).permute(0, 3, 1, 2).contiguous()
    warp = v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomAffine(
                ROTATION, (SHIFT, SHIFT), (1 - ZOOM, 1 + ZOOM), SHEAR, interpolation=InterpolationMode.BILINEAR
            ),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )

    class Photos(Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(labels)

        def __getitem__(self, index: int) -> tuple[Any, float]:
            return warp(pixels[index]), float(labels[index])

    torch.manual_seed(0)
    layers: list[nn.Module] = []
    before = 3
    for filters in FILTERS:
        layers += [nn.Conv2d(before, filters, 3), nn.ReLU(), nn.MaxPool2d(2)]
        before = filters
    layers += [nn.Flatten(), nn.Dropout(DROPOUT), nn.LazyLinear(UNITS), nn.ReLU(), nn.LazyLinear(1)]
    network = nn.Sequential(*layers)
    # Gives the lazy layers their shapes.
    network(torch.zeros(1, 3, SIZE, SIZE))
    network.to(memory_format=torch.channels_last)
    for layer in network:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    optimizer = torch.optim.RMSprop(network.parameters(), RATE, alpha=0.9, eps=1e-7, momentum=MOMENTUM)
    loss_of = nn.BCEWithLogitsLoss()
    loader = DataLoader(Photos(), BATCH, shuffle=True, num_workers=CPUS, persistent_workers=True, prefetch_factor=2)
    history: Epochs = []
    for _ in range(epochs):
        started, total = time.perf_counter(), 0.0
        for x, y in loader:
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(network(x.contiguous(memory_format=torch.channels_last))[:, 0], y.float())
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(y)
        history.append({"seconds": time.perf_counter() - started, "loss": total / len(labels)})
    return history


def _fit(data: Any, epochs: int) -> Epochs:
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    relu: dict[str, Any] = {"activation": "relu", "kernel_initializer": "he_uniform"}
    network = keras.Sequential([keras.Input((SIZE, SIZE, 3))])
    for filters in FILTERS:
        network.add(layers.Conv2D(filters, 3, **relu))
        network.add(layers.MaxPooling2D(2))
    network.add(layers.Flatten())
    network.add(layers.Dropout(DROPOUT))
    network.add(layers.Dense(UNITS, **relu))
    network.add(layers.Dense(1, activation="sigmoid"))
    network.compile(keras.optimizers.RMSprop(RATE, momentum=MOMENTUM), "binary_crossentropy", metrics=["accuracy"])
    history: Epochs = []

    class Clock(keras.callbacks.Callback):
        # Before an epoch's first step tf.data often waits ten idle seconds for the thread that
        # tuned the last epoch's iterator. That would be half of an epoch of a dozen steps, so an
        # epoch is timed from its first step.
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if batch == 0:
                self.started = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            history.append({"seconds": time.perf_counter() - self.started, "loss": float(logs["loss"])})

    network.fit(data, epochs=epochs, verbose=0, callbacks=[Clock()])
    return history


def _listed(photos: Path) -> tuple[list[str], list[float]]:
    """Return paths and labels; the classes are in alphabetical order, as in Keras."""
    classes = sorted(folder for folder in photos.iterdir() if folder.is_dir())
    pairs = [(str(path), float(label)) for label, folder in enumerate(classes) for path in sorted(folder.iterdir())]
    return [name for name, _ in pairs], [label for _, label in pairs]


PEERS = {function.__name__: function for function in (image_data_generator, tf_data, pytorch)}

if __name__ == "__main__":
    # As in Pawcast: TensorFlow leaves oneDNN off on CPUs without AVX-512.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    name, photos, epochs = sys.argv[1:]
    sys.stdout.write("\n" + json.dumps(PEERS[name](Path(photos), int(epochs))) + "\n")
