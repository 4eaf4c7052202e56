"""A plain service: FastAPI, Pillow and `model.predict`.

https://fastapi.tiangolo.com/tutorial/request-files/, https://keras.io/api/models/model_training_apis/#predict-method
"""

import sys
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, UploadFile
from peers_serve import MAX_BATCH, decode, load

app = FastAPI()
network = load()


# One at a time: `predict` in FastAPI's many threads at once takes several times as long.
@app.post("/one")
async def one(photo: UploadFile) -> float:
    return predict([photo])[0]


@app.post("/many")
async def many(photos: list[UploadFile]) -> list[float]:
    return predict(photos)


def predict(photos: list[UploadFile]) -> list[float]:
    return scores(np.stack([decode(photo.file, network.input_shape[1]) for photo in photos]))


def scores(pixels: np.ndarray) -> Any:
    return network.predict(pixels / np.float32(255), verbose=0)[:, 0].tolist()


if __name__ == "__main__":
    for count in (1, MAX_BATCH):
        scores(np.zeros((count, *network.input_shape[1:]), np.uint8))
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
