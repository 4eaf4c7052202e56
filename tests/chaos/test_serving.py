"""The service on bad days, on real replicas: too much to do, a killed replica, a roll-out, malformed photos, long use.

Short forms; `tests/benchmarks/endurance.py` takes the time that the claims in README are made of.
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
from tests.support.services import Photos, wait_for

MODEL = "tiny"
WAITING = 512
PER_FORM = 16
PER_SAMPLE = 70


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    place = open_store(str(tmp_path_factory.mktemp("store")))
    publish(place, model=MODEL)
    return place


@pytest.fixture(scope="module")
def served(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head with two replicas."""
    folder = tmp_path_factory.mktemp("head")
    cluster = Cluster(folder, Path(store.uri))
    try:
        limits = {"waiting_photos": WAITING}
        arguments = {"model": f"{MODEL}@production", "check_seconds": 0.5, "limits": limits}
        cluster.deploy(folder, arguments, replicas=2)
        wait_for(lambda: cluster.serves(MODEL) and len(cluster.replicas()) == 2, 120)
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def forms(photos: Photos) -> list[Form]:
    with zipfile.ZipFile(photos.labelled) as archive:
        found = [archive.read(name) for name in archive.namelist() if name.endswith(".jpg")]
    return [Form.of(found[start : start + PER_FORM]) for start in range(0, 10 * PER_FORM, PER_FORM)]


def test_twice_as_much_as_it_can_do_is_refused_in_good_order(served, forms):
    found = endurance.overload(served, forms, seconds=12)
    assert set(found.statuses) <= {200, 429, 503}, found
    assert found.statuses[200]
    assert found.statuses[429]
    assert found.unexplained == 0
    # All that two replicas may take on, at the speed that is left to them, and as much again.
    assert found.p99 < 2 * 2 * WAITING / found.answered + 1, found
    assert found.growth < 0.2, found
    assert found.after > 0.5 * found.before, found


def test_every_malformed_photo_is_a_score_or_an_error_within_two_seconds(served, forms, photos):
    samples = malformed.samples()
    others = list(samples.values())
    damaged = [
        data
        for kind, photo in samples.items()
        for data in islice(malformed.damaged(photo, others, random.Random(kind)), PER_SAMPLE)
    ]
    good = (photos.labelled_folder / "cat.1.jpg").read_bytes()
    for batch, together in ((damaged, PER_FORM), (damaged[::20], 1), (list(malformed.bombs().values()), 1)):
        found = endurance.malformed(served, batch, good, together, connections=4, seconds=2)
        assert set(found.statuses) <= {200, 422}
        assert not found.odd, found.odd[:3]
        assert not found.crashed
        assert found.unchanged
    assert len(damaged) > 3_000


def test_long_use_takes_no_more_memory(served, forms):
    found = endurance.soak(served, forms, 8_000)
    assert set(found.statuses) == {200}
    assert found.photos >= 8_000
    assert abs(found.growth) < 0.1, found


def test_a_promotion_under_load_fails_nothing_and_mixes_nothing(served, store, forms):
    found = endurance.roll(served, store, f"{MODEL}@production", forms, connections=4, settled=1)
    assert set(found.models) == {f"{MODEL}@1", f"{MODEL}@2"}
    assert not found.failed
    assert not found.mixed


def test_a_killed_replica_takes_only_what_came_before_the_proxy_noticed(served, forms):
    found = endurance.kill(served, forms, connections=6, settled=2)
    assert not found.failed, found.failed
    assert len(found.lost) <= 2 * found.in_flight <= 2 * 6
    assert found.pause < 5, found
