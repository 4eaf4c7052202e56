"""Bad hours of a service, each played through once on real replicas; what happened is returned, and judged elsewhere.

The tests play them in short, `tests/benchmarks/endurance.py` at full length.
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
from tests.support.load import Answer, Client, Form, flood, growth, memory, quantile, rate
from tests.support.services import wait_for

# Enough to keep a replica busy with one request while others are sent and received.
_BUSY = 8
# Never the limit on how much is offered: those that wait for an answer are a few dozen.
_MANY = 160
_NOTICED_SECONDS = 0.5
_READY_SECONDS = 120


class Overload(NamedTuple):
    """A service that is offered more than it can do.

    Attributes:
        before, offered, answered, after: Photos a second: what it can do, what it was then offered, what of that it
            answered, and what it can do when that is over.
        statuses: How many requests ended how.
        unexplained: Refusals without the seconds to wait.
        median, p99: Seconds that requests took that were answered.
        refused_p99: Seconds that refusals took.
        growth: Share by which the replica's memory grew from the end of the first tenth to the end.
        memory: Its bytes at the end.
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
    """Measure what a service can do, offer it a multiple of that for so long, and measure again."""
    probe = max(3.0, seconds / 6)
    before = capacity(cluster.url, forms, probe)
    requests = factor * before / statistics.fmean(form.photos for form in forms)
    with memory(cluster.replicas()) as noted, flood(cluster.url, forms, _MANY, requests) as answers:
        time.sleep(seconds)
    after = capacity(cluster.url, forms, probe)
    good = [answer.seconds for answer in answers if answer.status == 200]
    refused = [answer for answer in answers if answer.status in (429, 503)]
    return Overload(
        before=before,
        offered=sum(forms[answer.form].photos for answer in answers) / seconds,
        answered=rate(answers, forms),
        after=after,
        statuses=_statuses(answers),
        unexplained=sum(not answer.retry_after for answer in refused),
        median=statistics.median(good),
        p99=quantile(good, 0.99),
        refused_p99=quantile([answer.seconds for answer in refused], 0.99) if refused else 0,
        growth=growth(noted),
        memory=noted[-1],
    )


def capacity(url: str, forms: Sequence[Form], seconds: float) -> float:
    """Photos a second that a service answers when it always has something to do."""
    with flood(url, forms, _BUSY) as answers:
        time.sleep(seconds)
    assert {answer.status for answer in answers} == {200}, answers[-1]
    return rate(answers, forms)


class Killed(NamedTuple):
    """A replica that is killed under load, beside another.

    Attributes:
        requests: How many were sent.
        in_flight: How many of them were with either replica at that moment.
        lost: Those that failed and were in flight, or came before the proxy noticed, within half a second.
        failed: Those that failed later, which should be none.
        pause: Longest time, in seconds, that nothing was answered.
        recovery: Seconds until a new replica was ready in the place of the old one.
    """

    requests: int
    in_flight: int
    lost: list[Answer]
    failed: list[Answer]
    pause: float
    recovery: float


def kill(cluster: Cluster, forms: Sequence[Form], connections: int, settled: float) -> Killed:
    """Kill one of two replicas as the kernel would, under load that begins before and ends when all is well again."""
    replicas = cluster.replicas()
    assert len(replicas) == 2
    with flood(cluster.url, forms, connections) as answers:
        time.sleep(settled)
        killed = time.monotonic()
        os.kill(min(replicas), signal.SIGKILL)
        wait_for(lambda: len(cluster.replicas() - {min(replicas)}) == 2, _READY_SECONDS)
        recovery = time.monotonic() - killed
        time.sleep(settled)
    in_flight = [answer for answer in answers if answer.began <= killed <= answer.ended]
    failed = [answer for answer in answers if answer.status != 200]
    ends = sorted(answer.ended for answer in answers if answer.status == 200)
    return Killed(
        requests=len(answers),
        in_flight=len(in_flight),
        lost=[answer for answer in failed if answer.began <= killed + _NOTICED_SECONDS],
        failed=[answer for answer in failed if answer.began > killed + _NOTICED_SECONDS],
        pause=max(later - earlier for earlier, later in pairwise(ends)),
        recovery=recovery,
    )


class Rolled(NamedTuple):
    """A promotion under load.

    Attributes:
        models: How many requests each version answered.
        failed: Requests that failed, which should be none.
        mixed: Answers whose scores aren't all those of the version they name, which should be none.
        seconds: From the promotion to the first answer of the new version.
        both: Seconds during which both versions answered, each its own requests.
    """

    models: dict[str, int]
    failed: list[Answer]
    mixed: list[Answer]
    seconds: float
    both: float


def roll(cluster: Cluster, store: Store, name: str, forms: Sequence[Form], connections: int, settled: float) -> Rolled:
    """Promote another version under load, and hold every score against what its version answers alone, bit by bit.

    Args:
        cluster: Where `name` is served.
        store: Its store.
        name: Such as `catdog@production`; this ref is moved.
        forms: What to ask.
        connections: Requests at once.
        settled: Seconds of load before and after.
    """
    old = registry.resolve(store, name)
    expected = {(old.name, i): _alone(cluster, form) for i, form in enumerate(forms)}
    new = another(store, old)
    with flood(cluster.url, forms, connections) as answers:
        time.sleep(settled)
        promoted = time.monotonic()
        registry.move_ref(store, old.model, name.partition("@")[2], new.version)
        wait_for(lambda: all(answer.model == new.name for answer in answers[-20:]), _READY_SECONDS)
        time.sleep(settled)
    expected |= {(new.name, i): _alone(cluster, form) for i, form in enumerate(forms)}
    good = [answer for answer in answers if answer.status == 200]
    first = min(answer.ended for answer in good if answer.model == new.name)
    return Rolled(
        models=dict(Counter(answer.model for answer in good)),
        failed=[answer for answer in answers if answer.status != 200],
        mixed=[answer for answer in good if answer.scores != expected[answer.model, answer.form]],
        seconds=first - promoted,
        both=max(answer.ended for answer in good if answer.model == old.name) - first,
    )


def another(store: Store, version: ModelVersion) -> ModelVersion:
    """Register a version that answers everything otherwise: the same network, its last bias moved."""
    from pawcast.models import weights as files

    network = build_network(version.recipe, registry.read_file(store, version, WEIGHTS))
    output = network.layers[-1]
    kernel, bias = output.get_weights()
    output.set_weights([kernel, bias + 1])
    facts = {name: getattr(version, name) for name in ModelVersion.model_fields}
    for name in ("schema_version", "model", "version", "files"):
        del facts[name]
    return registry.register(store, version.model, {WEIGHTS: files.dump(network)}, **facts)


class Soak(NamedTuple):
    """Many photos, one after another.

    Attributes:
        photos: How many were answered.
        seconds: How long that took.
        statuses: How many requests ended how.
        growth: Share by which the replica's memory grew from the end of the first tenth to the end.
        memory: Its bytes at the end.
    """

    photos: int
    seconds: float
    statuses: dict[int, int]
    growth: float
    memory: int


def soak(cluster: Cluster, forms: Sequence[Form], photos: int) -> Soak:
    """Have a service answer so many photos as fast as it can."""
    requests = -(-photos // forms[0].photos)
    began = time.monotonic()
    with memory(cluster.replicas()) as noted, flood(cluster.url, forms, _BUSY, requests=requests) as answers:
        pass
    return Soak(
        photos=sum(forms[answer.form].photos for answer in answers if answer.status == 200),
        seconds=time.monotonic() - began,
        statuses=_statuses(answers),
        growth=growth(noted),
        memory=noted[-1],
    )


class Malformed(NamedTuple):
    """Damaged photos, each of which is a score or an error of its own.

    Attributes:
        photos: How many were sent.
        usable: How many of them got a score: not all damage shows.
        statuses: How many requests ended how.
        slowest: Seconds of the slowest request.
        odd: Requests that ended otherwise than in time with a score or an error for each photo; should be none.
        crashed: Whether a replica ended.
        unchanged: Whether a good photo has the same score as before.
    """

    photos: int
    usable: int
    statuses: dict[int, int]
    slowest: float
    odd: list[Answer]
    crashed: bool
    unchanged: bool


def malformed(
    cluster: Cluster, photos: Sequence[bytes], good: bytes, together: int, connections: int, seconds: float
) -> Malformed:
    """Send malformed photos, some in a form, at most so many seconds for each request."""
    replicas, before = cluster.replicas(), _alone(cluster, Form.of([good]))
    forms = [Form.of(photos[start : start + together]) for start in range(0, len(photos), together)]
    with flood(cluster.url, forms, connections, requests=len(forms)) as answers:
        pass
    return Malformed(
        photos=sum(form.photos for form in forms),
        usable=sum(score is not None for answer in answers for score in answer.scores),
        statuses=_statuses(answers),
        slowest=max(answer.seconds for answer in answers),
        odd=[answer for answer in answers if answer.seconds > seconds or not _whole(answer, forms[answer.form])],
        crashed=cluster.replicas() != replicas,
        unchanged=_alone(cluster, Form.of([good])) == before,
    )


def _alone(cluster: Cluster, form: Form) -> tuple[float | None, ...]:
    """The scores of a form that nothing else disturbs."""
    with Client(cluster.url) as client:
        return client.submit(form).scores


def _statuses(answers: Sequence[Answer]) -> dict[int, int]:
    return dict(Counter(answer.status for answer in answers))


def _whole(answer: Answer, form: Form) -> bool:
    return len(answer.scores) == form.photos if answer.status == 200 else answer.status == 422
