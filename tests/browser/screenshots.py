"""Take screenshots of the page with drawn photos.

`make screenshot` renews README's picture; `make screenshot OUT=FOLDER` takes more, to look at.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.browser_served import page_server
from tests.support.services import Photos

from .conftest import CHROMIUM

WIDE, NARROW = {"width": 1180, "height": 860}, {"width": 360, "height": 780}


def main(folder: str, many: bool = False) -> None:
    """Write `page.jpg`, README's picture.

    With `many`, also write a wide and a narrow page, light and dark, empty and with photos.
    """
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as driver:
        photos = Photos(Path(temporary))
        store = Path(temporary) / "store"
        store.mkdir()
        bad = Path(temporary) / "holiday notes.jpg"
        bad.write_bytes(b"this is not an image")
        with page_server(store, photos.labelled) as server:
            arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
            files = [str(photos.unlabelled_folder / f"{number}.jpg") for number in range(1, 8)]
            for scheme in ("light", "dark") if many else ():
                for name, size in (("wide", WIDE), ("narrow", NARROW)):
                    page = open_page(browser, server.url, scheme, size, mobile=name == "narrow")
                    page.screenshot(path=out / f"{name}-{scheme}-empty.png")
                    classify(page, [*files, str(bad)])
                    page.screenshot(path=out / f"{name}-{scheme}.png", full_page=True)
            page = open_page(browser, server.url, "light", {"width": 960, "height": 740}, mobile=False)
            classify(page, files[1:])
            page.screenshot(path=out / "page.jpg", type="jpeg", quality=75)
            browser.close()


def open_page(browser: Browser, url: str, scheme: str, size: dict[str, int], mobile: bool) -> Page:
    context = browser.new_context(
        viewport=size, color_scheme=scheme, has_touch=mobile, is_mobile=mobile, reduced_motion="reduce"
    )
    page = context.new_page()
    page.goto(url)
    page.get_by_text("validation photos").wait_for()
    return page


def classify(page: Page, files: list[str]) -> None:
    """Choose photos, wait for all results, and show the heat maps of the first and the third."""
    page.set_input_files("#choose", files)
    page.wait_for_function(
        "count => document.querySelectorAll('.percent:not(:empty)').length >= count", arg=len(files) - 1
    )
    for number in (0, 2):
        page.locator(".why").nth(number).click()
        page.locator(".heat").nth(number).wait_for(state="visible")
    page.wait_for_timeout(500)
    page.mouse.move(0, 0)


if __name__ == "__main__":
    main(sys.argv[1], many=len(sys.argv) > 2)
