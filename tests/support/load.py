"""Load on a service from many connections at once, and what comes of it: statuses, times, scores, memory."""

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
# Servers close connections that are idle for longer; uvicorn after five.
_IDLE_SECONDS = 2.0


class Form(NamedTuple):
    """A request's body, made once however often it is sent."""

    photos: int
    body: bytes

    @classmethod
    def of(cls, photos: Sequence[bytes]) -> Form:
        """Make a form of photos."""
        head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="photo"; filename="%d.jpg"\r\n\r\n'
        parts = [(head % i).encode() + photo + b"\r\n" for i, photo in enumerate(photos)]
        return cls(len(photos), b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode())


class Answer(NamedTuple):
    """What came of a request.

    Attributes:
        form: Which of the forms was sent.
        began, ended: Seconds of `time.monotonic`.
        status: 0 if the connection was lost.
        retry_after: Whether the answer says when to come back.
        model: Who answered; empty if nobody did.
        scores: The probability of class 1 of each photo, None where it has an error.
        text: What was answered instead, or how the connection was lost.
    """

    form: int
    began: float
    ended: float
    status: int
    retry_after: bool
    model: str
    scores: tuple[float | None, ...]
    text: str

    @property
    def seconds(self) -> float:
        """From the first byte sent to the last one received."""
        return self.ended - self.began


class Client:
    """One connection, kept open from one request to the next."""

    def __init__(self, url: str, timeout: float = 60) -> None:
        address = urlparse(url)
        self._http = http.client.HTTPConnection(address.hostname or "", address.port, timeout=timeout)
        self._used = 0.0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def submit(self, form: Form, number: int = 0) -> Answer:
        """Send a form; never raises for what the service does."""
        began = time.monotonic()
        if began - self._used > _IDLE_SECONDS:
            self._http.close()
        try:
            kind = {"content-type": f"multipart/form-data; boundary={_BOUNDARY}"}
            self._http.request("POST", "/v1/classify", form.body, kind)
            response = self._http.getresponse()
            text = response.read().decode()
        except (OSError, http.client.HTTPException) as error:
            self._http.close()
            return Answer(number, began, time.monotonic(), 0, False, "", (), repr(error))
        ended = self._used = time.monotonic()
        model, scores = "", ()
        if response.status == 200:
            found = json.loads(text)
            model, text = found["model"], ""
            scores = tuple(_score(item) for item in found["predictions"])
        retry_after = response.getheader("retry-after") is not None
        return Answer(number, began, ended, response.status, retry_after, model, scores, text)


def _score(prediction: dict[str, Any]) -> float | None:
    """The probability of class 1, the second of the two."""
    return list(prediction["scores"].values())[1] if "scores" in prediction else None


@contextmanager
def flood(
    url: str, forms: Sequence[Form], connections: int, rate: float | None = None, requests: int | None = None
) -> Iterator[list[Answer]]:
    """Send forms, one after another, as long as the block runs; yield what has come of them so far.

    Args:
        url: The service.
        forms: What to send, over and over.
        connections: Requests at once, at most.
        rate: Requests a second, answered or not; as fast as answers come if None.
        requests: How many to send, after which the block's end waits for the last; no end if None.
    """
    answers: list[Answer] = []
    over, lock = threading.Event(), threading.Lock()
    sent, began = 0, time.monotonic()

    def ticket() -> int | None:
        nonlocal sent
        with lock:
            if requests is not None and sent >= requests:
                return None
            sent += 1
            return sent - 1

    def work() -> None:
        with Client(url) as client:
            while not over.is_set() and (number := ticket()) is not None:
                if rate and over.wait(max(0.0, began + number / rate - time.monotonic())):
                    return
                index = number % len(forms)
                answers.append(client.submit(forms[index], index))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(connections)]
    for thread in threads:
        thread.start()
    try:
        yield answers
        if requests is not None:
            for thread in threads:
                thread.join()
    finally:
        over.set()
        for thread in threads:
            thread.join()


def memory(pids: Iterable[int]) -> AbstractContextManager[list[int]]:
    """Note how many bytes some processes hold together, again and again while the block runs."""
    return sampled(lambda: sum(map(resident, pids)))


@contextmanager
def sampled(measure: Callable[[], int], every: float = 0.2) -> Iterator[list[int]]:
    """Note what is measured, again and again while the block runs."""
    noted: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(every):
            noted.append(measure())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield noted
    finally:
        over.set()
        thread.join()


def gpu_mib() -> int:
    """MiB in use on this machine's first GPU, whoever uses them."""
    question = ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return int(subprocess.run(question, check=True, capture_output=True, text=True).stdout)


def resident(pid: int) -> int:
    """Bytes of a process in memory; 0 once it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return 0


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all doesn't exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def rate(answers: Sequence[Answer], forms: Sequence[Form]) -> float:
    """Photos answered a second, from the first answer to the last, so that a start is not counted."""
    good = sorted((answer.ended, forms[answer.form].photos) for answer in answers if answer.status == 200)
    return sum(photos for _, photos in good[1:]) / (good[-1][0] - good[0][0])


def growth(noted: Sequence[int]) -> float:
    """Memory at the end beside memory after the first tenth, each the median of a tenth; 0.05 is 5% more."""
    tenth = max(1, len(noted) // 10)
    return statistics.median(noted[-tenth:]) / statistics.median(noted[tenth : 2 * tenth]) - 1
