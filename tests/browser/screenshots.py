"""Photograph the page with drawn photos on it: `make screenshot`, or with `OUT=FOLDER` many more, to be looked at."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.services import Photos, free_port

from .conftest import CHROMIUM, served

WIDE, NARROW = {"width": 1180, "height": 860}, {"width": 360, "height": 780}


def main(folder: str, many: bool = False) -> None:
    """Write `page.jpg`, README's picture; if `many`, wide and narrow, light and dark, empty and full ones as well."""
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, sync_playwright() as driver:
        photos = Photos(Path(place))
        (Path(place) / "store").mkdir()
        bad = Path(place) / "holiday notes.jpg"
        bad.write_bytes(b"these are no pixels")
        with served(Path(place) / "store", free_port(), str(photos.labelled)) as url:
            arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
            files = [str(photos.unlabelled_folder / f"{number}.jpg") for number in range(1, 8)]
            for scheme in ("light", "dark") if many else ():
                for name, size in (("wide", WIDE), ("narrow", NARROW)):
                    page = opened(browser, url, scheme, size, mobile=name == "narrow")
                    page.screenshot(path=out / f"{name}-{scheme}-empty.png")
                    fill(page, [*files, str(bad)])
                    page.screenshot(path=out / f"{name}-{scheme}.png", full_page=True)
            page = opened(browser, url, "light", {"width": 960, "height": 740}, mobile=False)
            fill(page, files[1:])
            page.screenshot(path=out / "page.jpg", type="jpeg", quality=75)
            browser.close()


def opened(browser: Browser, url: str, scheme: str, size: dict[str, int], mobile: bool) -> Page:
    context = browser.new_context(
        viewport=size, color_scheme=scheme, has_touch=mobile, is_mobile=mobile, reduced_motion="reduce"
    )
    page = context.new_page()
    page.goto(url)
    page.get_by_text("validation photos").wait_for()
    return page


def fill(page: Page, files: list[str]) -> None:
    """Choose the photos, wait for all answers, and show the heat maps of the first and the third."""
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
