"""The service beside its peers: the same photos, weights and load on this machine, clients included, in one run.

    python -m tests.benchmarks.serve --images test1.zip --peers var/bench/serve/bin/python \\
        [--store var/store --model catdog@latest]

Without a trained model the article's network has fresh weights, and is served in float32: in bfloat16 only what was
found to agree is.

In each round every contender is started, loaded and stopped before the next one starts; every other round goes
backwards. But the network in one process always follows the bulk client at once, and is compared with it round by
round: a machine may be a fifth slower a minute later. Loads are bounded in time and stay on 127.0.0.1. Writes
results/benchmarks/serve.json with what every round found; `make results` renews README's tables from it.
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
from tests.benchmarks.readme import IN_PROCESS
from tests.benchmarks.record import hardware, installed

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "benchmarks" / "serve.json"
VAR = HERE.parents[1] / "var" / "bench"
OURS = "Pawcast"
BULK = "the bulk client over HTTP"
CONNECTIONS = (1, 16, 64)
MANY_CONNECTIONS = 4
LOADED = 1_024
OURS_COMMAND = (sys.executable, "-m", "tests.benchmarks.ours_serve")
START_SECONDS, STOP_SECONDS, BULK_SECONDS = 180, 60, 600
# Pillow and OpenCV scale a photo differently.
AGREE = 0.05


class Server(NamedTuple):
    """A contender that answers HTTP.

    Attributes:
        package: Whose version to state.
        script: A file that runs in the peers' environment until it is killed, or a module that runs in ours until its
            standard input ends.
        one: Makes a request of one photo.
        many: Makes a request of many photos.
        score: The probability in the answer to one photo.
    """

    package: str
    script: str
    one: Callable[[bytes], bytes]
    many: Callable[[Sequence[bytes]], bytes]
    score: Callable[[Any], float]

    @property
    def peer(self) -> bool:
        """Whether it needs the peers' environment."""
        return self.script.endswith(".py")


SERVERS = {
    OURS: Server(
        "pawcast", "tests.benchmarks.ours_serve",
        lambda photo: load.request("/v1/classify", photo, "image/jpeg"),
        lambda photos: load.form("/v1/classify", "photo", photos),
        lambda answer: answer["predictions"][0]["scores"]["dog"],
    ),
    "Ray Serve by hand, in bfloat16": Server(
        "ray", "tests.benchmarks.plain_ray",
        lambda photo: load.request("/one", photo, "image/jpeg"),
        lambda photos: load.form("/many", "photos", photos),
        float,
    ),
    "LitServe": Server(
        "litserve", "peers_litserve.py",
        lambda photo: load.form("/one", "photo", [photo]),
        lambda photos: load.form("/many", "photos", photos),
        float,
    ),
    "BentoML": Server(
        "bentoml", "peers_bentoml.py",
        lambda photo: load.form("/classify", "photos", [photo]),
        lambda photos: load.form("/classify", "photos", photos),
        lambda answer: answer[0],
    ),
    "plain FastAPI, Pillow, model.predict": Server(
        "fastapi", "peers_fastapi.py",
        lambda photo: load.form("/one", "photo", [photo]),
        lambda photos: load.form("/many", "photos", photos),
        float,
    ),
}  # fmt: skip


class Bench(NamedTuple):
    """What every contender works with: the peers' Python, photos, files, and for how long each load lasts."""

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
    parser.add_argument("--store", default="", help="where --model is")
    parser.add_argument("--model", default="", help="a trained version to serve, such as catdog@latest")
    parser.add_argument("--photos", type=int, default=12_500, help="how many of them the bulk client sends")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each other load lasts")
    options = parser.parse_args()
    VAR.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="work-", dir=VAR) as folder:
        work = Path(folder)
        source, photos = some(options.images, options.photos, work / "photos.zip")
        bench = Bench(str(Path(options.peers).absolute()), source, photos, work, options.seconds)
        trained = [options.store, options.model] if options.model else []
        network = json.loads(ours("network", bench.store, bench.network, *trained).splitlines()[-1])
        record = {"network": network, **measure(bench, options.rounds)}
    RESULT.write_text(json.dumps(record, indent=1) + "\n")


def some(images: Path, count: int, path: Path) -> tuple[Path, list[bytes]]:
    """Write a zip of the first so many photos; return it and the first thousand."""
    photos = sources.scan(str(images))[:count]
    kept: list[bytes] = []
    with zipfile.ZipFile(path, "w") as out:
        for photo, data in zip(photos, sources.read(str(images), photos), strict=True):
            out.writestr(photo.name, data)
            kept += [data] if len(kept) < LOADED else []
    return path, kept


def measure(bench: Bench, rounds: int) -> dict[str, Any]:
    """Run all rounds, and return the record."""
    contenders: dict[str, Callable[[], dict[str, Any]]] = {
        name: lambda name=name, server=server: loaded(bench, name, server)  # type: ignore[misc]
        for name, server in SERVERS.items()
    }
    contenders[IN_PROCESS] = lambda: bulk("in-process", bench.store, str(bench.source))
    ours, others = [OURS, IN_PROCESS], [name for name in SERVERS if name != OURS]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    for i in range(rounds):
        for name in [*others[::-1], *ours] if i % 2 else [*ours, *others]:
            started = time.monotonic()
            found[name].append(contenders[name]())
            sys.stderr.write(f"round {i + 1} of {rounds}: {name}, {time.monotonic() - started:.0f} s\n")
    return summary(bench, found)


def summary(bench: Bench, found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the record, if all contenders say the same of the photos."""
    agree(found)
    return {
        "measured": f"{datetime.now(UTC):%Y-%m-%d}",
        "hardware": hardware(),
        "photos": count(bench.source),
        "many": {"photos": MAX_BATCH, "connections": MANY_CONNECTIONS},
        "versions": {**versions(sys.executable, peers=False), **versions(bench.peers, peers=True)},
        "bulk": {
            BULK: over([item[BULK] for item in found[OURS]]),
            IN_PROCESS: over(found[IN_PROCESS]),
        },
        "servers": {
            name: {key: over([item[key] for item in found[name]]) for key in ("many", *map(str, CONNECTIONS))}
            for name in SERVERS
        },
    }


def versions(python: str, peers: bool) -> dict[str, str]:
    """What each contender of an environment is made with; ours is what it is."""
    here = {name: server for name, server in SERVERS.items() if server.peer == peers and name != OURS}
    return installed(python, {name: server.package for name, server in here.items()})


def loaded(bench: Bench, name: str, server: Server) -> dict[str, Any]:
    """Start a server, put every load on it, stop it."""
    ones = [server.one(photo) for photo in bench.photos]
    many = [server.many(bench.photos[i : i + MAX_BATCH]) for i in range(0, len(bench.photos), MAX_BATCH)]
    found: dict[str, Any] = {}
    with running(bench, server) as port:
        for connections in CONNECTIONS:
            load.run(port, ones, connections, bench.seconds / 4)
            result = load.run(port, ones, connections, bench.seconds)
            found[str(connections)] = {"photos_per_second": result.per_second, **result.percentiles()}
            if connections == 1:
                found["score"] = server.score(json.loads(result.answers[0]))
        load.run(port, many, MANY_CONNECTIONS, bench.seconds / 4)
        result = load.run(port, many, MANY_CONNECTIONS, 2 * bench.seconds)
        found["many"] = {"photos_per_second": MAX_BATCH * result.per_second, **result.percentiles()}
        if name == OURS:
            found[BULK] = bulk("bulk", str(bench.source), str(port), str(bench.work / "predictions"))
    return found


@contextmanager
def running(bench: Bench, server: Server) -> Iterator[int]:
    """Run a server until the block ends, and nothing of it afterwards; yield its port once it answers."""
    (port,) = free_ports(1)
    environment = {**os.environ, "PAWCAST_BENCH_NETWORK": bench.network}
    if server.peer:
        command, cwd = [bench.peers, str(HERE / server.script), str(port)], bench.work
        environment.pop("PYTHONPATH", None)
    else:
        arguments = ["serve", bench.store, str(port), str(bench.work)]
        command, cwd = [sys.executable, "-m", server.script, *arguments], HERE.parents[1]
    log = bench.work / "server.log"
    with log.open("w") as output, subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=output, stderr=output, cwd=cwd, start_new_session=True
    ) as process:  # fmt: skip
        try:
            answers(port, server.one(bench.photos[0]), process, log)
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
            # Some leave their workers behind.
            if server.peer:
                time.sleep(1)
                kill(process.pid)


def kill(group: int) -> None:
    """End what is left of a process group."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def answers(port: int, request: bytes, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for the first right answer."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            load.run(port, [request], 1, 0)
            return
        except load.LoadError:
            time.sleep(0.5)
    sys.exit(f"error: {process.args!r} doesn't answer: {log.read_text()[-2_000:]}")


def ours(*arguments: str) -> str:
    """Run a command of `ours_serve`; return what it prints."""
    done = subprocess.run([*OURS_COMMAND, *arguments], stdout=subprocess.PIPE, text=True, timeout=BULK_SECONDS)
    if done.returncode:
        sys.exit(f"error: {' '.join(arguments)} ended with {done.returncode}")
    return done.stdout


def bulk(*arguments: str) -> dict[str, Any]:
    """Have one of our ways predict all photos; return photos per second and what they are."""
    answer = json.loads(ours(*arguments).splitlines()[-1])
    return {"photos_per_second": len(answer["scores"]) / answer["seconds"], "scores": answer["scores"]}


def agree(found: dict[str, list[dict[str, Any]]]) -> None:
    """Stop unless all contenders say the same of the photos, and drop what they say."""
    right, *_ = [item.pop("scores") for item in found[IN_PROCESS]]
    for item in found[OURS]:
        scores = item[BULK].pop("scores")
        if len(scores) != len(right) or max(abs(a - b) for a, b in zip(scores, right, strict=True)) > 1e-5:
            sys.exit("error: the bulk client and the network in one process don't agree")
    for name in SERVERS:
        for item in found[name]:
            if abs(item.pop("score") - right[0]) > AGREE:
                sys.exit(f"error: {name} doesn't agree with the network")


def over(rounds: list[dict[str, float]]) -> dict[str, Any]:
    """The median of each figure, and all rounds."""
    return {**{key: statistics.median(item[key] for item in rounds) for key in rounds[0]}, "rounds": rounds}


def count(source: Path) -> int:
    """How many photos a zip holds."""
    with zipfile.ZipFile(source) as archive:
        return len(archive.namelist())


if __name__ == "__main__":
    main()
