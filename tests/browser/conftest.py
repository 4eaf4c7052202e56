"""A real service on loopback, and a headless Chromium that is Debian's."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.services import Photos, free_port, started_process, wait_for

CHROMIUM = shutil.which("chromium")


class Watched:
    """A page, everything that it asked for, and everything that it complained of."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on(
            "console", lambda line: self.complaints.append(line.text) if line.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def cards(self, count: int) -> list[dict[str, str]]:
        """Wait until so many cards are settled, then return name, state, label, percent and detail of each."""
        settled = '#cards .card[data-state="done"], #cards .card[data-state="failed"]'
        self.page.wait_for_function(
            "([settled, count]) => document.querySelectorAll(settled).length === count", arg=[settled, count]
        )
        return self.page.eval_on_selector_all(
            "#cards .card",
            """cards => cards.map(card => ({
                state: card.dataset.state,
                ...Object.fromEntries(["name", "label", "percent", "detail"].map(
                    part => [part, card.querySelector("." + part).textContent])),
            }))""",
        )


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "no chromium on the PATH; `make test-browser` installs Debian's package where it may"
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's sandbox refuses root
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def url(photos: Photos, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Train on drawn photos, serve, and wait until the model is warm."""
    store = tmp_path_factory.mktemp("store")
    port = free_port()
    with served(store, port, str(photos.labelled)) as address:
        yield address


class served:  # noqa: N801, used as a function
    """The service in a process of its own, until the block ends or `stop` is called."""

    def __init__(self, store: Path, port: int, labelled: str | None = None) -> None:
        arguments = ["-m", "tests.support.browser_served", str(store), str(port), *([labelled] if labelled else [])]
        self._started = started_process(*arguments, environment=dict(os.environ))
        self._address, self._ready = f"http://127.0.0.1:{port}", "readyz" if labelled else "healthz"

    def __enter__(self) -> str:
        self._process = self._started.__enter__()

        def answers() -> bool:
            if self._process.poll() is not None:
                pytest.fail(f"the service ended: {self._process.communicate()[1][-2000:]}")
            try:
                return httpx.get(f"{self._address}/{self._ready}", timeout=60).status_code == 200
            except httpx.TransportError:
                return False

        try:
            wait_for(answers, 120)
        except BaseException:
            self.stop()
            raise
        return self._address

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def __exit__(self, *raised: object) -> None:
        self.stop()
        self._started.__exit__(None, None, None)


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[..., Watched]]:
    """Opens the page at an address in a browser session of its own."""
    contexts = []

    def open_at(url: str, **options: object) -> Watched:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **options})
        context.set_default_timeout(20_000)
        contexts.append(context)
        watched = Watched(context.new_page(), url)
        watched.page.goto(url)
        return watched

    yield open_at
    for context in contexts:
        context.close()
