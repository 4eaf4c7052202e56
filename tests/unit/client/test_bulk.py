"""Bulk prediction against a stub of the service."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pawcast.client import bulk, journal
from pawcast.client.bulk import BulkOptions, BulkResult, bulk_predict
from pawcast.client.photos import SourcePhotos
from pawcast.core.settings import api_key
from pawcast.data.sources import Photo
from pawcast.errors import ConflictError, DataError, ImageError, PawcastError, ServiceError
from tests.support.files import make_folder, make_zip
from tests.support.stub_service import Response, StubService, first, scores

FAST = BulkOptions(batch=4, connections=3, timeout=2, patience=20)


def predict(source: str, stub: StubService, out: Path, options: BulkOptions = FAST, **arguments: object) -> BulkResult:
    photos = SourcePhotos(source)
    with bulk_predict(photos, stub.url, out, options=options, **arguments) as result:  # type: ignore[arg-type]
        return result


def test_every_photo_once_in_order(stub, folder, tmp_path):
    calls = []
    result = predict(folder, stub, tmp_path / "out", progress=lambda *call, unit="photos": calls.append(call))
    assert [row.id for row in result.rows] == [str(i) for i in range(1, 31)]
    assert [row.error for row in result.rows if row.error] == ["no photo"]
    assert result.rows[2].score == scores(b"photo 3")["dog"]
    assert result[:2] == ("sums@1", ["cat", "dog"])
    assert sorted(data for photos in stub.photos for data in photos) == sorted(
        (Path(folder) / f"{i}.jpg").read_bytes() for i in range(1, 31)
    )
    assert calls[:2] == [("connecting", 1, 1, "sums@1"), ("predicting", 0, 30, "")]
    assert calls[-1] == ("predicting", 30, 30, "")
    assert not journal.exists(tmp_path / "out")


@pytest.mark.parametrize("status", [404, 429, 500, 503])
def test_a_transient_refusal_costs_time_only(stub, folder, tmp_path, status):
    expected = predict(folder, stub, tmp_path / "out").rows
    stub.request_sizes.clear()
    stub.rules.append(first(2, status))
    notes = []
    assert (
        predict(folder, stub, tmp_path / "out", progress=lambda *call, unit="": notes.append(call[3])).rows == expected
    )
    assert any(f"HTTP {status}: later" in note for note in notes)


def test_retry_after_is_honoured(stub, folder, tmp_path):
    stub.rules.append(first(1, 429, {"retry-after": "1"}))
    predict(folder, stub, tmp_path / "out", FAST._replace(connections=1))
    assert 0.9 < stub.times[1] - stub.times[0] < 4


def test_requests_stay_below_what_the_service_takes(stub, tmp_path, monkeypatch):
    files = {f"{i}.jpg": bytes([i]) * 100_000 for i in range(20)}
    source = make_zip(tmp_path / "photos.zip", files)
    monkeypatch.setattr(bulk, "MAX_REQUEST_BYTES", 250_000)
    assert len(predict(source, stub, tmp_path / "out").rows) == 20
    assert [len(photos) for photos in stub.photos] == [2] * 10
    stub.photos.clear()
    monkeypatch.setattr(bulk, "MAX_REQUEST_BYTES", 50_000)
    assert len(predict(source, stub, tmp_path / "out").rows) == 20
    assert [len(photos) for photos in stub.photos] == [1] * 20


def test_a_batch_too_large_for_the_server_is_halved(stub, tmp_path):
    files = {f"{i}.jpg": bytes([i]) * 1_000 for i in range(9)} | {"4.jpg": bytes(9_000)}
    stub.rules.append(lambda number, photos: (413, {}, {}) if sum(map(len, photos)) > 2_500 else None)
    rows = predict(make_folder(tmp_path / "photos", files), stub, tmp_path / "out").rows
    assert [row.id for row in rows if row.error] == ["4"]
    assert rows[4].error == "larger than the server takes"
    assert [row.score for row in rows[:2]] == [scores(files[f"{i}.jpg"])["dog"] for i in range(2)]


@pytest.mark.parametrize(
    "response",
    [
        (200, {}, b"hello"),
        (200, {}, []),
        (200, {}, {"model": "sums@1"}),
        (200, {}, {"model": "sums@1", "predictions": 7}),
        (200, {}, {"model": "sums@1", "predictions": [{"id": "0"}]}),
        (200, {}, {"model": "sums@1", "predictions": [{"id": str(i), "scores": {"dog": "x"}} for i in range(4)]}),
        (200, {}, {"model": "sums@1", "predictions": [{"id": str(i), "scores": {"dog": 7}} for i in range(4)]}),
        (200, {}, {"model": "sums@1", "predictions": [{"id": "9", "scores": scores(b"")} for i in range(4)]}),
        (301, {}, b""),
        (400, {}, {"error": "no\nform"}),
        (422, {}, {"error": "no"}),
    ],
)
def test_an_answer_that_makes_no_sense_is_one_line(stub, folder, tmp_path, response):
    stub.rules.append(lambda number, photos: response)
    with pytest.raises(ServiceError) as caught:
        predict(folder, stub, tmp_path / "out")
    assert stub.url in str(caught.value)
    assert "\n" not in str(caught.value)


def test_patience_ends_and_the_run_continues_later(stub, folder, tmp_path):
    stub.rules.append(
        lambda number, photos: (503, {"retry-after": "60"}, {"error": "no model"}) if number > 3 else None
    )
    out = tmp_path / "out"
    began = time.monotonic()
    with pytest.raises(ServiceError, match=r"stopped answering, with .* of 30 .*no model.*0\.8 s.*goes on") as caught:
        predict(folder, stub, out, FAST._replace(patience=0.8))
    assert 0.8 <= time.monotonic() - began < 6
    assert caught.value.exit_code == 9
    assert journal.exists(out)
    stub.rules.clear()
    stub.photos.clear()
    result = predict(folder, stub, out)
    assert result.earlier == 12
    assert sum(map(len, stub.photos)) == 18
    assert result.rows == predict(folder, stub, out, fresh=True).rows


def test_a_run_may_continue_with_another_batch_size(stub, folder, tmp_path):
    expected = predict(folder, stub, tmp_path / "undisturbed").rows
    # Of ten batches, each second one is refused for good.
    refused = {f"photo {i}".encode() for i in range(4, 31, 6)}
    stub.rules.append(lambda number, photos: (503, {}, {}) if photos[0] in refused else None)
    with pytest.raises(ServiceError):
        predict(folder, stub, tmp_path / "out", FAST._replace(batch=3, connections=6, patience=0.7))
    stub.rules.clear()
    stub.photos.clear()
    result = predict(folder, stub, tmp_path / "out", FAST._replace(batch=5))
    assert 3 <= result.earlier <= 15
    assert sum(map(len, stub.photos)) == 30 - result.earlier
    assert result.rows == expected


def test_the_model_changes_during_the_run(stub, folder, tmp_path):
    def change(number: int, photos: list[bytes]) -> None:
        stub.model = "sums@2" if number > 3 else "sums@1"

    expected = predict(folder, stub, tmp_path / "undisturbed").rows
    stub.request_sizes.clear()
    stub.rules.append(change)
    with pytest.raises(ConflictError, match=r"changed during the run.*sums@2.*sums@1.*--fresh"):
        predict(folder, stub, tmp_path / "out")
    stub.rules.clear()
    stub.about = {"model": "sums", "version": 2, "classes": ["cat", "dog"], "files": {"w": "y"}}
    with pytest.raises(ConflictError, match=r"another model.*sums@2.*sums@1.*--fresh"):
        predict(folder, stub, tmp_path / "out")
    stub.about = {"model": "sums", "version": 1, "classes": ["cat", "dog"], "files": {"w": "z"}}
    with pytest.raises(ConflictError, match=r"another model.*weights"):
        predict(folder, stub, tmp_path / "out")
    stub.about = {"model": "sums", "version": 1, "classes": ["cat", "dog"], "files": {"w": "x"}}
    stub.model = "sums@1"
    result = predict(folder, stub, tmp_path / "out")
    assert result.earlier
    assert result.rows == expected


def test_a_run_with_other_photos_is_refused(stub, folder, tmp_path):
    stub.rules.append(lambda number, photos: (503, {}, {}) if number > 2 else None)
    options = FAST._replace(patience=0.3)
    with pytest.raises(ServiceError):
        predict(folder, stub, tmp_path / "out", options)
    (Path(folder) / "31.jpg").write_bytes(b"one more")
    with pytest.raises(ConflictError, match=r"other photos.*31 photos.*30 photos"):
        predict(folder, stub, tmp_path / "out", options)


def test_photos_that_change_during_the_run(stub, folder, tmp_path):
    def grow(number: int, photos: list[bytes]) -> None:
        (Path(folder) / "3.jpg").write_bytes(b"longer than it was")

    stub.rules.append(grow)
    with pytest.raises(DataError, match="changed while it was read"):
        predict(folder, stub, tmp_path / "out")


def test_a_zip_that_changes_during_the_run(stub, tmp_path):
    source = make_zip(tmp_path / "photos.zip", {f"{i}.jpg": b"x" for i in range(30)})

    def change(number: int, photos: list[bytes]) -> None:
        make_zip(tmp_path / "other.zip", {f"{i}.jpg": b"x" * (i + 1) for i in range(30)})
        (tmp_path / "other.zip").replace(source)

    everything_at_once = FAST._replace(connections=1, batch=30)
    assert len(predict(source, stub, tmp_path / "out", everything_at_once).rows) == 30
    stub.rules.append(change)
    with pytest.raises(DataError, match="changed while it was read"):
        predict(source, stub, tmp_path / "out", everything_at_once)


def test_a_zip_that_vanishes_during_the_run_is_one_line(stub, tmp_path):
    source = make_zip(tmp_path / "photos.zip", {f"{i}.jpg": b"x" for i in range(30)})
    stub.rules.append(lambda number, photos: Path(source).unlink(missing_ok=True))
    with pytest.raises(PawcastError, match=r"photos\.zip"):
        predict(source, stub, tmp_path / "out", FAST._replace(connections=1))


def test_the_journal_stays_until_the_results_are_written(stub, folder, tmp_path):
    with pytest.raises(OSError, match="disk"), bulk_predict(SourcePhotos(folder), stub.url, tmp_path, options=FAST):
        raise OSError("disk")
    stub.photos.clear()
    assert predict(folder, stub, tmp_path).earlier == 30
    assert stub.photos == []


def test_a_first_run_says_at_once_that_nothing_answers(folder, tmp_path):
    expected = pytest.raises(ServiceError, match=r"No server answers.*127\.0\.0\.1:9.*serve deploy")
    with expected, bulk_predict(SourcePhotos(folder), "http://127.0.0.1:9", tmp_path / "out"):
        pass
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("status", [404, 503])
def test_a_first_run_waits_for_a_service_that_starts(stub, folder, tmp_path, status):
    stub.about, about = (status, {}, {"error": "starting"}), stub.about
    threading.Timer(0.3, lambda: setattr(stub, "about", about)).start()
    calls: list[tuple[object, ...]] = []
    assert len(predict(folder, stub, tmp_path / "out", progress=lambda *call, unit="": calls.append(call)).rows) == 30
    assert calls[0] == ("connecting", 0, 1, f"waiting for the server: HTTP {status}: starting")


def test_a_first_run_does_not_wait_long_for_a_model(stub, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(bulk, "START_SECONDS", 0.3)
    stub.about = (503, {}, {"error": "train one"})
    with pytest.raises(ServiceError, match=r"isn't ready.*HTTP 503: train one.*within 0\.3 s"):
        predict(folder, stub, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_server_that_hangs_is_given_up(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(bulk, "START_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        expected = pytest.raises(ServiceError, match=r"isn't ready.*(Timeout|no answer).*within 0\.5 s")
        options = FAST._replace(timeout=0.2)
        with expected, bulk_predict(SourcePhotos(folder), url, tmp_path / "out", options=options):
            pass


def test_a_run_that_continues_waits_for_the_server(stub, folder, tmp_path):
    stub.rules.append(lambda number, photos: (503, {}, {}) if number > 2 else None)
    with pytest.raises(ServiceError):
        predict(folder, stub, tmp_path / "out", FAST._replace(patience=0.3))
    stub.rules.clear()
    stub.about, about = (503, {}, {"error": "starting"}), stub.about
    threading.Timer(0.3, lambda: setattr(stub, "about", about)).start()
    calls: list[tuple[object, ...]] = []
    assert predict(folder, stub, tmp_path / "out", progress=lambda *call, unit="": calls.append(call)).earlier
    assert calls[0][:3] == ("connecting", 0, 1)
    assert "HTTP 503: starting" in str(calls[0][3])


@pytest.mark.parametrize("url", ["http://[", "nonsense", "ftp://127.0.0.1", "http://127.0.0.1:99999", ""])
def test_an_invalid_address(folder, tmp_path, url):
    with pytest.raises(ServiceError, match="No server answers"), bulk_predict(SourcePhotos(folder), url, tmp_path):
        pass


def test_a_key_is_sent_and_asked_for(stub, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PAWCAST_API_KEY", " secret-0123456789 ")
    predict(folder, stub, tmp_path / "out", key=api_key())
    assert {headers["authorization"] for headers in stub.headers} == {"Bearer secret-0123456789"}
    stub.headers.clear()
    monkeypatch.delenv("PAWCAST_API_KEY")
    predict(folder, stub, tmp_path / "out", key=api_key())
    assert not any("authorization" in headers for headers in stub.headers)
    stub.rules.append(lambda number, photos: (401, {}, {"error": "no key"}))
    with pytest.raises(ServiceError, match=r"no key.*PAWCAST_API_KEY"):
        predict(folder, stub, tmp_path / "out")
    stub.about = (403, {}, {"error": "no key"})
    with pytest.raises(ServiceError, match="PAWCAST_API_KEY"):
        predict(folder, stub, tmp_path / "out")


def test_a_server_that_takes_fewer_requests_at_once_answers_all_photos(stub, tmp_path):
    source = make_zip(tmp_path / "photos.zip", {f"{i}.jpg": b"%d" % i for i in range(200)})
    lock = threading.Lock()
    active = refused = most = 0

    def two_at_once(number: int, photos: list[bytes]) -> Response | None:
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

    stub.rules.append(two_at_once)
    result = predict(source, stub, tmp_path / "out", BulkOptions(batch=2, connections=16))
    assert len(result.rows) == 200
    assert most == 2
    # The backoff keeps refusals few, although eight times as many connections ask as the server
    # takes.
    assert refused < len(stub.request_sizes) / 2


@pytest.mark.parametrize("connections", [1, 3])
def test_the_number_of_connections_is_fixed(stub, folder, tmp_path, connections):
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

    stub.rules.append(count)
    predict(folder, stub, tmp_path / "out", FAST._replace(connections=connections))
    assert most == connections


def test_a_run_holds_no_more_photos_than_its_options_say(stub, tmp_path):
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

    def count(stage: str, done: int, total: int, note: str, unit: str = "photos") -> None:
        nonlocal most, answered
        if stage == "predicting":
            most, answered = max(most, photos.read_ - answered), done

    with bulk_predict(photos, stub.url, tmp_path, options=BulkOptions(10, 3), progress=count) as result:
        assert [row.id for row in result.rows] == [str(i) for i in range(400)]
    assert most <= 40
