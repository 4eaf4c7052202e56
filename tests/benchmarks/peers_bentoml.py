"""BentoML: the photos that wait are one batch, whether a request holds one photo or many.

https://docs.bentoml.com/en/latest/get-started/adaptive-batching.html
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import bentoml
import numpy as np
from peers_serve import MAX_BATCH, compiled, load, resize
from PIL.Image import Image


@bentoml.service(workers=1, traffic={"timeout": 60, "concurrency": 256}, logging={"access": {"enabled": False}})
class Classifier:
    def __init__(self) -> None:
        network = load()
        self.size, self.run = network.input_shape[1], compiled(network)

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=60_000)
    def classify(self, photos: list[Image]) -> list[float]:
        return self.run(np.stack([resize(photo, self.size) for photo in photos]))


if __name__ == "__main__":
    os.environ["BENTOML_DO_NOT_TRACK"] = "1"
    program = Path(sys.executable).with_name("bentoml")
    here = Path(__file__).resolve()
    service = [f"{here.stem}:Classifier", "--working-dir", str(here.parent)]
    os.execv(program, [str(program), "serve", *service, "--host", "127.0.0.1", "--port", sys.argv[1]])
