"""kill -9 of an ingest, its workers or its nodes: nothing partial, and what can go on goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from pawcast.data import manifest as manifests
from pawcast.data.verify import verify
from pawcast.errors import NotFoundError
from pawcast.store import open_store
from tests.support.crashing_decoder import MARKS
from tests.support.services import ROOT, Photos, job, plain_environment, result_of

# The line of progress after which the ingest is killed.
BEFORE_PUBLICATION = ("checking         0 of", "checking       340 of", "writing          0 of")
DURING_PUBLICATION = "writing        340 of"

# Ingest in a Ray whose decoder dies at marked photos.
CRASHING_DECODER = """
import json, sys
import ray
from pawcast.data.ingest import ingest
from pawcast.store import open_store
hook = {"worker_process_setup_hook": "tests.support.crashing_decoder.install"}
ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=hook)
manifest = ingest(open_store(sys.argv[1]), "pets", sys.argv[2], test_size=60).manifest
print("result:", json.dumps({photo.name: (photo.kind, photo.reason) for photo in manifest.quarantine}))
"""
# Ingest by small tasks on a head without CPUs and two nodes, some of which die in mid-stage.
DYING_NODES = """
import sys
import ray
from ray.cluster_utils import Cluster
from pawcast.data import inspect, shards
from pawcast.data.ingest import ingest
from pawcast.errors import ClusterError
from pawcast.runtime import ray_session
from pawcast.store import open_store

inspect._PHOTOS_PER_TASK, shards.MAX_ROWS, ray_session._SILENT_SECONDS = (10, 5, 1), 10, 5
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
doomed = nodes[: int(sys.argv[2])]

def kill(stage, done, total, note="", unit="photos"):
    if stage == sys.argv[1] and done >= 50:
        while doomed:
            cluster.remove_node(doomed.pop(), allow_graceful=False)

try:
    ray.init(address=cluster.address, log_to_driver=False)
    manifest = ingest(open_store(sys.argv[3]), "pets", sys.argv[4], test_size=60, progress=kill).manifest
    print("result:", manifest.digest)
except ClusterError as error:
    print("result:", error)
finally:
    ray.shutdown()
    cluster.shutdown()
"""


@pytest.mark.usefixtures("local_ray")
def test_an_ingest_killed_at_any_moment_leaves_no_partial_dataset(tmp_path: Path, photos: Photos) -> None:
    sources = ["--labelled", str(photos.labelled), "--unlabelled", str(photos.unlabelled)]
    arguments = ["ingest.py", *sources, "--dataset", "pets", "--test-size", "60", "--json"]
    code, output, errors = job(*arguments, "--store", str(tmp_path / "undisturbed"))
    assert code == 0, errors
    store = open_store(str(tmp_path / "store"))
    for moment in BEFORE_PUBLICATION:
        kill_at(moment, arguments, tmp_path / "store")
        with pytest.raises(NotFoundError):
            verify(store, "pets")
    kill_at(DURING_PUBLICATION, arguments, tmp_path / "store")
    if any("/refs/" in key for key in store.list("datasets/pets/")):
        # Published before the kill: then it must be whole.
        verify(store, "pets")
    code, again, errors = job(*arguments, "--store", str(tmp_path / "store"))
    assert code == 0, errors
    assert result_of(again)["digest"] == result_of(output)["digest"]
    assert verify(store, "pets") == manifests.load(open_store(str(tmp_path / "undisturbed")), "pets")


def kill_at(moment: str, arguments: list[str], store: Path) -> None:
    """Start an ingest in a process group of its own; kill driver, Ray and workers at this line."""
    command = [sys.executable, str(ROOT / "jobs" / arguments[0]), *arguments[1:], "--store", str(store)]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=plain_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        reached = any(line.startswith(moment) for line in process.stderr)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert reached


def test_photos_that_kill_the_decoder_are_quarantined_and_the_rest_goes_on(tmp_path: Path, photos: Photos) -> None:
    folder = shutil.copytree(photos.labelled_folder, tmp_path / "photos")
    for name, mark in zip(("cat.3.jpg", "dog.140.jpg"), MARKS, strict=True):
        (folder / name).write_bytes((folder / name).read_bytes() + mark)
    result = run_python(CRASHING_DECODER, str(tmp_path / "store"), str(folder))
    reason = ["unreadable", "crashed the decoder"]
    assert json.loads(result) == {"cat.3.jpg": reason, "dog.140.jpg": reason}
    manifest = manifests.load(open_store(str(tmp_path / "store")), "pets")
    assert {name: split.photos for name, split in manifest.splits.items()} == {
        "train": 178,
        "val": 60,
        "test": 60,
        "unlabelled": 0,
    }


@pytest.mark.parametrize("stage", ["checking", "writing"])
def test_an_ingest_goes_on_when_one_of_two_nodes_dies(tmp_path: Path, photos: Photos, stage: str) -> None:
    digest = run_python(DYING_NODES, stage, "1", str(tmp_path / "store"), str(photos.labelled))
    manifest = manifests.load(open_store(str(tmp_path / "store")), "pets")
    assert manifest.digest == digest
    assert sum(split.photos for split in manifest.splits.values()) == 300


def test_an_ingest_without_any_node_left_ends_in_one_line(tmp_path: Path, photos: Photos) -> None:
    line = run_python(DYING_NODES, "checking", "2", str(tmp_path / "store"), str(photos.labelled))
    assert line.startswith("All nodes with CPUs have left the Ray cluster. Fix: ")


def run_python(code: str, *arguments: str) -> str:
    """Run Python with a Ray of its own; return what it prints as its result."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=plain_environment() | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Ray prints messages about dead workers and nodes to standard output as well.
    (result,) = (line for line in done.stdout.splitlines() if line.startswith("result: "))
    return result.removeprefix("result: ")
