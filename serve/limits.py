"""Limits of one replica. `pawcast.vision.decode` has the limits of a single photo."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt

from pawcast.errors import BusyError


class ServiceLimits(BaseModel):
    """Limits of one replica. `args: {limits: {…}}` in `config.yaml` changes them.

    Attributes:
        body_bytes: Largest body of a request in bytes, after decompression. A larger body gets a
            413.
        json_bytes: Largest JSON part of a `/v2` body in bytes. A larger one gets a 413: parsed
            numbers take much more memory than their text.
        photos: Most photos in one request. More get a 400.
        waiting_photos: Most photos that are accepted and not yet answered. Further requests get a
            429. Together with the engine's speed, this bounds the latency of an accepted request.
        requests: Most requests at once whose body is there. Further ones get a 429.
        arriving: Most requests at once whose body is arriving. For a further one, the one that has
            been idle longest gets a 408.
        held_bytes: Most bytes of request bodies in memory, all requests together. Further requests
            get a 429, unless a body that is arriving is idle; that one gets a 408.
        receive_seconds: Longest time in seconds for a body to arrive. A slower one gets a 408.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    body_bytes: PositiveInt = 64 * 2**20
    json_bytes: PositiveInt = 8 * 2**20
    photos: PositiveInt = 256
    waiting_photos: PositiveInt = 1_024
    requests: PositiveInt = 256
    arriving: PositiveInt = 1_024
    held_bytes: PositiveInt = 512 * 2**20
    receive_seconds: PositiveFloat = 60


def busy(received: str, expected: str) -> BusyError:
    """Return the error for a request that exceeds a limit now, and may not in a second."""
    return BusyError("The server is busy", received=received, expected=expected, fix="try again in a second")
