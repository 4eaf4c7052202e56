"""The service over HTTP on Ray Serve, behind HAProxy and again behind Serve's own proxy.

Slow clients, promotions under load, the Open Inference Protocol, Ray's metrics, updates.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import numpy as np
import pytest

from pawcast import registry
from pawcast.store import Store, open_store
from tests.support.cluster import Cluster
from tests.support.files import encode
from tests.support.served import IMAGE_HEADERS, publish
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
    # A replica that can't start would keep a CPU that other tests need.
    assert head.run("serve", "shutdown", "--yes").returncode == 0


@pytest.fixture
def photo(picture: np.ndarray) -> bytes:
    return encode(picture, "JPEG")


@contextmanager
def load(url: str, photo: bytes) -> Iterator[list[tuple[int, str]]]:
    """Send photos while the block runs; yield the list of (status, model) of the responses.

    A lost connection has status 0.
    """
    responses: list[tuple[int, str]] = []
    stopped = threading.Event()

    def work() -> None:
        with httpx.Client(base_url=url, timeout=60, headers={"x-api-key": KEY, **IMAGE_HEADERS}) as http:
            while not stopped.is_set():
                try:
                    response = http.post("/v1/classify", content=photo)
                    responses.append((response.status_code, response.json().get("model", response.text)))
                except httpx.TransportError as error:
                    responses.append((0, repr(error)))
                time.sleep(0.02)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield responses
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def test_a_slow_client_gets_a_408(head, url):
    with socket.create_connection(("127.0.0.1", head.http), timeout=30) as line:
        line.sendall(
            b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-type: image/jpeg\r\ncontent-length: 999\r\n\r\n"
        )
        line.sendall(b"a few bytes")
        received = b""
        # Serve's own proxy closes the connection after the response. HAProxy keeps it open.
        while not received.endswith(b"}") and (more := line.recv(4_096)):
            received += more
    assert received.startswith(b"HTTP/1.1 408")
    assert b'{"error":' in received


def test_a_body_may_be_chunked_but_not_endless(url, photo):
    def chunks(size: int) -> Iterator[bytes]:
        for start in range(0, size, 2**16):
            yield photo[start : start + 2**16].ljust(min(2**16, size - start), b"\0")

    with httpx.Client(base_url=url, timeout=60) as http:
        response = http.post("/v1/classify", content=chunks(len(photo)), headers=IMAGE_HEADERS)
        assert (response.status_code, response.request.headers["transfer-encoding"]) == (200, "chunked")
        # A client that reads only after sending everything may find the connection closed instead.
        try:
            response = http.post("/v1/classify", content=chunks(LARGEST + 2**20), headers=IMAGE_HEADERS)
            assert (response.status_code, list(response.json())) == (413, ["error"])
        except (httpx.WriteError, httpx.ReadError):
            pass
        assert http.post("/v1/classify", content=photo, headers=IMAGE_HEADERS).status_code == 200


def test_a_body_that_is_too_large_is_refused_by_its_content_length(head, url):
    with socket.create_connection(("127.0.0.1", head.http), timeout=30) as line:
        line.sendall(
            b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-type: image/jpeg\r\n"
            + f"content-length: {LARGEST + 1}\r\n\r\n".encode()
        )
        assert line.recv(4_096).startswith(b"HTTP/1.1 413")


def test_headers_and_statuses_pass_the_proxy(url, photo):
    response = httpx.post(f"{url}/v1/classify", content=photo, headers=IMAGE_HEADERS)
    assert response.json()["timings"]["total"] > 0
    assert response.headers["x-content-type-options"] == "nosniff"
    for method, path, status in (("GET", "/nowhere", 404), ("GET", "/v1/classify", 405), ("GET", "/v2/models/x", 404)):
        response = httpx.request(method, f"{url}{path}")
        assert (response.status_code, list(response.json())) == (status, ["error"])


def test_too_many_requests_get_a_429_and_the_others_are_answered(url, photo):
    form = [("photo", (f"{number}.jpg", photo)) for number in range(64)]
    responses: list[tuple[httpx.Response, float]] = []

    def work() -> None:
        with httpx.Client(base_url=url, timeout=60) as http:
            for _ in range(4):
                started = time.monotonic()
                responses.append((http.post("/v1/classify", files=form), time.monotonic() - started))

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {response.status_code for response, _ in responses} == {200, 429}
    for response, seconds in responses:
        if response.status_code == 429:
            assert response.headers["retry-after"] == "1"
            assert response.json()["error"].startswith("The server is busy")
        else:
            assert len(response.json()["predictions"]) == 64
            assert seconds < 20


def test_clients_that_send_a_byte_and_wait_do_not_lock_others_out(head, url, photo):
    start = b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-type: image/jpeg\r\ncontent-length: 999\r\n\r\n0"
    with ExitStack() as stack:
        for _ in range(400):
            line = stack.enter_context(socket.create_connection(("127.0.0.1", head.http), timeout=30))
            line.sendall(start)
        responses = [httpx.post(f"{url}/v1/classify", content=photo, headers=IMAGE_HEADERS) for _ in range(5)]
    assert [response.status_code for response in responses] == [200] * 5


def test_a_promoted_version_goes_live_under_load(head, store, url, photo):
    with load(url, photo) as responses:
        publish(store, seed=2, model=MODEL)
        wait_for(lambda: head.serves(f"{MODEL}@2"), 30)
        time.sleep(0.5)
    assert {status for status, _ in responses} == {200}, responses
    assert {model for _, model in responses} == {f"{MODEL}@1", f"{MODEL}@2"}


def test_a_version_that_fails_to_load_is_reported_and_the_old_one_answers(head, store, url, photo):
    with load(url, photo) as responses:
        publish(store, data=b"no weights", model=MODEL)
        wait_for(lambda: httpx.get(f"{url}/v1/model").json()["pending_error"], 30)
    assert set(responses) == {(200, f"{MODEL}@2")}
    registry.move_ref(store, MODEL, "production", 2)
    wait_for(lambda: httpx.get(f"{url}/v1/model").json()["pending_error"] is None, 30)


def test_the_open_inference_protocol_with_the_triton_client(head, url, photo, picture):
    from tritonclient import http as triton

    client = triton.InferenceServerClient(url.removeprefix("http://"))
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.get_model_metadata(MODEL)["inputs"][0]["datatype"] == "BYTES"
    expected = httpx.post(f"{url}/v1/classify", content=photo, headers=IMAGE_HEADERS).json()["predictions"][0]
    photos = triton.InferInput("image", [2, 1], "BYTES")
    for binary in (True, False):
        if binary:
            photos.set_data_from_numpy(np.array([[photo], [photo]], object))
            outputs = [triton.InferRequestedOutput("label"), triton.InferRequestedOutput("scores", binary_data=False)]
            result = client.infer(
                MODEL, [photos], outputs=outputs, request_id="7", request_compression_algorithm="gzip"
            )
            assert result.get_response()["id"] == "7"
        else:
            pixels = triton.InferInput("image", [1, *picture.shape], "UINT8")
            pixels.set_data_from_numpy(picture[None], binary_data=False)
            result = client.infer(MODEL, [pixels])
        assert result.as_numpy("label").shape == (2 if binary else 1,)
        assert result.as_numpy("scores").reshape(-1, 2)[0, 1] == pytest.approx(expected["scores"]["dog"], abs=0.01)
    assert result.as_numpy("label")[0] in (b"cat", b"dog")
    with pytest.raises(triton.InferenceServerException, match="Unknown model"):
        client.infer("nobody", [photos])
    client.close()


def test_metrics_are_exported_at_rays_endpoint(head, url):
    done = head.run(
        "python",
        "-c",
        "import ray; ray.init(logging_level='ERROR', log_to_driver=False); print(ray.nodes()[0]['MetricsExportPort'])",
    )
    address = f"http://127.0.0.1:{done.stdout.split()[-1]}/metrics"
    names = (
        "requests_total",
        "photos_total",
        "waiting_photos",
        "batch_photos_bucket",
        "decode_seconds_sum",
        "inference_seconds_sum",
        "model_version",
        "request_seconds_count",
    )

    def text() -> str:
        return httpx.get(address).text

    wait_for(lambda: all(f"ray_pawcast_{name}{{" in text() for name in names), 40, text)
    exported = text()
    assert re.search(r'ray_pawcast_photos_total\{.*outcome="classified".*\} [1-9]', exported)
    assert re.search(r'ray_pawcast_requests_total\{.*status="408".*\} 1', exported)
    assert re.search(r'ray_pawcast_model_version\{.*model="tiny".*\} [1-9]', exported)
    assert re.search(r'ray_pawcast_requests_total\{.*route="/v1/classify".*status="200".*\}', exported)
    assert "nowhere" not in exported


def test_head_and_the_docs_pass_the_proxy(url):
    for path in ("/", "/docs", "/healthz", "/v1/model"):
        get, head = httpx.get(f"{url}{path}"), httpx.head(f"{url}{path}")
        assert (get.status_code, head.status_code, head.content) == (200, 200, b"")
        assert head.headers["content-length"] == str(len(get.content))


def test_while_the_only_replica_is_killed_every_request_is_answered_or_refused_soon(head, url, photo):
    (replica,) = head.replicas()
    os.kill(replica, signal.SIGKILL)
    outcomes = outcomes_until_ready(url, photo)
    assert {status for status, _ in outcomes} <= {0, 200, 500, 503}
    assert any(status == 503 for status, _ in outcomes)
    assert max(seconds for _, seconds in outcomes) < 5
    assert head.replicas() != {replica}


def test_while_the_proxy_is_killed_every_request_is_answered_or_refused_soon(head, url, photo):
    proxies = head.proxies()
    assert proxies
    for process in proxies:
        os.kill(process, signal.SIGKILL)
    outcomes = outcomes_until_ready(url, photo)
    assert {status for status, _ in outcomes} <= {0, 200, 404, 500, 503}
    assert max(seconds for _, seconds in outcomes) < 5


def outcomes_until_ready(url: str, photo: bytes) -> list[tuple[int, float]]:
    """Send photos until several in a row are classified; return status (0: refused) and seconds."""
    outcomes: list[tuple[int, float]] = []

    def is_ready() -> bool:
        started = time.monotonic()
        try:
            response = httpx.post(f"{url}/v1/classify", content=photo, headers=IMAGE_HEADERS, timeout=30)
            status = response.status_code
            if status == 503:
                assert response.headers["retry-after"]
                assert response.json()["error"]
        except (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError):
            status = 0
        outcomes.append((status, time.monotonic() - started))
        return [status for status, _ in outcomes[-5:]] == [200] * 5

    wait_for(is_ready, 120, lambda: str(outcomes[-20:]))
    return outcomes


def test_an_update_of_the_one_replica_fails_no_request(head, url, photo, tmp_path):
    """The update also sets an API key, as the environment of Ray's head would."""
    with load(url, photo) as responses:
        head.deploy(tmp_path, ARGUMENTS, {"env_vars": {"PAWCAST_API_KEY": KEY}})
        wait_for(lambda: httpx.get(f"{url}/v1/model").status_code == 401, 90, lambda: str(responses[-5:]))
        time.sleep(1)
    assert {status for status, _ in responses} == {200}, [response for response in responses if response[0] != 200]
    assert httpx.get(f"{url}/v1/model", headers={"authorization": f"Bearer {KEY}"}).status_code == 200
    assert httpx.get(f"{url}/readyz").status_code == 200
    assert KEY not in head.log.read_text()


def test_an_update_to_a_missing_model_leaves_the_old_one_answering(head, url, photo, tmp_path):
    with load(url, photo) as responses:
        head.deploy(tmp_path, {**ARGUMENTS, "model": "nobody@production"}, {"env_vars": {"PAWCAST_API_KEY": KEY}})
        wait_for(lambda: "Unknown model. Received: 'nobody'" in head.run("serve", "status").stdout, 60)
    assert set(responses) == {(200, f"{MODEL}@2")}
