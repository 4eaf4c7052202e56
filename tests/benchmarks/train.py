"""Training compared with other tools: the article's network and augmentation on the same photos.

    python -m tests.benchmarks.train --labelled train.zip --peers var/bench/train/bin/python

One contender at a time trains for a few epochs on all cores. Every other round runs in reverse
order. The first epoch isn't counted: in it photos are decoded and functions traced. Photos per
second are those of training without validation. Writes results/benchmarks/train.json with every
epoch; `make results` renews the table from it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pawcast.data import sources
from pawcast.data.reader import SplitReader
from pawcast.errors import ImageError
from pawcast.runtime.devices import usable_cpus
from pawcast.store import open_store
from tests.benchmarks.record import hardware, installed

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULT = HERE / "results" / "benchmarks" / "train.json"
VAR = ROOT / "var" / "bench"
DATASET, CLASSES = "bench", ("cat", "dog")
# The package whose version the table names.
PEERS = {"image_data_generator": "keras", "tf_data": "tensorflow", "pytorch": "torch"}
LONGEST = 1_800

Epochs = list[dict[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labelled", required=True, help="Kaggle's train.zip")
    parser.add_argument("--peers", required=True, help="Python of the peers' environment")
    parser.add_argument("--photos", type=int, default=1_536, help="to train on")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    if options.epochs < 2:
        sys.exit("error: --epochs must be 2 or more, since the first one isn't counted")
    VAR.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="work-", dir=VAR) as folder:
        work = Path(folder)
        ingest(options.labelled, options.photos, work)
        unpack(work)
        record = measure(options, work)
    RESULT.write_text(json.dumps(record, indent=1) + "\n")


def ingest(labelled: str, count: int, work: Path) -> None:
    """Publish a dataset whose training split has `count` photos, half of them of each class."""
    every = sources.scan(labelled, CLASSES).photos
    usable = [[photo for photo in every if photo.label == label] for label in range(len(CLASSES))]
    chosen = [photo for pair in zip(*usable, strict=False) for photo in pair][: count * 5 // 4]
    with zipfile.ZipFile(work / "photos.zip", "w") as archive:
        for photo, data in zip(chosen, sources.read(labelled, chosen), strict=True):
            if not isinstance(data, ImageError):
                archive.writestr(photo.name, data)
    arguments = ["--labelled", str(work / "photos.zip"), "--dataset", DATASET, "--store", str(work / "store")]
    job("ingest", *arguments, "--test-size", "0", "--val-fraction", "0.2")


def unpack(work: Path) -> None:
    """Write the training split's photos into a folder for each class, for the peers."""
    reader = SplitReader.open(open_store(str(work / "store")), DATASET, "train")
    for photo, data in reader.read(0, len(reader)):
        if isinstance(data, ImageError):
            raise data
        path = work / "photos" / photo.id.partition(".")[0] / f"{photo.id}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def measure(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Run all rounds, and return the record."""
    cpus, epochs = usable_cpus(), options.epochs
    contenders: dict[str, Callable[[], Epochs]] = {
        "pawcast_one_worker": lambda: ours(work, epochs, 1, cpus),
        "pawcast_worker_per_cpu": lambda: ours(work, epochs, cpus, 1),
        "pawcast_float32": lambda: ours(work, epochs, 1, cpus, "precision=float32"),
    }
    for peer in PEERS:
        contenders[peer] = lambda peer=peer: theirs(options.peers, peer, work / "photos", epochs)  # type: ignore[misc]
    results: dict[str, list[Epochs]] = {name: [] for name in contenders}
    for i in range(options.rounds):
        for name in list(contenders)[:: -1 if i % 2 else 1]:
            started = time.monotonic()
            results[name].append(contenders[name]())
            sys.stderr.write(f"round {i + 1} of {options.rounds}: {name}, {time.monotonic() - started:.0f} s\n")
    photos = sum(1 for _ in (work / "photos").rglob("*.jpg"))
    return {
        "measured": f"{datetime.now(UTC):%Y-%m-%d}",
        "hardware": hardware(),
        "photos": photos,
        "epochs": epochs,
        "versions": installed(options.peers, PEERS),
        "contenders": {name: summary(rounds, photos) for name, rounds in results.items()},
    }


def summary(rounds: list[Epochs], photos: int) -> dict[str, Any]:
    """Return the median photos per second of the counted epochs, the last loss, and all epochs."""
    rates = [photos / epoch["seconds"] for epochs in rounds for epoch in epochs[1:]]
    loss = statistics.median(epochs[-1]["loss"] for epochs in rounds)
    return {"photos_per_second": statistics.median(rates), "loss": loss, "rounds": rounds}


def ours(work: Path, epochs: int, workers: int, cpus: int, *settings: str) -> Epochs:
    """Train from the command line, as a user does."""
    run = f"{workers}x{cpus}-{time.time_ns()}"
    # The peers have a constant learning rate as well.
    chosen = (f"epochs={epochs}", "schedule=constant", "warmup_epochs=0", *settings)
    arguments = ["--dataset", DATASET, "--recipe", "article", "--run", run, "--store", str(work / "store")]
    arguments += [word for setting in chosen for word in ("--set", setting)]
    job("train", *arguments, "--workers", str(workers), "--cpus-per-worker", str(cpus))
    history = json.loads((work / "store" / "runs" / run / "history.json").read_text())
    spent = zip(history["seconds"], history["validation_seconds"], strict=True)
    seconds = [whole - validation for whole, validation in spent]
    return [{"seconds": each, "loss": loss} for each, loss in zip(seconds, history["loss"], strict=True)]


def job(name: str, *arguments: str) -> None:
    run([sys.executable, str(ROOT / "jobs" / f"{name}.py"), *arguments])


def theirs(python: str, peer: str, photos: Path, epochs: int) -> Epochs:
    """Train with a peer, in the peers' environment."""
    output = run([python, str(HERE / "peers_train.py"), peer, str(photos), str(epochs)])
    result: Epochs = json.loads(output.splitlines()[-1])
    return result


def run(command: list[str]) -> str:
    """Run a command and return its output; end the benchmark with its error if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=False)
    if done.returncode:
        sys.exit(f"error: {' '.join(command)} ended with {done.returncode}: {done.stderr[-2_000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
