"""LitServe: an endpoint that batches requests of one photo, and one for requests of many photos.

https://lightning.ai/docs/litserve/features/batching, https://lightning.ai/docs/litserve/features/multiple-endpoints
"""

import sys

import litserve
import numpy as np
from peers_serve import MAX_BATCH, compiled, decode, load

# How long a request of one photo waits for others.
BATCH_SECONDS = 0.005


class One(litserve.LitAPI):
    def setup(self, device: str) -> None:
        network = load()
        self.size, self.run = network.input_shape[1], compiled(network)

    def decode_request(self, request: litserve.Request) -> np.ndarray:
        return decode(request["photo"].file, self.size)

    def predict(self, pixels: np.ndarray) -> list[float]:
        return self.run(pixels)

    # Without a type, which would have FastAPI check each answer.
    def encode_response(self, output):  # type: ignore[no-untyped-def]
        return output


class Many(One):
    def decode_request(self, request: litserve.Request) -> np.ndarray:
        return np.stack([decode(photo.file, self.size) for photo in request.getlist("photos")])


if __name__ == "__main__":
    apis = [One(max_batch_size=MAX_BATCH, batch_timeout=BATCH_SECONDS, api_path="/one"), Many(api_path="/many")]
    server = litserve.LitServer(apis, accelerator="cpu", fast_queue=True)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
