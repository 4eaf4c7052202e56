"""The service on two replicas: overload, malformed photos, long use, a promotion, a killed replica.

Brief runs. `tests/benchmarks/endurance.py` runs them at full length for the published figures.
"""

from __future__ import annotations

import random
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from pawcast.store import Store, open_store
from tests.support import endurance, malformed
from tests.support.cluster import Cluster
from tests.support.load import Form
from tests.support.served import publish
from tests.support.services import Photos, plain_environment, started_process, wait_for

MODEL = "tiny"
WAITING = 512
PER_FORM = 16
PER_SAMPLE = 70


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = open_store(str(tmp_path_factory.mktemp("store")))
    publish(store, model=MODEL)
    return store


@pytest.fixture(scope="module")
def cluster(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Ray head with two replicas."""
    folder = tmp_path_factory.mktemp("head")
    head = Cluster(folder, Path(store.uri))
    try:
        limits = {"waiting_photos": WAITING}
        arguments = {"model": f"{MODEL}@production", "check_seconds": 0.5, "limits": limits}
        head.deploy(folder, arguments, replicas=2)
        wait_for(lambda: head.serves(MODEL) and len(head.replicas()) == 2, 120)
        yield head
    finally:
        head.stop()


@pytest.fixture(scope="module")
def forms(photos: Photos) -> list[Form]:
    with zipfile.ZipFile(photos.labelled) as archive:
        jpegs = [archive.read(name) for name in archive.namelist() if name.endswith(".jpg")]
    return [Form.of(jpegs[start : start + PER_FORM]) for start in range(0, 10 * PER_FORM, PER_FORM)]


def test_overload_is_refused_with_retry_after_and_the_rest_is_answered(cluster, forms):
    result = endurance.overload(cluster, forms, seconds=12)
    assert set(result.statuses) <= {200, 429, 503}, result
    assert result.statuses[200]
    assert result.statuses[429]
    assert result.unexplained == 0
    # Twice the time to answer all photos that two replicas may accept, plus a second.
    assert result.p99 < 2 * 2 * WAITING / result.answered + 1, result
    assert result.growth < 0.2, result
    assert result.after > 0.5 * result.before, result


def test_every_malformed_photo_gets_a_score_or_an_error_within_two_seconds(cluster, forms, photos):
    samples = malformed.samples()
    others = list(samples.values())
    damaged = [
        data
        for kind, photo in samples.items()
        for data in islice(malformed.damaged(photo, others, random.Random(kind)), PER_SAMPLE)
    ]
    good = (photos.labelled_folder / "cat.1.jpg").read_bytes()
    for batch, together in ((damaged, PER_FORM), (damaged[::20], 1), (list(malformed.bombs().values()), 1)):
        result = endurance.malformed(cluster, batch, good, together, connections=4, seconds=2)
        assert set(result.statuses) <= {200, 422}
        assert not result.odd, result.odd[:3]
        assert not result.crashed
        assert result.unchanged
    assert len(damaged) > 3_000


def test_memory_does_not_grow_over_many_photos(cluster, forms):
    result = endurance.soak(cluster, forms, 8_000)
    assert set(result.statuses) == {200}
    assert result.photos >= 8_000
    assert abs(result.growth) < 0.1, result


def test_a_promotion_under_load_fails_no_request_and_mixes_no_versions(cluster, store, forms):
    result = endurance.roll(cluster, store, f"{MODEL}@production", forms, connections=4, settled=1)
    assert set(result.models) == {f"{MODEL}@1", f"{MODEL}@2"}
    assert not result.failed
    assert not result.mixed


def test_a_killed_replica_fails_only_requests_before_the_proxy_notices(cluster, forms):
    result = endurance.kill(cluster, forms, connections=6, settled=2)
    assert not result.failed, result.failed
    assert len(result.lost) <= 2 * result.in_flight <= 2 * 6
    assert result.pause < 5, result


ACTOR_UNDER_PRESSURE = """
import os, sys, time
from pawcast_infra.local.private_ray import private_ray

with private_ray(sys.argv[1], cpus=1):
    import ray

    @ray.remote(max_restarts=-1, max_task_retries=-1, num_cpus=0)
    class Restartable:
        def process(self):
            return os.getpid()

    actor = Restartable.remote()
    first = ray.get(actor.process.remote())
    time.sleep(4)
    assert ray.get(actor.process.remote()) == first, "Ray has ended the actor"
"""


def test_a_private_ray_without_free_memory_ends_no_actor_that_can_restart(tmp_path):
    """Serve's controller is such an actor. Ray's memory monitor would choose it first."""
    environment = {**plain_environment(), "RAY_memory_usage_threshold": "0.01"}
    with started_process("-c", ACTOR_UNDER_PRESSURE, str(tmp_path), environment=environment) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors[-2_000:]
