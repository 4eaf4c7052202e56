"""The bulk client against a small HTTP server that does as each test says."""

from __future__ import annotations

import json
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from pawcast.client import bulk, journal, retry, service_client
from pawcast.client.bulk import BulkOptions, BulkResult, bulk_predict
from pawcast.client.photos import SourcePhotos
from pawcast.client.service_client import classify
from pawcast.core.settings import api_key
from pawcast.data.sources import Photo
from pawcast.errors import ConflictError, DataError, ImageError, PawcastError, ServiceError, UsageError
from tests.support.files import make_folder, make_zip

Said = tuple[int, dict[str, str], object]
FAST = BulkOptions(batch=4, connections=3, timeout=2, patience=20)


class Desk(ThreadingHTTPServer):
    """Answers as the service does, with a sum over the bytes; `rules` may answer first."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.model = "sums@1"
        self.about: object = {"model": "sums", "version": 1, "classes": ["cat", "dog"], "files": {"w": "x"}}
        self.rules: list[Callable[[int, list[bytes]], Said | None]] = []
        self.request_sizes: list[int] = []
        self.photos: list[list[bytes]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing."""

    def answer(self, photos: list[bytes]) -> Said:
        for rule in self.rules:
            if said := rule(len(self.request_sizes), photos):
                return said
        items = [
            {"id": str(i), "error": "no\nphoto"} if data == b"bad" else {"id": str(i), "scores": scores(data)}
            for i, data in enumerate(photos)
        ]
        return 200 if any("scores" in item for item in items) else 422, {}, {"model": self.model, "predictions": items}


def scores(data: bytes) -> dict[str, float]:
    score = zlib.crc32(data) / 2**32
    return {"cat": 1 - score, "dog": score}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Desk

    def do_GET(self) -> None:
        said = self.server.about
        self._say(said if isinstance(said, tuple) else (200, {}, said))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.times.append(time.monotonic())
        self.server.request_sizes.append(len(body))
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        photos = [body]
        if boundary := re.search("boundary=(.+)", self.headers["content-type"]):
            parts = body.split(b"--" + boundary[1].encode())[1:-1]
            photos = [part.partition(b"\r\n\r\n")[2][:-2] for part in parts]
        self.server.photos.append(photos)
        self._say(self.server.answer(photos))

    def _say(self, said: Said) -> None:
        status, headers, content = said
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response_only(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.05)


@pytest.fixture
def desk() -> Iterator[Desk]:
    with Desk() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path) -> str:
    files = {f"{i}.jpg": f"photo {i}".encode() for i in range(1, 31)}
    return make_folder(tmp_path / "photos", files | {"7.jpg": b"bad"})


def predict(source: str, desk: Desk, out: Path, options: BulkOptions = FAST, **arguments: object) -> BulkResult:
    with bulk_predict(SourcePhotos(source), desk.url, out, options=options, **arguments) as found:  # type: ignore[arg-type]
        return found


def first(count: int, status: int, headers: dict[str, str] | None = None) -> Callable[[int, list[bytes]], Said | None]:
    """Answer the first requests so."""
    return lambda number, photos: (status, headers or {}, {"error": "later"}) if number <= count else None


def test_every_photo_once_in_order(desk, folder, tmp_path):
    calls = []
    found = predict(folder, desk, tmp_path / "out", progress=lambda *call: calls.append(call))
    assert [row.id for row in found.rows] == [str(i) for i in range(1, 31)]
    assert [row.error for row in found.rows if row.error] == ["no photo"]
    assert found.rows[2].score == scores(b"photo 3")["dog"]
    assert found[:2] == ("sums@1", ["cat", "dog"])
    assert sorted(data for photos in desk.photos for data in photos) == sorted(
        (Path(folder) / f"{i}.jpg").read_bytes() for i in range(1, 31)
    )
    assert calls[0] == ("predicting", 0, 30, "")
    assert calls[-1] == ("predicting", 30, 30, "")
    assert not journal.exists(tmp_path / "out")


@pytest.mark.parametrize("status", [404, 429, 500, 503])
def test_a_passing_refusal_costs_time_only(desk, folder, tmp_path, status):
    expected = predict(folder, desk, tmp_path / "out").rows
    desk.request_sizes.clear()
    desk.rules.append(first(2, status))
    notes = []
    assert predict(folder, desk, tmp_path / "out", progress=lambda *call: notes.append(call[3])).rows == expected
    assert any(f"HTTP {status}: later" in note for note in notes)


@pytest.mark.parametrize("late", ["1", "date"])
def test_retry_after_is_honoured(desk, folder, tmp_path, late):
    # A date has whole seconds: two from now is between one and two.
    value = formatdate(time.time() + 2, usegmt=True) if late == "date" else late
    desk.rules.append(first(1, 429, {"retry-after": value}))
    predict(folder, desk, tmp_path / "out", FAST._replace(connections=1))
    assert 0.9 < desk.times[1] - desk.times[0] < 4


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7), ("1.5", 1.5), ("soon", None), ("-3", None), ("0", None), ("nan", None), ("", None), ("1e999", None),
     ("Wed, 99 Foo", None), ("Wed, 21 Oct 2015 07:28:00 GMT", None)],
)  # fmt: skip
def test_a_retry_after_that_makes_no_sense_is_ignored(value, seconds):
    assert service_client._retry_after(httpx.Response(503, headers={"retry-after": value})) == seconds
    assert service_client._retry_after(httpx.Response(503)) is None


def test_requests_stay_below_what_the_service_takes(desk, tmp_path, monkeypatch):
    files = {f"{i}.jpg": bytes([i]) * 100_000 for i in range(20)}
    source = make_zip(tmp_path / "photos.zip", files)
    monkeypatch.setattr(bulk, "MAX_REQUEST_BYTES", 250_000)
    assert len(predict(source, desk, tmp_path / "out").rows) == 20
    assert [len(photos) for photos in desk.photos] == [2] * 10
    desk.photos.clear()
    monkeypatch.setattr(bulk, "MAX_REQUEST_BYTES", 50_000)
    assert len(predict(source, desk, tmp_path / "out").rows) == 20
    assert [len(photos) for photos in desk.photos] == [1] * 20


def test_a_server_that_takes_less_gets_less_at_once(desk, tmp_path):
    files = {f"{i}.jpg": bytes([i]) * 1_000 for i in range(9)} | {"4.jpg": bytes(9_000)}
    desk.rules.append(lambda number, photos: (413, {}, {}) if sum(map(len, photos)) > 2_500 else None)
    rows = predict(make_folder(tmp_path / "photos", files), desk, tmp_path / "out").rows
    assert [row.id for row in rows if row.error] == ["4"]
    assert rows[4].error == "larger than the server takes"
    assert [row.score for row in rows[:2]] == [scores(files[f"{i}.jpg"])["dog"] for i in range(2)]


@pytest.mark.parametrize(
    "said",
    [
        (200, {}, b"hello"), (200, {}, []), (200, {}, {"model": "sums@1"}),
        (200, {}, {"model": "sums@1", "predictions": 7}),
        (200, {}, {"model": "sums@1", "predictions": [{"id": "0"}]}), (400, {}, {"error": "no\nform"}), (301, {}, b""),
        (200, {}, {"model": "sums@1", "predictions": [{"id": str(i), "scores": {"dog": "x"}} for i in range(4)]}),
        (200, {}, {"model": "sums@1", "predictions": [{"id": str(i), "scores": {"dog": 7}} for i in range(4)]}),
        (200, {}, {"model": "sums@1", "predictions": [{"id": "9", "scores": scores(b"")} for i in range(4)]}),
        (422, {}, {"error": "no"}),
    ],
)  # fmt: skip
def test_an_answer_that_makes_no_sense_is_one_line(desk, folder, tmp_path, said):
    desk.rules.append(lambda number, photos: said)
    with pytest.raises(ServiceError) as caught:
        predict(folder, desk, tmp_path / "out")
    assert desk.url in str(caught.value)
    assert "\n" not in str(caught.value)


def test_patience_ends_and_the_run_goes_on_later(desk, folder, tmp_path):
    desk.rules.append(
        lambda number, photos: (503, {"retry-after": "60"}, {"error": "no model"}) if number > 3 else None
    )
    out = tmp_path / "out"
    began = time.monotonic()
    with pytest.raises(ServiceError, match=r"stopped answering, with .* of 30 .*no model.*0\.8 s.*goes on") as caught:
        predict(folder, desk, out, FAST._replace(patience=0.8))
    assert 0.8 <= time.monotonic() - began < 6
    assert caught.value.exit_code == 9
    assert journal.exists(out)
    desk.rules.clear()
    desk.photos.clear()
    found = predict(folder, desk, out)
    assert found.earlier == 12
    assert sum(map(len, desk.photos)) == 18
    assert found.rows == predict(folder, desk, out, fresh=True).rows


def test_another_batch_size_goes_on_all_the_same(desk, folder, tmp_path):
    expected = predict(folder, desk, tmp_path / "undisturbed").rows
    # Of ten batches, each second one is refused for good.
    refused = {f"photo {i}".encode() for i in range(4, 31, 6)}
    desk.rules.append(lambda number, photos: (503, {}, {}) if photos[0] in refused else None)
    with pytest.raises(ServiceError):
        predict(folder, desk, tmp_path / "out", FAST._replace(batch=3, connections=6, patience=0.7))
    desk.rules.clear()
    desk.photos.clear()
    found = predict(folder, desk, tmp_path / "out", FAST._replace(batch=5))
    assert 3 <= found.earlier <= 15
    assert sum(map(len, desk.photos)) == 30 - found.earlier
    assert found.rows == expected


def test_the_model_changes_on_the_way(desk, folder, tmp_path):
    def change(number: int, photos: list[bytes]) -> None:
        desk.model = "sums@2" if number > 3 else "sums@1"

    expected = predict(folder, desk, tmp_path / "undisturbed").rows
    desk.request_sizes.clear()
    desk.rules.append(change)
    with pytest.raises(ConflictError, match=r"changed during the run.*sums@2.*sums@1.*--fresh"):
        predict(folder, desk, tmp_path / "out")
    desk.rules.clear()
    desk.about = {"model": "sums", "version": 2, "classes": ["cat", "dog"], "files": {"w": "y"}}
    with pytest.raises(ConflictError, match=r"another model.*sums@2.*sums@1.*--fresh"):
        predict(folder, desk, tmp_path / "out")
    desk.about = {"model": "sums", "version": 1, "classes": ["cat", "dog"], "files": {"w": "z"}}
    with pytest.raises(ConflictError, match=r"another model.*weights"):
        predict(folder, desk, tmp_path / "out")
    desk.about = {"model": "sums", "version": 1, "classes": ["cat", "dog"], "files": {"w": "x"}}
    desk.model = "sums@1"
    found = predict(folder, desk, tmp_path / "out")
    assert found.earlier
    assert found.rows == expected


def test_other_photos_are_not_taken_for_the_rest(desk, folder, tmp_path):
    desk.rules.append(lambda number, photos: (503, {}, {}) if number > 2 else None)
    limits = FAST._replace(patience=0.3)
    with pytest.raises(ServiceError):
        predict(folder, desk, tmp_path / "out", limits)
    (Path(folder) / "31.jpg").write_bytes(b"one more")
    with pytest.raises(ConflictError, match=r"other photos.*31 photos.*30 photos"):
        predict(folder, desk, tmp_path / "out", limits)


def test_photos_that_change_during_the_run(desk, folder, tmp_path):
    def grow(number: int, photos: list[bytes]) -> None:
        (Path(folder) / "3.jpg").write_bytes(b"longer than it was")

    desk.rules.append(grow)
    with pytest.raises(DataError, match="changed while it was read"):
        predict(folder, desk, tmp_path / "out")


def test_a_zip_that_changes_during_the_run(desk, tmp_path):
    source = make_zip(tmp_path / "photos.zip", {f"{i}.jpg": b"x" for i in range(30)})

    def change(number: int, photos: list[bytes]) -> None:
        make_zip(tmp_path / "other.zip", {f"{i}.jpg": b"x" * (i + 1) for i in range(30)})
        (tmp_path / "other.zip").replace(source)

    everything_at_once = FAST._replace(connections=1, batch=30)
    assert len(predict(source, desk, tmp_path / "out", everything_at_once).rows) == 30
    desk.rules.append(change)
    with pytest.raises(DataError, match="changed while it was read"):
        predict(source, desk, tmp_path / "out", everything_at_once)


def test_a_zip_that_vanishes_during_the_run_is_one_line(desk, tmp_path):
    source = make_zip(tmp_path / "photos.zip", {f"{i}.jpg": b"x" for i in range(30)})
    desk.rules.append(lambda number, photos: Path(source).unlink(missing_ok=True))
    with pytest.raises(PawcastError, match=r"photos\.zip"):
        predict(source, desk, tmp_path / "out", FAST._replace(connections=1))


def test_the_journal_stays_until_the_results_are_written(desk, folder, tmp_path):
    with pytest.raises(OSError, match="disk"), bulk_predict(SourcePhotos(folder), desk.url, tmp_path, options=FAST):
        raise OSError("disk")
    desk.photos.clear()
    assert predict(folder, desk, tmp_path).earlier == 30
    assert desk.photos == []


def test_a_first_run_says_at_once_that_there_is_no_model(desk, folder, tmp_path):
    desk.about = (503, {}, {"error": "train one"})
    with pytest.raises(ServiceError, match=r"has no model.*train one"):
        predict(folder, desk, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_that_goes_on_waits_for_the_server(desk, folder, tmp_path):
    desk.rules.append(lambda number, photos: (503, {}, {}) if number > 2 else None)
    with pytest.raises(ServiceError):
        predict(folder, desk, tmp_path / "out", FAST._replace(patience=0.3))
    desk.rules.clear()
    desk.about, about = (503, {}, {"error": "starting"}), desk.about
    threading.Timer(0.3, lambda: setattr(desk, "about", about)).start()
    calls: list[tuple[object, ...]] = []
    assert predict(folder, desk, tmp_path / "out", progress=lambda *call: calls.append(call)).earlier
    assert calls[0][:3] == ("connecting", 0, 1)
    assert "has no model" in str(calls[0][3])


@pytest.mark.parametrize("url", ["http://[", "nonsense", "ftp://127.0.0.1", "http://127.0.0.1:99999", ""])
def test_an_address_that_is_none(folder, tmp_path, url):
    with pytest.raises(ServiceError, match="No server answers"), bulk_predict(SourcePhotos(folder), url, tmp_path):
        pass


def test_a_key_is_sent_and_asked_for(desk, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PAWCAST_API_KEY", " secret-0123456789 ")
    predict(folder, desk, tmp_path / "out", key=api_key())
    assert {headers["authorization"] for headers in desk.headers} == {"Bearer secret-0123456789"}
    desk.headers.clear()
    monkeypatch.delenv("PAWCAST_API_KEY")
    predict(folder, desk, tmp_path / "out", key=api_key())
    assert not any("authorization" in headers for headers in desk.headers)
    desk.rules.append(lambda number, photos: (401, {}, {"error": "no key"}))
    with pytest.raises(ServiceError, match=r"no key.*PAWCAST_API_KEY"):
        predict(folder, desk, tmp_path / "out")
    desk.about = (403, {}, {"error": "no key"})
    with pytest.raises(ServiceError, match="PAWCAST_API_KEY"):
        predict(folder, desk, tmp_path / "out")


@pytest.mark.parametrize("key", ["a b", "a\nb", "schlüssel"])
def test_a_key_that_is_none_is_not_shown(desk, key):
    with pytest.raises(UsageError) as caught:
        classify(b"photo", desk.url, key)
    assert key not in str(caught.value)


def test_one_photo(desk):
    desk.rules.append(lambda number, photos: None if photos != [b"bad"] else (422, {}, {
        "error": "x", "model": "sums@1", "predictions": [{"id": "photo", "error": "truncated"}],
    }))  # fmt: skip
    assert classify(b"photo", desk.url, "k")["scores"] == scores(b"photo")
    assert desk.headers[0]["authorization"] == "Bearer k"
    with pytest.raises(ImageError, match="truncated"):
        classify(b"bad", desk.url)
    desk.request_sizes.clear()
    desk.rules.append(first(1, 429, {"retry-after": "0.1"}))
    assert classify(b"photo", desk.url)["model"] == "sums@1"


def test_one_photo_is_not_waited_for_without_end(desk, monkeypatch):
    monkeypatch.setattr(service_client, "_ONE_PHOTO_SECONDS", 0.4)
    desk.rules.append(first(99, 503))
    with pytest.raises(ServiceError, match="HTTP 503: later"):
        classify(b"photo", desk.url)


def test_a_server_that_takes_fewer_requests_at_once_answers_all_photos(desk, tmp_path):
    source = make_zip(tmp_path / "photos.zip", {f"{i}.jpg": b"%d" % i for i in range(200)})
    lock = threading.Lock()
    active = refused = most = 0

    def two_at_once(number: int, photos: list[bytes]) -> Said | None:
        nonlocal active, refused, most
        with lock:
            if active == 2:
                refused += 1
                return 429, {}, {"error": "busy"}
            active += 1
            most = max(most, active)
        time.sleep(0.01)
        with lock:
            active -= 1
        return None

    desk.rules.append(two_at_once)
    result = predict(source, desk, tmp_path / "out", BulkOptions(batch=2, connections=16))
    assert len(result.rows) == 200
    assert most == 2
    # The backoff keeps refusals few, although eight times as many connections ask as the server takes.
    assert refused < len(desk.request_sizes) / 2


@pytest.mark.parametrize("connections", [1, 3])
def test_the_number_of_connections_is_fixed(desk, folder, tmp_path, connections):
    lock = threading.Lock()
    active = most = 0

    def count(number: int, photos: list[bytes]) -> None:
        nonlocal active, most
        with lock:
            active += 1
            most = max(most, active)
        time.sleep(0.05)
        with lock:
            active -= 1

    desk.rules.append(count)
    predict(folder, desk, tmp_path / "out", FAST._replace(connections=connections))
    assert most == connections


def test_a_run_holds_no_more_photos_than_its_limits_say(desk, tmp_path):
    """Photos in memory are those that were read and aren't answered yet."""

    class Counted:
        name, source_digest = "counted", "0"
        read_ = 0

        def __len__(self) -> int:
            return 400

        def read(self, start: int, stop: int) -> Iterator[tuple[Photo, bytes | ImageError]]:
            for i in range(start, stop):
                self.read_ += 1
                yield Photo(str(i), str(i), str(i), -1), str(i).encode()

        def check(self) -> None:
            pass

    photos, most, answered = Counted(), 0, 0

    def count(stage: str, done: int, total: int, note: str) -> None:
        nonlocal most, answered
        most, answered = max(most, photos.read_ - answered), done

    with bulk_predict(photos, desk.url, tmp_path, options=BulkOptions(10, 3), progress=count) as found:
        assert [row.id for row in found.rows] == [str(i) for i in range(400)]
    assert most <= 40


def test_the_fingerprint_tells_other_photos_and_no_other_place(tmp_path):
    files = {"a/1.jpg": b"one", "a/2.jpg": b"two"}
    others = [
        files | {"a/3.jpg": b""},
        {"a/1.jpg": b"one"},
        files | {"a/2.jpg": b"three"},
        {"a/1.jpg": b"", "a/4.jpg": b""},
    ]
    for make, ending in ((make_folder, ""), (make_zip, ".zip")):
        first = SourcePhotos(make(tmp_path / f"x{ending}", files)).source_digest
        assert SourcePhotos(make(tmp_path / f"y{ending}", files)).source_digest == first
        found = {SourcePhotos(make(tmp_path / f"z{i}{ending}", other)).source_digest for i, other in enumerate(others)}
        assert len(found | {first}) == 5
    # Of the same size: only a zip knows without reading.
    same_size = make_zip(tmp_path / "s.zip", files | {"a/2.jpg": b"TWO"})
    assert SourcePhotos(same_size).source_digest != first
    table = make_folder(tmp_path / "t", files | {"labels.csv": b"file,label\na/1.jpg,cat\na/2.jpg,dog\n"})
    csv = SourcePhotos(f"{table}/labels.csv")
    (tmp_path / "t" / "a" / "2.jpg").unlink()
    assert len(csv) == 2
    with pytest.raises(PawcastError):
        csv.check()
