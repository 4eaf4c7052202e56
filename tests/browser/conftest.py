"""The service on loopback, and a headless Chromium from the system's package."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.browser_served import page_server
from tests.support.services import Photos

CHROMIUM = shutil.which("chromium")


class WatchedPage:
    """A page of the browser, with its requests and its console errors and warnings."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url
        self.requests: list[str] = []
        self.problems: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on(
            "console",
            lambda message: self.problems.append(message.text) if message.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: self.problems.append(str(error)))

    def cards(self, count: int) -> list[dict[str, str]]:
        """Wait until so many cards are done or failed; return the texts and the state of each."""
        finished = '#cards .card[data-state="done"], #cards .card[data-state="failed"]'
        self.page.wait_for_function(
            "([finished, count]) => document.querySelectorAll(finished).length === count", arg=[finished, count]
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
    assert CHROMIUM, "chromium is not on the PATH; `make test-browser` installs Debian's package"
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's sandbox refuses root
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def url(photos: Photos, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service whose model was trained on drawn photos."""
    with page_server(tmp_path_factory.mktemp("store"), photos.labelled) as server:
        yield server.url


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., WatchedPage]]:
    """A function that opens the page at an address, in a browser context of its own."""
    contexts = []

    def open_at(url: str, **options: object) -> WatchedPage:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **options})
        context.set_default_timeout(20_000)
        contexts.append(context)
        watched = WatchedPage(context.new_page(), url)
        watched.page.goto(url)
        return watched

    yield open_at
    for context in contexts:
        context.close()
