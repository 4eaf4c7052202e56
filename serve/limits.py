"""What one replica takes on, at most. The photos' own limits (bytes, pixels, scans) are those of `pawcast.vision.decode`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt


class ServiceLimits(BaseModel):
    """Limits of a replica; `args: {limits: {…}}` in `config.yaml` changes them.

    Attributes:
        body_bytes: Largest body, after it was inflated.
        json_bytes: Largest JSON part of a body: its numbers take far more memory than its text.
        photos: Most photos in a request.
        waiting_photos: Most photos taken on and not yet answered; what comes on top gets a 429. With the engine's
            speed this bounds how long an accepted request takes.
        requests: Most requests that are received or answered at once; what comes on top gets a 429.
        held_bytes: Most memory for the bodies of all requests together; what comes on top gets a 429.
        receive_seconds: Longest time for a body to arrive; a slower client gets a 408.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    body_bytes: PositiveInt = 64 * 2**20
    json_bytes: PositiveInt = 8 * 2**20
    photos: PositiveInt = 256
    waiting_photos: PositiveInt = 1_024
    requests: PositiveInt = 256
    held_bytes: PositiveInt = 512 * 2**20
    receive_seconds: PositiveFloat = 60
