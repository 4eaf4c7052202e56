"""The service under overload, failures and roll-outs, on a Ray head of its own.

    python -m tests.benchmarks.endurance --store var/demo/store --images test1.zip

The service is deployed by `serve/config.yaml`. The store is copied first, because a roll-out
registers a version. The client runs on the same machine and uses a part of its cores. Writes
results/benchmarks/endurance.json; `make results` renews the table from it.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from pawcast.store import open_store
from tests.benchmarks.record import hardware
from tests.support import endurance, malformed
from tests.support.cluster import Cluster
from tests.support.load import Form
from tests.support.services import wait_for

RESULT = Path(__file__).parent / "results" / "benchmarks" / "endurance.json"
OVERLOAD_SECONDS, SETTLED_SECONDS, PER_SAMPLE = 60, 10, 200
PER_FORM, SOAK_PER_FORM = 16, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, type=Path, help="a folder that is a store")
    parser.add_argument("--model", default="catdog@production")
    parser.add_argument("--images", required=True, help="a zip of JPEGs")
    parser.add_argument("--photos", type=int, default=200_000, help="how many photos the long run sends")
    options = parser.parse_args()
    with zipfile.ZipFile(options.images) as archive:
        names = [name for name in archive.namelist() if name.lower().endswith((".jpg", ".jpeg"))]
        photos = [archive.read(name) for name in names[: 50 * SOAK_PER_FORM]]
    forms, large = in_forms(photos[: 50 * PER_FORM], PER_FORM), in_forms(photos, SOAK_PER_FORM)
    record: dict[str, Any] = {"measured": f"{datetime.now(UTC):%Y-%m-%d}", "hardware": hardware()}
    with serving(options.store, options.model, replicas=1) as cluster:
        record["soak"] = endurance.soak(cluster, large, options.photos)._asdict()
        record["overload"] = endurance.overload(cluster, forms, OVERLOAD_SECONDS)._asdict()
        malformed_result = endurance.malformed(cluster, damaged(), photos[0], PER_FORM, connections=4, seconds=2)
        record["malformed"] = counted(malformed_result._asdict())
        store = open_store(str(cluster.store))
        rolled = endurance.roll(cluster, store, options.model, forms, connections=4, settled=SETTLED_SECONDS)
        record["roll"] = counted(rolled._asdict())
    with serving(options.store, options.model, replicas=2) as cluster:
        record["kill"] = counted(endurance.kill(cluster, forms, connections=6, settled=SETTLED_SECONDS)._asdict())
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(record, indent=1) + "\n")


@contextmanager
def serving(store: Path, model: str, replicas: int) -> Iterator[Cluster]:
    """Serve a model of a copy of a store; yield the cluster once every replica is ready."""
    with tempfile.TemporaryDirectory(prefix="pawcast-endurance-") as folder:
        copy = Path(shutil.copytree(store, Path(folder) / "store"))
        cluster = Cluster(Path(folder), copy)
        try:
            cluster.deploy(Path(folder), {"model": model}, replicas=replicas)
            name = model.partition("@")[0]
            wait_for(lambda: cluster.serves(name) and len(cluster.replicas()) == replicas, 120)
            yield cluster
        finally:
            cluster.stop()


def in_forms(photos: list[bytes], together: int) -> list[Form]:
    return [Form.of(photos[start : start + together]) for start in range(0, len(photos), together)]


def damaged() -> list[bytes]:
    """Thousands of damaged photos of every format, and small files that claim to be huge."""
    samples = malformed.samples()
    others = list(samples.values())
    copies = [
        data
        for kind, photo in samples.items()
        for data in islice(malformed.damaged(photo, others, random.Random(kind)), PER_SAMPLE)
    ]
    return [*copies, *malformed.bombs().values()]


def counted(result: dict[str, Any]) -> dict[str, Any]:
    """Replace each list of requests by their number."""
    return {key: len(value) if isinstance(value, list) else value for key, value in result.items()}


if __name__ == "__main__":
    main()
