"""A Ray head for the integration tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.cluster import Cluster
from tests.support.services import Photos


@pytest.fixture(scope="session")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("head")
    cluster = Cluster(folder, folder / "store")
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def ready(head: Cluster, photos: Photos) -> Cluster:
    """The head, with a dataset in its store."""
    done = head.run(
        *("python", "jobs/ingest.py", "--labelled", str(photos.labelled), "--unlabelled", str(photos.unlabelled)),
        *("--dataset", "pets", "--test-size", "60"),
    )
    assert done.returncode == 0, done.stderr
    return head
