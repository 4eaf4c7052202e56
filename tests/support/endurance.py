"""Scenarios that stress a service on real replicas; the caller checks what each returns.

`tests/chaos/test_serving.py` runs them briefly, `tests/benchmarks/endurance.py` at full length.
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from pawcast import registry
from pawcast.inference.engine import build_network
from pawcast.registry import WEIGHTS, ModelVersion
from pawcast.store import Store
from tests.support.cluster import Cluster
from tests.support.load import Client, Form, Response, flood, growth, memory, quantile, rate
from tests.support.services import wait_for

# Enough connections to keep a replica busy while other requests are sent and received.
_BUSY_CONNECTIONS = 8
# More connections than requests that wait for a response, so that they never limit the load.
_MANY_CONNECTIONS = 160
# Time for the proxy to notice that a replica has ended.
_PROXY_SECONDS = 0.5
_READY_SECONDS = 120


class Overload(NamedTuple):
    """The result of `overload`.

    Attributes:
        before: Photos a second that the service can answer, measured before.
        offered: Photos a second that it was sent.
        answered: Photos a second that it answered meanwhile.
        after: Photos a second that it can answer, measured afterwards.
        statuses: Number of requests by HTTP status.
        unexplained: Refusals without `Retry-After`.
        median: Median latency of answered requests in seconds.
        p99: 99th percentile of that latency.
        refused_p99: 99th percentile of the latency of refused requests in seconds.
        growth: Relative growth of the replica's memory since the first tenth of the time.
        memory: Bytes of the replica at the end.
    """

    before: float
    offered: float
    answered: float
    after: float
    statuses: dict[int, int]
    unexplained: int
    median: float
    p99: float
    refused_p99: float
    growth: float
    memory: int


def overload(cluster: Cluster, forms: Sequence[Form], seconds: float, factor: float = 2) -> Overload:
    """Send a service `factor` times the load that it can answer, for `seconds`."""
    probe = max(3.0, seconds / 6)
    before = capacity(cluster.url, forms, probe)
    requests = factor * before / statistics.fmean(form.photos for form in forms)
    with memory(cluster.replicas()) as samples, flood(cluster.url, forms, _MANY_CONNECTIONS, requests) as responses:
        time.sleep(seconds)
    after = capacity(cluster.url, forms, probe)
    good = [response.seconds for response in responses if response.status == 200]
    refused = [response for response in responses if response.status in (429, 503)]
    return Overload(
        before=before,
        offered=sum(forms[response.form].photos for response in responses) / seconds,
        answered=rate(responses, forms),
        after=after,
        statuses=_statuses(responses),
        unexplained=sum(not response.retry_after for response in refused),
        median=statistics.median(good),
        p99=quantile(good, 0.99),
        refused_p99=quantile([response.seconds for response in refused], 0.99) if refused else 0,
        growth=growth(samples),
        memory=samples[-1],
    )


def capacity(url: str, forms: Sequence[Form], seconds: float) -> float:
    """Return the photos a second that a busy service answers."""
    with flood(url, forms, _BUSY_CONNECTIONS) as responses:
        time.sleep(seconds)
    assert {response.status for response in responses} == {200}, responses[-1]
    return rate(responses, forms)


class Killed(NamedTuple):
    """The result of `kill`.

    Attributes:
        requests: Requests sent.
        in_flight: Requests in progress, on either replica, when the replica was killed.
        lost: Failed requests that were in flight, or that started within half a second, before the
            proxy noticed.
        failed: Requests that failed later. There should be none.
        pause: Longest time in seconds without a response.
        recovery: Seconds until a new replica was ready.
    """

    requests: int
    in_flight: int
    lost: list[Response]
    failed: list[Response]
    pause: float
    recovery: float


def kill(cluster: Cluster, forms: Sequence[Form], connections: int, settled: float) -> Killed:
    """Send SIGKILL to one of two replicas under load, and wait for its successor."""
    replicas = cluster.replicas()
    assert len(replicas) == 2
    with flood(cluster.url, forms, connections) as responses:
        time.sleep(settled)
        killed = time.monotonic()
        os.kill(min(replicas), signal.SIGKILL)
        wait_for(lambda: len(cluster.replicas() - {min(replicas)}) == 2, _READY_SECONDS)
        recovery = time.monotonic() - killed
        time.sleep(settled)
    in_flight = [response for response in responses if response.started <= killed <= response.ended]
    failed = [response for response in responses if response.status != 200]
    ends = sorted(response.ended for response in responses if response.status == 200)
    return Killed(
        requests=len(responses),
        in_flight=len(in_flight),
        lost=[response for response in failed if response.started <= killed + _PROXY_SECONDS],
        failed=[response for response in failed if response.started > killed + _PROXY_SECONDS],
        pause=max(later - earlier for earlier, later in pairwise(ends)),
        recovery=recovery,
    )


class Rolled(NamedTuple):
    """The result of `roll`.

    Attributes:
        models: Number of requests answered by each version.
        failed: Requests that failed. There should be none.
        mixed: Responses with scores of another version than they name. There should be none.
        seconds: Seconds from the promotion to the first response of the new version.
        both: Seconds during which both versions answered requests.
    """

    models: dict[str, int]
    failed: list[Response]
    mixed: list[Response]
    seconds: float
    both: float


def roll(cluster: Cluster, store: Store, name: str, forms: Sequence[Form], connections: int, settled: float) -> Rolled:
    """Promote another version under load; compare all scores, bit by bit, with those without load.

    Args:
        cluster: The cluster that serves `name`.
        store: The model's store.
        name: `name@ref`, such as `catdog@production`. The ref is moved.
        forms: The requests.
        connections: Requests at once.
        settled: Seconds of load before and after.
    """
    old = registry.resolve(store, name)
    expected = {(old.name, i): _scores_without_load(cluster, form) for i, form in enumerate(forms)}
    new = another(store, old)
    with flood(cluster.url, forms, connections) as responses:
        time.sleep(settled)
        promoted = time.monotonic()
        registry.move_ref(store, old.model, name.partition("@")[2], new.version)
        wait_for(lambda: all(response.model == new.name for response in responses[-20:]), _READY_SECONDS)
        time.sleep(settled)
    expected |= {(new.name, i): _scores_without_load(cluster, form) for i, form in enumerate(forms)}
    good = [response for response in responses if response.status == 200]
    first = min(response.ended for response in good if response.model == new.name)
    return Rolled(
        models=dict(Counter(response.model for response in good)),
        failed=[response for response in responses if response.status != 200],
        mixed=[response for response in good if response.scores != expected[response.model, response.form]],
        seconds=first - promoted,
        both=max(response.ended for response in good if response.model == old.name) - first,
    )


def another(store: Store, version: ModelVersion) -> ModelVersion:
    """Register a version with other scores: the same network, another bias in the last layer."""
    from pawcast.models import weights as weights_file

    network = build_network(version.recipe, registry.read_file(store, version, WEIGHTS))
    output = network.layers[-1]
    kernel, bias = output.get_weights()
    output.set_weights([kernel, bias + 1])
    fields = {name: getattr(version, name) for name in ModelVersion.model_fields}
    for name in ("schema_version", "model", "version", "files"):
        del fields[name]
    return registry.register(store, version.model, {WEIGHTS: weights_file.dump(network)}, **fields)


class Soak(NamedTuple):
    """The result of `soak`.

    Attributes:
        photos: Photos answered.
        seconds: Seconds that this took.
        statuses: Number of requests by HTTP status.
        growth: Relative growth of the replica's memory since the first tenth of the time.
        memory: Bytes of the replica at the end.
    """

    photos: int
    seconds: float
    statuses: dict[int, int]
    growth: float
    memory: int


def soak(cluster: Cluster, forms: Sequence[Form], photos: int) -> Soak:
    """Send a service this many photos as fast as it answers."""
    requests = -(-photos // forms[0].photos)
    started = time.monotonic()
    with (
        memory(cluster.replicas()) as samples,
        flood(cluster.url, forms, _BUSY_CONNECTIONS, requests=requests) as responses,
    ):
        pass
    return Soak(
        photos=sum(forms[response.form].photos for response in responses if response.status == 200),
        seconds=time.monotonic() - started,
        statuses=_statuses(responses),
        growth=growth(samples),
        memory=samples[-1],
    )


class Malformed(NamedTuple):
    """The result of `malformed`.

    Attributes:
        photos: Photos sent.
        usable: Photos that got a score: not all damage can be detected.
        statuses: Number of requests by HTTP status.
        slowest: Seconds of the slowest request.
        odd: Requests that were too slow, or without a score or an error for each photo. There
            should be none.
        crashed: Whether a replica ended.
        unchanged: Whether a good photo has the same score as before.
    """

    photos: int
    usable: int
    statuses: dict[int, int]
    slowest: float
    odd: list[Response]
    crashed: bool
    unchanged: bool


def malformed(
    cluster: Cluster, photos: Sequence[bytes], good: bytes, together: int, connections: int, seconds: float
) -> Malformed:
    """Send malformed photos, `together` in a form. A request may take at most `seconds`."""
    replicas, before = cluster.replicas(), _scores_without_load(cluster, Form.of([good]))
    forms = [Form.of(photos[start : start + together]) for start in range(0, len(photos), together)]
    with flood(cluster.url, forms, connections, requests=len(forms)) as responses:
        pass
    return Malformed(
        photos=sum(form.photos for form in forms),
        usable=sum(score is not None for response in responses for score in response.scores),
        statuses=_statuses(responses),
        slowest=max(response.seconds for response in responses),
        odd=[
            response
            for response in responses
            if response.seconds > seconds or not _is_complete(response, forms[response.form])
        ],
        crashed=cluster.replicas() != replicas,
        unchanged=_scores_without_load(cluster, Form.of([good])) == before,
    )


def _scores_without_load(cluster: Cluster, form: Form) -> tuple[float | None, ...]:
    """Return the scores of a form without other load."""
    with Client(cluster.url) as client:
        return client.submit(form).scores


def _statuses(responses: Sequence[Response]) -> dict[int, int]:
    return dict(Counter(response.status for response in responses))


def _is_complete(response: Response, form: Form) -> bool:
    return len(response.scores) == form.photos if response.status == 200 else response.status == 422
