"""Ingest compared with other tools, on the same photos and disk; and the time to a first step.

    python tests/benchmarks/ingest.py --labelled train.zip --peers var/bench/ingest/bin/python

After one round to warm up, each contender runs once in each round. Each round begins with another
contender. Imports are not timed, and Ray is already running, as on a cluster. Writes
results/benchmarks/ingest.json with all times; `make results` renews the tables from it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import shutil
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pawcast_infra.local import seaweedfs
from peers_ingest import PEERS
from record import hardware

from pawcast.data import blocks
from pawcast.data import manifest as manifests
from pawcast.data.ingest import ingest
from pawcast.runtime import ray_session
from pawcast.runtime.devices import usable_cpus
from pawcast.store import open_store
from pawcast.vision import decode, preprocess

ROOT = Path(__file__).resolve().parents[2]
RESULT = Path(__file__).parent / "results" / "benchmarks" / "ingest.json"
SIZE = 150


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labelled", required=True, help="Kaggle's train.zip")
    parser.add_argument("--peers", required=True, help="Python of the peers' environment")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path("var/bench/work"), help="a folder on the disk to write to")
    options = parser.parse_args()
    source = str(Path(options.labelled).resolve())
    work = options.work.resolve()
    with zipfile.ZipFile(source) as archive:
        photos = sum(name.endswith(".jpg") for name in archive.namelist())
    with seaweedfs.serve(work / "s3") as settings, pytest.MonkeyPatch.context() as environment:
        for key, value in settings.items():
            environment.setenv(key, value)
        with ray_session.connect():
            record = {
                "measured": f"{datetime.now(UTC):%Y-%m-%d}",
                "hardware": hardware(),
                "photos": photos,
                "bytes": Path(source).stat().st_size,
                "ingest": ingest_beside_peers(source, work, options.peers, photos, options.rounds),
                "decode": decode_beside_ray_data(source, work, options.rounds),
            }
    record["start"] = start_to_first_step(work, max(2, options.rounds // 2))
    shutil.rmtree(work)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(record, indent=1) + "\n")


def ingest_beside_peers(source: str, work: Path, python: str, photos: int, rounds: int) -> dict[str, Any]:
    """Return the photos per second of each contender, with all times."""
    out, bucket = work / "out", f"s3://{seaweedfs.BUCKET}/bench"
    versions: dict[str, str] = {}

    def ours(uri: str) -> Callable[[], float]:
        def run() -> float:
            store = open_store(uri)
            for key in list(store.list("datasets/")):
                store.delete(key)
            return timed(lambda: ingest(store, "pets", source))

        return run

    def peer(name: str) -> Callable[[], float]:
        def run() -> float:
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(parents=True)
            command = [python, str(Path(__file__).with_name("peers_ingest.py")), name, source, str(out)]
            answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            versions[name] = answer["version"]
            return float(answer["seconds"])

        return run

    contenders = {
        "pawcast_s3": ours(bucket),
        "pawcast_folder": ours(str(work / "store")),
        "read_hash_decode": lambda: limit(source),
        **{name: peer(name) for name in PEERS},
    }
    times = take_turns(contenders, rounds)
    return {
        name: {"photos_per_second": photos / statistics.median(taken), "seconds": taken, "version": versions.get(name)}
        for name, taken in times.items()
    }


def limit(source: str) -> float:
    """Seconds to only read, hash and decode all photos, with a process for each core."""
    cores = usable_cpus()
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        pool.map(_read_hash_decode, [(source, 0, 1_000)] * cores, chunksize=1)
        return timed(lambda: pool.map(_read_hash_decode, [(source, i, cores) for i in range(cores)], chunksize=1))


def _read_hash_decode(task: tuple[str, int, int]) -> None:
    source, first, step = task
    with zipfile.ZipFile(source) as archive:
        for name in [name for name in archive.namelist() if name.endswith(".jpg")][first::step]:
            data = archive.read(name)
            hashlib.sha256(data).digest()
            decode.decode(data)


def decode_beside_ray_data(source: str, work: Path, rounds: int) -> dict[str, Any]:
    """Photos per second from shards in a folder to uint8 blocks in Ray's object store."""
    import numpy as np
    import ray

    store = open_store(str(work / "store"))
    ingest(store, "pets", source)
    split = manifests.load(store, "pets").splits["train"]
    files = [str(work / "store" / shard.key) for shard in split.shards]
    ray.data.DataContext.get_current().enable_progress_bars = False

    def by_ray_data() -> None:
        def decode(batch: dict[str, Any]) -> dict[str, Any]:
            blocks = np.stack([preprocess.load_image(image["bytes"], SIZE) for image in batch["image"]])
            return {"pixels": blocks, "label": batch["label"]}

        ray.data.read_parquet(files).select_columns(["image", "label"]).map_batches(
            decode, batch_size=None
        ).materialize()

    contenders = {
        "pawcast": lambda: timed(lambda: blocks.decode_split(store, split, SIZE)),
        "ray_data": lambda: timed(by_ray_data),
    }
    return {
        name: {"photos_per_second": split.photos / statistics.median(taken), "seconds": taken}
        for name, taken in take_turns(contenders, rounds).items()
    }


def start_to_first_step(work: Path, rounds: int) -> dict[str, Any]:
    """Seconds from the command `train.py` to decoding and to the first step, on a private Ray."""
    marks: dict[str, list[float]] = {"decoding_begins": [], "decoding_ends": [], "first_step": []}
    for _ in range(rounds):
        command = [sys.executable, "jobs/train.py", "--dataset", "pets", "--recipe", "article", "--set", "epochs=1"]
        started = time.perf_counter()
        with subprocess.Popen(
            [*command, "--store", str(work / "store")], cwd=ROOT, stderr=subprocess.PIPE, text=True
        ) as job:
            seen: dict[str, float] = {}
            for line in job.stderr or ():
                words = line.split()
                if words[:1] == ["decoding"]:
                    seen.setdefault("decoding_begins", time.perf_counter() - started)
                    seen["decoding_ends"] = time.perf_counter() - started
                if words[:1] == ["training"]:
                    seen["first_step"] = time.perf_counter() - started
                    job.terminate()
                    break
            if job.stderr:
                job.stderr.close()
        for mark, taken in seen.items():
            marks[mark].append(taken)
    return {mark: {"median": statistics.median(taken), "seconds": taken} for mark, taken in marks.items()}


def take_turns(contenders: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Run all once to warm up, then all in each round; each round begins with another one."""
    names = list(contenders)
    times: dict[str, list[float]] = {name: [] for name in names}
    for i in range(-1, rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            taken = contenders[name]()
            if i >= 0:
                times[name].append(taken)
            sys.stderr.write(f"round {i + 1} of {rounds}: {name} {taken:.2f} s\n")
    return times


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
