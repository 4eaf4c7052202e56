"""The service compared with other servers: the same photos, weights and load on one machine.

    python -m tests.benchmarks.serve --images test1.zip --peers var/bench/serve/bin/python \\
        [--store var/store --model catdog@latest]

All contenders have the same weights and compute in the same precision: the one in which Pawcast
serves the model on this machine. The default is the latest `catdog` of the store. Where there is
none that the peers can serve, the article's network has random weights and is served in float32,
because bfloat16 is used only where a trained version passed its parity check.

In each round every contender is started, loaded and stopped before the next one starts. Every other
round runs in reverse order. The network in one process always follows the bulk client directly and
is compared with it round by round, because a machine may be a fifth slower a minute later. Clients
run on the same machine; the load stays on 127.0.0.1. Writes results/benchmarks/serve.json with
every round; `make results` renews the tables from it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from pawcast_infra.local.private_ray import free_ports

from pawcast.data import sources
from pawcast.inference.batcher import MAX_BATCH
from tests.benchmarks import load
from tests.benchmarks.record import hardware, installed

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "benchmarks" / "serve.json"
VAR = HERE.parents[1] / "var" / "bench"
OURS, BULK, IN_PROCESS = "pawcast", "bulk_client", "in_process"
CONNECTIONS = (1, 16, 64)
MANY_CONNECTIONS = 4
LOADED = 1_024
DEFAULT_MODEL = "catdog@latest"
OURS_COMMAND = (sys.executable, "-m", "tests.benchmarks.ours_serve")
START_SECONDS, STOP_SECONDS, BULK_SECONDS = 180, 60, 600
# Pillow and OpenCV resize a photo differently.
TOLERANCE = 0.05


class Server(NamedTuple):
    """A contender that answers HTTP.

    Attributes:
        package: The package whose version the table names.
        script: A file that runs in the peers' environment until it is killed, or a module that runs
            in Pawcast's environment until its standard input ends.
        one: Makes a request with one photo.
        many: Makes a request with many photos.
        score: Reads the probability from the response to one photo.
    """

    package: str
    script: str
    one: Callable[[bytes], bytes]
    many: Callable[[Sequence[bytes]], bytes]
    score: Callable[[Any], float]

    @property
    def peer(self) -> bool:
        """Whether the server runs in the peers' environment."""
        return self.script.endswith(".py")


SERVERS = {
    OURS: Server(
        "pawcast",
        "tests.benchmarks.ours_serve",
        lambda photo: load.request("/v1/classify", photo, "image/jpeg"),
        lambda photos: load.form("/v1/classify", "photo", photos),
        lambda answer: answer["predictions"][0]["scores"]["dog"],
    ),
    "ray_serve": Server(
        "ray",
        "tests.benchmarks.plain_ray",
        lambda photo: load.request("/one", photo, "image/jpeg"),
        lambda photos: load.form("/many", "photos", photos),
        float,
    ),
    "litserve": Server(
        "litserve",
        "peers_litserve.py",
        lambda photo: load.form("/one", "photo", [photo]),
        lambda photos: load.form("/many", "photos", photos),
        float,
    ),
    "bentoml": Server(
        "bentoml",
        "peers_bentoml.py",
        lambda photo: load.form("/classify", "photos", [photo]),
        lambda photos: load.form("/classify", "photos", photos),
        lambda answer: answer[0],
    ),
    "fastapi": Server(
        "fastapi",
        "peers_fastapi.py",
        lambda photo: load.form("/one", "photo", [photo]),
        lambda photos: load.form("/many", "photos", photos),
        float,
    ),
}


class Bench(NamedTuple):
    """The conditions of all contenders: the peers' Python, photos, files, and a load's seconds."""

    peers: str
    source: Path
    photos: list[bytes]
    work: Path
    seconds: float

    @property
    def store(self) -> str:
        return str(self.work / "store")

    @property
    def network(self) -> str:
        return str(self.work / "network.keras")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, type=Path, help="Kaggle's test1.zip")
    parser.add_argument("--peers", required=True, help="Python of the peers' environment")
    parser.add_argument("--store", default="var/store", help="the store that holds --model")
    parser.add_argument("--model", help="a trained version to serve, such as catdog@3")
    parser.add_argument("--photos", type=int, default=12_500, help="how many photos the bulk client sends")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each other load lasts")
    options = parser.parse_args()
    VAR.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="work-", dir=VAR) as folder:
        work = Path(folder)
        source, photos = first_photos(options.images, options.photos, work / "photos.zip")
        bench = Bench(str(Path(options.peers).absolute()), source, photos, work, options.seconds)
        arguments = (bench.store, bench.network, options.store, options.model or DEFAULT_MODEL)
        network = json.loads(ours("network" if options.model else "any-network", *arguments).splitlines()[-1])
        sys.stderr.write(f"{network['name']}, {network['weights']}, all contenders in {network['precision']}\n")
        record = {"network": network, **measure(bench, network["precision"], options.rounds)}
    RESULT.write_text(json.dumps(record, indent=1) + "\n")


def first_photos(images: Path, count: int, path: Path) -> tuple[Path, list[bytes]]:
    """Write a zip of the first `count` photos; return its path and the first `LOADED` photos."""
    photos = sources.scan(str(images)).photos[:count]
    kept: list[bytes] = []
    with zipfile.ZipFile(path, "w") as out:
        for photo, data in zip(photos, sources.read(str(images), photos), strict=True):
            out.writestr(photo.name, data)
            kept += [data] if len(kept) < LOADED else []
    return path, kept


def measure(bench: Bench, precision: str, rounds: int) -> dict[str, Any]:
    """Run all rounds, and return the record."""
    contenders: dict[str, Callable[[], dict[str, Any]]] = {
        name: lambda name=name, server=server: measure_server(bench, name, server)  # type: ignore[misc]
        for name, server in SERVERS.items()
    }
    contenders[IN_PROCESS] = lambda: bulk("in-process", bench.store, str(bench.source))
    ours, others = [OURS, IN_PROCESS], [name for name in SERVERS if name != OURS]
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    for i in range(rounds):
        for name in [*others[::-1], *ours] if i % 2 else [*ours, *others]:
            started = time.monotonic()
            results[name].append(contenders[name]())
            sys.stderr.write(f"round {i + 1} of {rounds}: {name}, {time.monotonic() - started:.0f} s\n")
    return summary(bench, precision, results)


def summary(bench: Bench, precision: str, results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the record, if all contenders give the same scores."""
    check_scores(results)
    return {
        "measured": f"{datetime.now(UTC):%Y-%m-%d}",
        "hardware": hardware(),
        "photos": count(bench.source),
        "many": {"photos": MAX_BATCH, "connections": MANY_CONNECTIONS},
        "versions": {**versions(sys.executable, peers=False), **versions(bench.peers, peers=True)},
        "bulk": {
            BULK: with_median([item[BULK] for item in results[OURS]]),
            IN_PROCESS: with_median(results[IN_PROCESS]),
        },
        "servers": {
            name: {
                "precision": precision,
                **{key: with_median([item[key] for item in results[name]]) for key in ("many", *map(str, CONNECTIONS))},
            }
            for name in SERVERS
        },
    }


def versions(python: str, peers: bool) -> dict[str, str]:
    """The versions of an environment's contenders, without Pawcast's own."""
    servers = {name: server for name, server in SERVERS.items() if server.peer == peers and name != OURS}
    return installed(python, {name: server.package for name, server in servers.items()})


def measure_server(bench: Bench, name: str, server: Server) -> dict[str, Any]:
    """Start a server, measure it under each load, stop it."""
    ones = [server.one(photo) for photo in bench.photos]
    many = [server.many(bench.photos[i : i + MAX_BATCH]) for i in range(0, len(bench.photos), MAX_BATCH)]
    measured: dict[str, Any] = {}
    with running(bench, server) as port:
        for connections in CONNECTIONS:
            load.run(port, ones, connections, bench.seconds / 4)
            result = load.run(port, ones, connections, bench.seconds)
            measured[str(connections)] = {"photos_per_second": result.per_second, **result.percentiles()}
            if connections == 1:
                measured["score"] = server.score(json.loads(result.answers[0]))
        load.run(port, many, MANY_CONNECTIONS, bench.seconds / 4)
        result = load.run(port, many, MANY_CONNECTIONS, 2 * bench.seconds)
        measured["many"] = {"photos_per_second": MAX_BATCH * result.per_second, **result.percentiles()}
        if name == OURS:
            measured[BULK] = bulk("bulk", str(bench.source), str(port), str(bench.work / "predictions"))
    return measured


@contextmanager
def running(bench: Bench, server: Server) -> Iterator[int]:
    """Run a server until the block ends; yield its port once it answers."""
    (port,) = free_ports(1)
    environment = {**os.environ, "PAWCAST_BENCH_NETWORK": bench.network}
    if server.peer:
        command, cwd = [bench.peers, str(HERE / server.script), str(port)], bench.work
        environment.pop("PYTHONPATH", None)
    else:
        arguments = ["serve", bench.store, str(port), str(bench.work)]
        command, cwd = [sys.executable, "-m", server.script, *arguments], HERE.parents[1]
    log = bench.work / "server.log"
    with (
        log.open("w") as output,
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            cwd=cwd,
            start_new_session=True,
        ) as process,
    ):
        try:
            wait_for_answer(port, server.one(bench.photos[0]), process, log)
            yield port
        finally:
            if process.stdin:
                process.stdin.close()
            if server.peer:
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.terminate()
            # Some servers leave worker processes behind.
            if server.peer:
                time.sleep(1)
                kill(process.pid)


def kill(group: int) -> None:
    """Kill the processes that are left of a group."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def wait_for_answer(port: int, request: bytes, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a request gets a response with status 200."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            load.run(port, [request], 1, 0)
            return
        except load.LoadError:
            time.sleep(0.5)
    sys.exit(f"error: {process.args!r} doesn't answer: {log.read_text()[-2_000:]}")


def ours(*arguments: str) -> str:
    """Run a command of `ours_serve`; return its output."""
    done = subprocess.run([*OURS_COMMAND, *arguments], stdout=subprocess.PIPE, text=True, timeout=BULK_SECONDS)
    if done.returncode:
        sys.exit(f"error: {' '.join(arguments)} ended with {done.returncode}")
    return done.stdout


def bulk(*arguments: str) -> dict[str, Any]:
    """Predict all photos by a command of `ours_serve`; return photos per second and the scores."""
    result = json.loads(ours(*arguments).splitlines()[-1])
    return {"photos_per_second": len(result["scores"]) / result["seconds"], "scores": result["scores"]}


def check_scores(results: dict[str, list[dict[str, Any]]]) -> None:
    """End the benchmark if the contenders' scores differ; remove the scores from the results."""
    expected, *_ = [item.pop("scores") for item in results[IN_PROCESS]]
    for item in results[OURS]:
        scores = item[BULK].pop("scores")
        if len(scores) != len(expected) or max(abs(a - b) for a, b in zip(scores, expected, strict=True)) > 1e-5:
            sys.exit("error: the bulk client's scores differ from those of the network in one process")
    for name in SERVERS:
        for item in results[name]:
            if abs(item.pop("score") - expected[0]) > TOLERANCE:
                sys.exit(f"error: the score of {name} differs from the network's")


def with_median(rounds: list[dict[str, float]]) -> dict[str, Any]:
    """Return each figure's median, and all rounds."""
    return {**{key: statistics.median(item[key] for item in rounds) for key in rounds[0]}, "rounds": rounds}


def count(source: Path) -> int:
    """Return the number of photos in a zip."""
    with zipfile.ZipFile(source) as archive:
        return len(archive.namelist())


if __name__ == "__main__":
    main()
