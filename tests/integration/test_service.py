"""The service over real HTTP: slow clients, roll-outs under load, the Open Inference Protocol, Ray's metrics.

All of it behind HAProxy, and again behind Serve's own proxy.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import numpy as np
import pytest

from pawcast import registry
from pawcast.store import Store, open_store
from tests.support.cluster import Cluster
from tests.support.files import encode
from tests.support.served import ACCEPTED, publish
from tests.support.services import wait_for

pytestmark = pytest.mark.long

LARGEST = 4 * 2**20
KEY = "a key for the tests only"
MODEL = "tiny"
ARGUMENTS = {
    "model": f"{MODEL}@production",
    "check_seconds": 0.5,
    "limits": {"receive_seconds": 2, "waiting_photos": 128, "body_bytes": LARGEST},
}


@pytest.fixture(scope="module", params=["1", "0"], ids=["haproxy", "proxy"])
def head(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("head")
    cluster = Cluster(folder, folder / "store", RAY_SERVE_ENABLE_HA_PROXY=request.param)
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def store(head: Cluster) -> Store:
    store = open_store(str(head.store))
    publish(store, seed=1, model=MODEL)
    return store


@pytest.fixture(scope="module")
def url(head: Cluster, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    head.deploy(tmp_path_factory.mktemp("serve"), ARGUMENTS)
    wait_for(lambda: head.serves(MODEL), 120)
    assert head.haproxy == (head.environment["RAY_SERVE_ENABLE_HA_PROXY"] == "1")
    yield head.url
    # Replicas that are being tried in vain would hold a CPU that other tests need.
    assert head.run("serve", "shutdown", "--yes").returncode == 0


@pytest.fixture
def photo(picture: np.ndarray) -> bytes:
    return encode(picture, "JPEG")


@contextmanager
def load(url: str, photo: bytes) -> Iterator[list[tuple[int, str]]]:
    """Send photos all the time; yield what comes back as (status, model), a lost connection as status 0."""
    answers: list[tuple[int, str]] = []
    over = threading.Event()

    def work() -> None:
        with httpx.Client(base_url=url, timeout=60, headers={"x-api-key": KEY, **ACCEPTED}) as http:
            while not over.is_set():
                try:
                    response = http.post("/v1/classify", content=photo)
                    answers.append((response.status_code, response.json().get("model", response.text)))
                except httpx.TransportError as error:
                    answers.append((0, repr(error)))
                time.sleep(0.02)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_a_slow_client_gets_a_408(head, url):
    with socket.create_connection(("127.0.0.1", head.http), timeout=30) as line:
        line.sendall(
            b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-type: image/jpeg\r\ncontent-length: 999\r\n\r\n"
        )
        line.sendall(b"a few bytes")
        received = b""
        # Serve's own proxy closes the connection then; HAProxy keeps it, by time limits of its own.
        while not received.endswith(b"}") and (more := line.recv(4_096)):
            received += more
    assert received.startswith(b"HTTP/1.1 408")
    assert b'{"error":' in received


def test_a_body_may_come_in_chunks_but_not_without_end(url, photo):
    def chunks(size: int) -> Iterator[bytes]:
        for start in range(0, size, 2**16):
            yield photo[start : start + 2**16].ljust(min(2**16, size - start), b"\0")

    with httpx.Client(base_url=url, timeout=60) as http:
        response = http.post("/v1/classify", content=chunks(len(photo)), headers=ACCEPTED)
        assert (response.status_code, response.request.headers["transfer-encoding"]) == (200, "chunked")
        # A client that doesn't read before it has sent everything may find the connection closed instead.
        try:
            response = http.post("/v1/classify", content=chunks(LARGEST + 2**20), headers=ACCEPTED)
            assert (response.status_code, list(response.json())) == (413, ["error"])
        except (httpx.WriteError, httpx.ReadError):
            pass
        assert http.post("/v1/classify", content=photo, headers=ACCEPTED).status_code == 200


def test_too_large_a_body_is_refused_by_its_length_alone(head, url):
    with socket.create_connection(("127.0.0.1", head.http), timeout=30) as line:
        line.sendall(
            b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-type: image/jpeg\r\n"
            + f"content-length: {LARGEST + 1}\r\n\r\n".encode()
        )
        assert line.recv(4_096).startswith(b"HTTP/1.1 413")


def test_headers_and_statuses_pass_the_proxy(url, photo):
    response = httpx.post(f"{url}/v1/classify", content=photo, headers=ACCEPTED)
    assert response.json()["timings"]["total"] > 0
    assert response.headers["x-content-type-options"] == "nosniff"
    for method, path, status in (("GET", "/nowhere", 404), ("GET", "/v1/classify", 405), ("GET", "/v2/models/x", 404)):
        response = httpx.request(method, f"{url}{path}")
        assert (response.status_code, list(response.json())) == (status, ["error"])


def test_too_much_at_once_is_told_to_come_back_and_the_rest_is_answered(url, photo):
    form = [("photo", (f"{number}.jpg", photo)) for number in range(64)]
    answers: list[tuple[httpx.Response, float]] = []

    def work() -> None:
        with httpx.Client(base_url=url, timeout=60) as http:
            for _ in range(4):
                started = time.monotonic()
                answers.append((http.post("/v1/classify", files=form), time.monotonic() - started))

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {response.status_code for response, _ in answers} == {200, 429}
    for response, seconds in answers:
        if response.status_code == 429:
            assert response.headers["retry-after"] == "1"
            assert response.json()["error"].startswith("The server is busy")
        else:
            assert len(response.json()["predictions"]) == 64
            assert seconds < 20


def test_a_promoted_version_goes_live_under_load(head, store, url, photo):
    with load(url, photo) as answers:
        publish(store, seed=2, model=MODEL)
        wait_for(lambda: head.serves(f"{MODEL}@2"), 30)
        time.sleep(0.5)
    assert {status for status, _ in answers} == {200}, answers
    assert {model for _, model in answers} == {f"{MODEL}@1", f"{MODEL}@2"}


def test_a_version_that_does_not_load_is_said_and_the_old_one_goes_on(head, store, url, photo):
    with load(url, photo) as answers:
        publish(store, data=b"no weights", model=MODEL)
        wait_for(lambda: httpx.get(f"{url}/v1/model").json()["pending_error"], 30)
    assert set(answers) == {(200, f"{MODEL}@2")}
    registry.move_ref(store, MODEL, "production", 2)
    wait_for(lambda: httpx.get(f"{url}/v1/model").json()["pending_error"] is None, 30)


def test_the_open_inference_protocol_with_the_triton_client(head, url, photo, picture):
    from tritonclient import http as triton

    client = triton.InferenceServerClient(url.removeprefix("http://"))
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.get_model_metadata(MODEL)["inputs"][0]["datatype"] == "BYTES"
    expected = httpx.post(f"{url}/v1/classify", content=photo, headers=ACCEPTED).json()["predictions"][0]
    given = triton.InferInput("image", [2, 1], "BYTES")
    for binary in (True, False):
        if binary:
            given.set_data_from_numpy(np.array([[photo], [photo]], object))
            wanted = [triton.InferRequestedOutput("label"), triton.InferRequestedOutput("scores", binary_data=False)]
            found = client.infer(MODEL, [given], outputs=wanted, request_id="7", request_compression_algorithm="gzip")
            assert found.get_response()["id"] == "7"
        else:
            pixels = triton.InferInput("image", [1, *picture.shape], "UINT8")
            pixels.set_data_from_numpy(picture[None], binary_data=False)
            found = client.infer(MODEL, [pixels])
        assert found.as_numpy("label").shape == (2 if binary else 1,)
        assert found.as_numpy("scores").reshape(-1, 2)[0, 1] == pytest.approx(expected["scores"]["dog"], abs=0.01)
    assert found.as_numpy("label")[0] in (b"cat", b"dog")
    with pytest.raises(triton.InferenceServerException, match="Unknown model"):
        client.infer("nobody", [given])
    client.close()


def test_metrics_are_at_rays_endpoint(head, url):
    done = head.run(
        "python", "-c",
        "import ray; ray.init(logging_level='ERROR', log_to_driver=False); print(ray.nodes()[0]['MetricsExportPort'])",
    )  # fmt: skip
    address = f"http://127.0.0.1:{done.stdout.split()[-1]}/metrics"
    names = (
        "requests_total", "photos_total", "errors_total", "waiting_photos", "batch_photos_bucket",
        "decode_seconds_sum", "inference_seconds_sum", "model_version", "request_seconds_count",
    )  # fmt: skip

    def text() -> str:
        return httpx.get(address).text

    wait_for(lambda: all(f"ray_pawcast_{name}{{" in text() for name in names), 40, text)
    found = text()
    assert re.search(r'ray_pawcast_photos_total\{.*outcome="answered".*\} [1-9]', found)
    assert re.search(r'ray_pawcast_errors_total\{.*kind="slow".*\} 1', found)
    assert re.search(r'ray_pawcast_model_version\{.*model="tiny".*\} [1-9]', found)
    assert re.search(r'ray_pawcast_requests_total\{.*route="/v1/classify".*status="200".*\}', found)
    assert "nowhere" not in found


def test_an_update_of_the_one_replica_fails_no_request(head, url, photo, tmp_path):
    """The update also brings an API key, as the head's environment would."""
    with load(url, photo) as answers:
        head.deploy(tmp_path, ARGUMENTS, {"env_vars": {"PAWCAST_API_KEY": KEY}})
        wait_for(lambda: httpx.get(f"{url}/v1/model").status_code == 401, 90, lambda: str(answers[-5:]))
        time.sleep(1)
    assert {status for status, _ in answers} == {200}, [answer for answer in answers if answer[0] != 200]
    assert httpx.get(f"{url}/v1/model", headers={"authorization": f"Bearer {KEY}"}).status_code == 200
    assert httpx.get(f"{url}/readyz").status_code == 200
    assert KEY not in head.log.read_text()


def test_an_update_to_a_model_that_is_not_there_leaves_the_old_one(head, url, photo, tmp_path):
    with load(url, photo) as answers:
        head.deploy(tmp_path, {**ARGUMENTS, "model": "nobody@production"}, {"env_vars": {"PAWCAST_API_KEY": KEY}})
        wait_for(lambda: "Unknown model. Received: 'nobody'" in head.run("serve", "status").stdout, 60)
    assert set(answers) == {(200, f"{MODEL}@2")}
