"""Load on a service over many connections: statuses, times, scores, memory."""

from __future__ import annotations

import http.client
import json
import math
import os
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlparse

_PAGE = os.sysconf("SC_PAGE_SIZE")
_BOUNDARY = "photos-of-a-test"
# Servers close idle connections, uvicorn after five seconds.
_IDLE_SECONDS = 2.0


class Form(NamedTuple):
    """The body of a request, encoded once and sent many times."""

    photos: int
    body: bytes

    @classmethod
    def of(cls, photos: Sequence[bytes]) -> Form:
        """Encode photos as a form."""
        head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="photo"; filename="%d.jpg"\r\n\r\n'
        parts = [(head % i).encode() + photo + b"\r\n" for i, photo in enumerate(photos)]
        return cls(len(photos), b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode())


class Response(NamedTuple):
    """The response to a request.

    Attributes:
        form: Index of the form that was sent.
        started, ended: Seconds of `time.monotonic`.
        status: The HTTP status; 0 if the connection was lost.
        retry_after: Whether the response has a `Retry-After`.
        model: `name@version` of the model that answered; empty without predictions.
        scores: The probability of class 1 of each photo; None where it has an error.
        text: The body of a response without predictions, or how the connection was lost.
    """

    form: int
    started: float
    ended: float
    status: int
    retry_after: bool
    model: str
    scores: tuple[float | None, ...]
    text: str

    @property
    def seconds(self) -> float:
        """Seconds from the first byte sent to the last byte received."""
        return self.ended - self.started


class Client:
    """One connection that is kept open between requests."""

    def __init__(self, url: str, timeout: float = 60) -> None:
        address = urlparse(url)
        self._http = http.client.HTTPConnection(address.hostname or "", address.port, timeout=timeout)
        self._used = 0.0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def submit(self, form: Form, number: int = 0) -> Response:
        """Send a form. A lost connection is a response with status 0, not an exception."""
        started = time.monotonic()
        if started - self._used > _IDLE_SECONDS:
            self._http.close()
        try:
            headers = {"content-type": f"multipart/form-data; boundary={_BOUNDARY}"}
            self._http.request("POST", "/v1/classify", form.body, headers)
            http_response = self._http.getresponse()
            text = http_response.read().decode()
        except (OSError, http.client.HTTPException) as error:
            self._http.close()
            return Response(number, started, time.monotonic(), 0, False, "", (), repr(error))
        ended = self._used = time.monotonic()
        model, scores = "", ()
        if http_response.status == 200:
            content = json.loads(text)
            model, text = content["model"], ""
            scores = tuple(_score(item) for item in content["predictions"])
        retry_after = http_response.getheader("retry-after") is not None
        return Response(number, started, ended, http_response.status, retry_after, model, scores, text)


def _score(prediction: dict[str, Any]) -> float | None:
    """Return the probability of class 1, the second of the two scores."""
    return list(prediction["scores"].values())[1] if "scores" in prediction else None


@contextmanager
def flood(
    url: str, forms: Sequence[Form], connections: int, rate: float | None = None, requests: int | None = None
) -> Iterator[list[Response]]:
    """Send forms while the block runs; yield the list of responses so far.

    Args:
        url: The address of the service.
        forms: The forms, sent in turn and repeatedly.
        connections: Most requests at once.
        rate: Requests a second; None to send the next request as soon as one is answered.
        requests: Requests to send in all; the end of the block waits for the last. None for no end.
    """
    responses: list[Response] = []
    stopped, lock = threading.Event(), threading.Lock()
    sent, started = 0, time.monotonic()

    def next_number() -> int | None:
        nonlocal sent
        with lock:
            if requests is not None and sent >= requests:
                return None
            sent += 1
            return sent - 1

    def work() -> None:
        with Client(url) as client:
            while not stopped.is_set() and (number := next_number()) is not None:
                if rate and stopped.wait(max(0.0, started + number / rate - time.monotonic())):
                    return
                index = number % len(forms)
                responses.append(client.submit(forms[index], index))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(connections)]
    for thread in threads:
        thread.start()
    try:
        yield responses
        if requests is not None:
            for thread in threads:
                thread.join()
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def memory(pids: Iterable[int]) -> AbstractContextManager[list[int]]:
    """Sample the memory of some processes, in bytes all together, while the block runs."""
    return sampled(lambda: sum(map(resident, pids)))


@contextmanager
def sampled(measure: Callable[[], int], every: float = 0.2) -> Iterator[list[int]]:
    """Call `measure` every so many seconds while the block runs; yield the list of results."""
    samples: list[int] = []
    stopped = threading.Event()

    def watch() -> None:
        while not stopped.wait(every):
            samples.append(measure())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        stopped.set()
        thread.join()


def gpu_mib() -> int:
    """Return the MiB in use on this machine's first GPU, by all processes."""
    command = ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def resident(pid: int) -> int:
    """Return the resident bytes of a process; 0 once it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return 0


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the values doesn't exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def rate(responses: Sequence[Response], forms: Sequence[Form]) -> float:
    """Return the photos answered a second, from the first response to the last."""
    good = sorted((response.ended, forms[response.form].photos) for response in responses if response.status == 200)
    return sum(photos for _, photos in good[1:]) / (good[-1][0] - good[0][0])


def growth(samples: Sequence[int]) -> float:
    """Return the relative growth of the last tenth over the second tenth; 0.05 is 5% more.

    Each is the median of its tenth.
    """
    tenth = max(1, len(samples) // 10)
    return statistics.median(samples[-tenth:]) / statistics.median(samples[tenth : 2 * tenth]) - 1
