"""Serve's choice of a replica for a request, with a bound on the wait for one."""

from __future__ import annotations

import asyncio
from typing import Any

from ray.serve._private.request_router import PowerOfTwoChoicesRequestRouter
from ray.serve.exceptions import BackPressureError
from ray.serve.request_router import PendingRequest, RunningReplica

_WAIT_SECONDS = 3
_RETRY_SECONDS = 5


class NoReplicaError(BackPressureError):
    """No replica takes requests. Serve's proxy answers 503 with `Retry-After` and this JSON."""

    @property
    def message(self) -> dict[str, str]:
        """The JSON of the response."""
        return {"error": "No replica of the service is ready; it is starting, or being replaced. Try again later."}


class BoundedWaitRouter(PowerOfTwoChoicesRequestRouter):
    """Serve's default router, but a request waits only some seconds for a replica.

    Serve would let it wait until there is a replica, which takes a minute if the only one was
    killed. The router runs in Serve's proxy, which also takes over when HAProxy has no replica.
    """

    async def _choose_replica_for_request(self, pending_request: PendingRequest, **options: Any) -> RunningReplica:
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                return await super()._choose_replica_for_request(pending_request, **options)
        except TimeoutError:
            raise NoReplicaError(0, 0, 503, _RETRY_SECONDS) from None
