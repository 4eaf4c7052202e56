"""Speed and GPU memory of training and serving on this machine's first GPU.

    python -m tests.benchmarks.gpu --store var/store --dataset dogs-vs-cats [--only stop]

The dataset must be in the store (`pawcast ingest`). The runs and the model version stay there.
Writes results/benchmarks/gpu.json, where each part says on which GPU and when it was measured;
`--only` renews one part and keeps the others. `make results` renews the table from it.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import yaml
from pawcast_infra.local.private_ray import deploy, free_ports, private_ray

from pawcast.data import manifest as manifests
from pawcast.store import open_store
from tests.benchmarks.record import hardware
from tests.support.load import gpu_mib, sampled
from tests.support.services import ROOT, plain_environment, result_of, started_job

RESULT = Path(__file__).parent / "results" / "benchmarks" / "gpu.json"
SAMPLE_SECONDS, SPARE_MIB, FREE_SECONDS = 0.1, 50, 60
EPOCHS = 4


class Memory:
    """The GPU memory in use, in MiB, sampled during a block and until it is free again."""

    def __init__(self) -> None:
        self.idle = gpu_mib()

    @contextmanager
    def watched(self) -> Iterator[dict[str, float]]:
        """Yield a dictionary, which gets the peak, the memory afterwards, and when it was free."""
        result: dict[str, float] = {}
        with sampled(gpu_mib, SAMPLE_SECONDS) as samples:
            yield result
        since = time.monotonic()
        while gpu_mib() > self.idle + SPARE_MIB and time.monotonic() < since + FREE_SECONDS:
            time.sleep(SAMPLE_SECONDS)
        result.update(peak_mib=max(samples), after_mib=gpu_mib(), free_after_seconds=time.monotonic() - since)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, type=Path, help="a folder that is a store")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--recipe", default="article")
    parser.add_argument("--only", choices=["train", "stop", "serve"], help="renew this part alone")
    options = parser.parse_args()
    store = str(options.store.resolve())
    environment = {**plain_environment(), "PAWCAST_STORE": store}
    memory = Memory()
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "train": lambda: train(memory, environment, options.dataset, options.recipe),
        "stop": lambda: stop(memory, environment, options.dataset, options.recipe),
        "serve": lambda: serve(memory, store, options.dataset),
    }
    record: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    for name in [options.only] if options.only else parts:
        record[name] = {
            "measured": f"{datetime.now(UTC):%Y-%m-%d}",
            "hardware": hardware(),
            "recipe": options.recipe,
            "idle_mib": memory.idle,
            **parts[name](),
        }
        RESULT.write_text(json.dumps(record, indent=1) + "\n")


def command(dataset: str, recipe: str, *more: str) -> list[str]:
    return ["train.py", "--dataset", dataset, "--recipe", recipe, "--workers", "1", "--gpus-per-worker", "1", *more]


def train(memory: Memory, environment: dict[str, str], dataset: str, recipe: str) -> dict[str, Any]:
    """Train a few epochs."""
    with (
        memory.watched() as usage,
        started_job(*command(dataset, recipe, "--set", f"epochs={EPOCHS}", "--json"), environment=environment) as job,
    ):
        output, errors = job.communicate()
        if job.returncode:
            sys.exit(errors)
    result = result_of(output)
    run = Path(environment["PAWCAST_STORE"], "runs", result["run"])
    photos = manifests.load(open_store(environment["PAWCAST_STORE"]), dataset).splits["train"].photos
    # Of the last epoch: the first one also traces functions and loads the GPU's kernels.
    seconds = json.loads((run / "timing.json").read_text())["epoch"]["steps"]
    return {**usage, "epochs": EPOCHS, "photos_per_second": photos / seconds, "val_acc": result["metrics"]["val_acc"]}


def stop(memory: Memory, environment: dict[str, str], dataset: str, recipe: str) -> dict[str, Any]:
    """Interrupt training after its first epoch, as Ctrl-C does."""
    run = f"{recipe}-stopped-{time.time():.0f}"
    first = Path(environment["PAWCAST_STORE"], "runs", run, "history.json")
    arguments = command(dataset, recipe, "--set", "epochs=1000", "--run", run)
    with memory.watched() as usage, started_job(*arguments, environment=environment) as job:
        while not first.exists() and job.poll() is None:
            time.sleep(SAMPLE_SECONDS)
        job.send_signal(signal.SIGINT)
        job.communicate()
    return {**usage, "exit_code": job.returncode}


def serve(memory: Memory, store: str, dataset: str) -> dict[str, Any]:
    """Serve the newest version from the GPU, and predict the unlabelled split over HTTP."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    config = yaml.safe_load((ROOT / "serve" / "config.yaml").read_text())
    (application,) = config["applications"]
    application["args"]["model"] = "catdog@latest"
    application["deployments"][0]["ray_actor_options"]["num_gpus"] = 1
    with tempfile.TemporaryDirectory(prefix="pawcast-gpu-") as folder, memory.watched() as usage:
        on_gpu, deployed = Path(folder, "gpu.yaml"), Path(folder, "deployed.yaml")
        on_gpu.write_text(yaml.safe_dump(config))
        with private_ray(store, cpus=2) as environment:
            deploy(on_gpu, environment, port, deployed)
            arguments = ["--dataset", dataset, "--url", url, "--out", Path(folder, "predictions"), "--json"]
            engine = httpx.get(f"{url}/v1/model").json()["engine"]
            done = subprocess.run(
                [sys.executable, ROOT / "jobs" / "bulk_predict.py", *arguments],
                env=environment,
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
    result = result_of(done.stdout)
    return {**usage, "engine": engine, **{key: result[key] for key in ("photos", "seconds", "photos_per_second")}}


if __name__ == "__main__":
    main()
