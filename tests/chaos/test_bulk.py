"""Bulk prediction against the real service with killed clients, killed servers and broken networks.

In the end the output folder has the same bytes as after an undisturbed run.
"""

from __future__ import annotations

import csv
import json
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest

from pawcast import registry
from pawcast.client import journal as journals
from pawcast.client import retry
from pawcast.client.bulk import BulkOptions, bulk_predict
from pawcast.client.journal import PredictionRow
from pawcast.client.photos import SourcePhotos
from pawcast.data import manifest as manifests
from pawcast.data import shards
from pawcast.data.manifest import Manifest, Split
from pawcast.data.reader import SplitReader
from pawcast.errors import ConflictError, IntegrityError, ServiceError
from pawcast.store import Store, open_store
from tests.support import fault_proxy as faults
from tests.support.bulk_server import environment, register, serving
from tests.support.cases import case
from tests.support.fault_proxy import Proxy
from tests.support.files import encode, make_zip
from tests.support.services import ROOT, free_port, job, started_job, started_process

PHOTOS = 240
BROKEN = {17: b"", 203: b"no photo"}
# With these options a job sends sixty requests, which take about two seconds.
SECONDS = 0.06
OPTIONS = ("--batch", "4", "--connections", "2", "--timeout", "5", "--patience", "120")
FAST = BulkOptions(batch=8, connections=4, timeout=1.5, patience=30)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses of clients in this process."""
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.1)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A zip of small photos, two of them broken."""
    noise = np.random.default_rng(1)
    photos = {i: encode(noise.integers(0, 255, (16, 16, 3), np.uint8)) for i in range(1, PHOTOS + 1)} | BROKEN
    return make_zip(tmp_path_factory.mktemp("photos") / "test1.zip", {f"{i}.png": data for i, data in photos.items()})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = open_store(str(tmp_path_factory.mktemp("store")))
    register(store)
    return store


@pytest.fixture(scope="module")
def url(store: Store) -> Iterator[str]:
    with serving(store.uri, free_port(), SECONDS) as address:
        yield address


@pytest.fixture(scope="module")
def undisturbed(source: str, url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files that an undisturbed run leaves."""
    out = tmp_path_factory.mktemp("undisturbed")
    code, _, errors = predict(source, url, out)
    assert code == 4, errors
    assert "2 of 240 photos have no prediction" in errors
    with (out / "predictions.csv").open() as file:
        assert [row["id"] for row in csv.DictReader(file)] == [str(i) for i in range(1, PHOTOS + 1) if i not in BROKEN]
    with (out / "errors.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["file"]) for row in rows] == [(str(i), f"{i}.png") for i in BROKEN]
    assert rows[0]["reason"] == "empty file"
    assert "not an image" in rows[1]["reason"]
    left = contents(out)
    assert set(left) == {"predictions.csv", "errors.csv", "photos.png"}
    return left


@pytest.fixture(scope="module")
def rows(
    source: str, url: str, undisturbed: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> list[PredictionRow]:
    return bulk(source, url, tmp_path_factory.mktemp("rows"))


def predict(source: str, url: str, out: Path, *options: str) -> tuple[int, str, str]:
    arguments = ("--images", source, "--url", url, "--out", str(out), *OPTIONS, *options)
    return job("bulk_predict.py", *arguments, environment=environment())


def bulk(source: str, url: str, out: Path, options: BulkOptions = FAST) -> list[PredictionRow]:
    with bulk_predict(SourcePhotos(source), url, out, options=options) as result:
        return result.rows


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def recorded(out: Path) -> int:
    """How many batches the journal has, read past the lock of the run that writes it."""
    path = out / journals.NAME
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as database:
            count: int = database.execute("SELECT count(*) FROM batches WHERE start >= 0").fetchone()[0]
            return count
    except sqlite3.DatabaseError:
        # There is none yet, or it was read in the middle of a transaction.
        return 0


def test_a_client_killed_anywhere(source, url, undisturbed, tmp_path):
    chance = random.Random(1)
    out = tmp_path / "out"
    killed = 0
    for _ in range(4):
        arguments = ("--images", source, "--url", url, "--out", str(out), *OPTIONS)
        with started_job("bulk_predict.py", *arguments, environment=environment()) as client:
            # Often between two batches; sometimes before the first one, or while results are
            # written.
            before, wanted = recorded(out), chance.randrange(0, 12)
            while client.poll() is None and recorded(out) < before + wanted:
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.08))
            client.send_signal(signal.SIGKILL)
            killed += client.wait() == -signal.SIGKILL
    assert killed >= 3
    code, _, errors = predict(source, url, out)
    assert code == 4, errors
    assert contents(out) == undisturbed


def test_a_client_killed_while_it_writes_the_results(source, url, undisturbed, tmp_path):
    """The journal stays until all results are written; half-written files are removed."""
    out = tmp_path / "out"
    arguments = ("--images", source, "--url", url, "--out", str(out), *OPTIONS)
    for _ in range(3):
        with started_job("bulk_predict.py", *arguments, environment=environment()) as client:
            while not (out / "predictions.csv").exists() and client.poll() is None:
                time.sleep(0.001)
            client.send_signal(signal.SIGKILL)
            if client.wait() == -signal.SIGKILL:
                break
        # On a busy machine it may have ended before it could be killed.
        (out / "predictions.csv").unlink()
    assert recorded(out) == PHOTOS // 4
    (out / ".writing-abc").write_bytes(b"half")
    code, _, errors = predict(source, url, out)
    assert code == 4, errors
    assert contents(out) == undisturbed


def test_an_interrupted_client_ends_in_order_and_goes_on(source, url, rows, tmp_path):
    arguments = ("--images", source, "--url", url, "--out", str(tmp_path), *OPTIONS)
    with started_job("bulk_predict.py", *arguments, environment=environment()) as client:
        while recorded(tmp_path) < 5 and client.poll() is None:
            time.sleep(0.01)
        client.send_signal(signal.SIGTERM)
        _, errors = client.communicate(timeout=30)
        assert client.returncode == 130
        assert "Traceback" not in errors
    assert recorded(tmp_path) >= 5
    assert bulk(source, url, tmp_path) == rows


def test_a_server_killed_and_started_again(source, store, undisturbed, tmp_path):
    """On the same port, after a while."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = ("--images", source, "--url", url, "--out", str(tmp_path), *OPTIONS)
    with ExitStack() as first:
        first.enter_context(serving(store.uri, port, 2 * SECONDS))
        with started_job("bulk_predict.py", *arguments, environment=environment()) as client:
            reach(client, tmp_path, 8)
            first.close()
            time.sleep(1)
            with serving(store.uri, port, SECONDS):
                _, errors = client.communicate(timeout=60)
    assert client.returncode == 4, errors
    assert "waiting for the server" in errors
    assert contents(tmp_path) == undisturbed


def reach(client, out: Path, count: int) -> None:
    """Wait until the journal has so many batches."""
    while recorded(out) < count:
        assert client.poll() is None, client.stderr.read()
        time.sleep(0.01)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(faults.reset, id="reset"),
        pytest.param(faults.lose_response, id="answer lost"),
        pytest.param(faults.cut, id="cut"),
        pytest.param(faults.cut_hard, id="cut hard"),
        pytest.param(faults.stall, id="hangs"),
        pytest.param(faults.stall_midway, id="hangs midway"),
        pytest.param(faults.busy(503, "1"), id="503"),
        pytest.param(faults.busy(429, "1"), id="429"),
        pytest.param(faults.busy(429), id="429 without Retry-After"),
        pytest.param(faults.busy(502), id="502"),
        pytest.param(faults.error(404, "NoApp"), id="404"),
    ],
)
def test_network_faults_cost_time_only(source, url, rows, tmp_path, fault):
    with Proxy(urlparse(url).netloc) as proxy:
        rule = proxy.inject(fault, "POST", times=3)
        assert bulk(source, proxy.url, tmp_path) == rows
        assert rule.hits == 3


def test_all_faults_in_one_run(source, url, rows, tmp_path):
    kinds = [faults.reset, faults.lose_response, faults.cut_hard, faults.stall_midway, faults.busy(429, "0.2")]
    chance = random.Random(3)
    with Proxy(urlparse(url).netloc) as proxy:

        def any_of_them(handler: faults.Handler, body: bytes) -> None:
            if chance.random() < 0.3:
                chance.choice(kinds)(handler, body)
            else:
                handler.send(handler.forward(body))

        proxy.inject(any_of_them, "POST", times=30)
        assert bulk(source, proxy.url, tmp_path) == rows


def test_a_refused_connection_is_waited_for(source, url, rows, tmp_path):
    with Proxy(urlparse(url).netloc) as proxy:
        results: list[list[PredictionRow]] = []
        client = threading.Thread(target=lambda: results.append(bulk(source, proxy.url, tmp_path)))
        client.start()
        while recorded(tmp_path) < 4 and client.is_alive():
            time.sleep(0.01)
        with proxy.refusing(1):
            pass
        client.join(60)
    assert results == [rows]


def test_a_server_that_never_comes_back(source, url, rows, tmp_path):
    with Proxy(urlparse(url).netloc) as proxy:
        proxy.inject(lambda handler, body: handler.send(handler.forward(body)), "POST", times=6)
        proxy.inject(faults.stall, "POST", times=1000)
        code, output, errors = predict(source, proxy.url, tmp_path, "--patience", "2", "--json")
    assert code == 9
    assert output == ""
    last = errors.splitlines()[-1]
    assert last.startswith("error: ")
    assert all(part in last for part in ("24 of 240", "Received: ", "within 2 s", "goes on from here"))
    assert recorded(tmp_path) == 6
    assert not (tmp_path / "predictions.csv").exists()
    assert bulk(source, url, tmp_path) == rows


def test_a_rollout_during_the_run(source, rows, tmp_path):
    """Predictions of two versions are never mixed: the user chooses one."""
    store = open_store(str(tmp_path / "store"))
    register(store)
    port, out = free_port(), tmp_path / "out"
    url = f"http://127.0.0.1:{port}"
    options = FAST._replace(patience=20)
    with serving(store.uri, port, SECONDS), Proxy(f"127.0.0.1:{port}") as proxy:
        proxy.inject(lambda handler, body: handler.send(handler.forward(body)), "POST", times=10)
        proxy.inject(faults.busy(503), "POST", times=10_000)
        with pytest.raises(ServiceError):
            bulk(source, proxy.url, out, options._replace(patience=1))
    register(store)
    with serving(store.uri, port):
        with pytest.raises(ConflictError, match=r"Received: .*sums@2.*Expected: .*sums@1.*--fresh") as caught:
            bulk(source, url, out)
        assert caught.value.exit_code == 7
        assert bulk(source, url, tmp_path / "new") != rows
    registry.move_ref(store, "sums", "production", 1)
    with serving(store.uri, port):
        assert bulk(source, url, out) == rows


@pytest.mark.parametrize(
    "name",
    [
        "bothlabels.zip",
        "contradict.zip",
        "extensions.zip",
        "filtered.zip",
        "leak_train.zip",
        "leak_test.zip",
        "stray.zip",
    ],
)
def test_every_photo_of_the_small_archives_has_a_score_or_a_reason(url, tmp_path, name):
    source = str(case(name))
    assert [row.id for row in bulk(source, url, tmp_path)] == [photo.id for photo in SourcePhotos(source)._photos]


def test_odd_photos_leave_the_service_and_their_neighbors_alone(url, tmp_path):
    names = ["lossless_grey_64_j8.jpg", "lossless_rgb_64_j8.jpg", "invalid_sos_se0.jpg", "xmp_orientation.jpg"]
    good = encode(np.full((20, 20, 3), 90, np.uint8))
    files = {f"a/{name}": case(name).read_bytes() for name in names}
    files |= {f"{i}.png": good for i in range(8)} | {
        f"half/{name}": data[: len(data) // 2] for name, data in files.items()
    }
    rows = bulk(make_zip(tmp_path / "odd.zip", files), url, tmp_path / "out")
    assert sorted(row.member for row in rows) == sorted(files)
    assert all((row.score is None) != (row.error is None) for row in rows)
    expected = bulk(make_zip(tmp_path / "good.zip", {"0.png": good}), url, tmp_path / "alone")[0].score
    assert {row.score for row in rows if row.member[0].isdigit()} == {expected}


def test_a_dataset_without_ray_and_tensorflow(source, url, store, undisturbed, tmp_path):
    """A dataset's split gives the same files as its photos in a zip, without Ray and Keras."""
    files = SourcePhotos(source)
    photos = [(photo, data) for photo, data in files.read(0, PHOTOS) if data not in BROKEN.values()]
    stored = [
        shards.PhotoRow(p.id, p.name, -1, "0" * 64, 16, 16, data) for p, data in photos if isinstance(data, bytes)
    ]
    parts = [
        shards.write(store, "noise", "unlabelled", stored[i : i + 100], ["cat", "dog"]) for i in range(0, 238, 100)
    ]
    split = Split(photos=len(stored), per_class={}, shards=parts)
    facts = {"dataset": "noise", "classes": ["cat", "dog"], "seed": 0, "source_sha256": "", "report_sha256": ""}
    digest = manifests.publish(store, Manifest(splits={"unlabelled": split}, quarantine=[], **facts))
    code = (
        "import runpy, sys; blocked = ('ray', 'tensorflow', 'keras'); sys.modules.update(dict.fromkeys(blocked));"
        f"sys.argv = ['bulk_predict.py', *sys.argv[1:]]; runpy.run_path({str(ROOT / 'jobs/bulk_predict.py')!r}, "
        "run_name='__main__')"
    )
    out = tmp_path / "out"
    arguments = ("--dataset", f"noise@{digest[:12]}", "--store", store.uri, "--url", url, "--out", str(out), *OPTIONS)
    with started_process("-c", code, *arguments, "--json", environment=environment()) as client:
        output, errors = client.communicate(timeout=60)
    assert client.returncode == 0, errors
    assert json.loads(output)["photos"] == 238
    left = {name: data for name, data in undisturbed.items() if name != "errors.csv"}
    assert contents(out) == left
    reader = SplitReader.open(store, "noise", "unlabelled")
    assert [p.id for p, _ in reader.read(90, 210)] == [row.id for row in stored[90:210]]
    (Path(store.uri) / parts[1].key).write_bytes(b"other")
    with (
        pytest.raises(IntegrityError),
        bulk_predict(SplitReader.open(store, "noise", "unlabelled"), url, tmp_path / "x"),
    ):
        pass
