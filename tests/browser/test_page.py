"""The web page in a real browser, with the service."""

from __future__ import annotations

import base64
import csv
import io

import httpx
import pytest

from tests.support.browser_served import page_server
from tests.support.services import Photos

TRANSFER = """async ([names, contents]) => {
    const transfer = new DataTransfer();
    names.forEach((name, i) => {
        const bytes = Uint8Array.from(atob(contents[i]), (letter) => letter.charCodeAt(0));
        transfer.items.add(new File([bytes], name, { type: name.endsWith(".txt") ? "text/plain" : "image/jpeg" }));
    });
    return transfer;
}"""


@pytest.fixture
def watched(open_page, url):
    """The page. Afterwards, it must have asked no other origin and logged no error or warning."""
    watched = open_page(url)
    yield watched
    assert all(request.startswith((url, "blob:", "data:")) for request in watched.requests), watched.requests
    assert watched.problems == []


def chosen(photos: Photos, *numbers: int) -> list[str]:
    return [str(photos.unlabelled_folder / f"{number}.jpg") for number in numbers]


def transfer(watched, files: dict[str, bytes]):
    contents = [base64.b64encode(data).decode() for data in files.values()]
    return watched.page.evaluate_handle(TRANSFER, [list(files), contents])


def read(photos: Photos, number: int) -> bytes:
    return (photos.unlabelled_folder / f"{number}.jpg").read_bytes()


def test_chosen_photos_show_the_predictions_of_the_api(watched, url, photos: Photos):
    files = chosen(photos, *range(1, 21))
    watched.page.set_input_files("#choose", files)
    cards = watched.cards(20)
    form = [("photo", (f"{n}.jpg", read(photos, n))) for n in range(1, 21)]
    expected = httpx.post(f"{url}/v1/classify", files=form, timeout=60).json()["predictions"]
    assert [card["name"] for card in cards] == [item["id"] for item in expected]
    assert [card["label"] for card in cards] == [item["label"] for item in expected]
    assert {card["label"] for card in cards} == {"cat", "dog"}
    for card, item in zip(cards, expected, strict=True):
        if 0.51 < item["probability"] < 0.999:
            assert float(card["percent"].removesuffix(" %")) == pytest.approx(100 * item["probability"], abs=0.11)
    cats = sum(item["label"] == "cat" for item in expected)
    assert watched.page.inner_text("#summary") == f"cat: {cats}, dog: {20 - cats}"
    assert watched.page.locator("#status").text_content() == f"Done. cat: {cats}, dog: {20 - cats}"
    assert "pets@1" in watched.page.inner_text("#model")
    assert watched.page.inner_text("#question") == "Cat or Dog?"
    sent = [request for request in watched.requests if request.endswith("/v1/classify")]
    assert len(sent) == 3  # eight photos a request


def test_a_bad_file_shows_its_error_and_the_others_their_labels(watched, photos: Photos, tmp_path):
    (tmp_path / "notes.jpg").write_bytes(b"this is not an image")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "huge.jpg").write_bytes(bytes(33 * 2**20))
    (tmp_path / "cut.jpg").write_bytes(read(photos, 1)[:900])
    bad = [str(tmp_path / name) for name in ("notes.jpg", "empty.jpg", "huge.jpg", "cut.jpg")]
    watched.page.set_input_files("#choose", [*chosen(photos, 1), *bad, *chosen(photos, 2)])
    cards = watched.cards(6)
    assert [card["state"] for card in cards] == ["done", "failed", "failed", "failed", "failed", "done"]
    assert "not an image that can be read" in cards[1]["detail"]
    assert "empty" in cards[2]["detail"]
    assert "Too large: 33 MiB" in cards[3]["detail"]
    assert "truncated" in cards[4]["detail"]
    assert watched.page.inner_text("#summary").endswith("failed: 4")


def test_only_bad_files_show_their_errors_too(open_page, url, tmp_path):
    (tmp_path / "notes.jpg").write_bytes(b"this is not an image")
    watched = open_page(url)
    watched.page.set_input_files("#choose", str(tmp_path / "notes.jpg"))
    assert "not an image that can be read" in watched.cards(1)[0]["detail"]


def test_drop_and_paste(watched, photos: Photos):
    page = watched.page
    dropped = transfer(watched, {"a.jpg": read(photos, 1), "b.jpg": read(photos, 2)})
    page.dispatch_event("footer", "dragenter", {"dataTransfer": dropped})
    assert page.evaluate("document.body.classList.contains('dragging')")
    page.dispatch_event("footer", "drop", {"dataTransfer": dropped})
    assert [card["name"] for card in watched.cards(2)] == ["a.jpg", "b.jpg"]
    assert not page.evaluate("document.body.classList.contains('dragging')")
    pasted = transfer(watched, {"image.png": read(photos, 3)})
    page.evaluate("data => dispatchEvent(new ClipboardEvent('paste', { clipboardData: data }))", pasted)
    assert [card["name"] for card in watched.cards(3)] == ["a.jpg", "b.jpg", "image.png"]


def test_the_heat_map_is_shown_over_the_photo_on_request(watched, photos: Photos):
    page = watched.page
    page.set_input_files("#choose", chosen(photos, 1))
    watched.cards(1)
    assert not any("explain" in request for request in watched.requests)
    page.click(".why")
    heat = page.locator(".heat")
    heat.wait_for(state="visible")
    page.wait_for_function("() => document.querySelector('.heat').naturalWidth > 0")
    shapes = page.evaluate("[...document.querySelectorAll('.card img')].map(i => [i.naturalWidth, i.naturalHeight])")
    assert shapes[0] == shapes[1]
    assert heat.bounding_box() == page.locator(".photo").bounding_box()
    assert page.get_attribute(".why", "aria-pressed") == "true"
    page.locator(".strength input").fill("30")
    assert page.evaluate("getComputedStyle(document.querySelector('.heat')).opacity") == "0.3"
    page.click(".why")
    assert not heat.is_visible()
    page.click(".why")
    assert heat.is_visible()
    assert sum(request.endswith("/v1/explain") for request in watched.requests) == 1


def test_by_keyboard_alone(watched, photos: Photos):
    page = watched.page
    # A permanent listener. Without it, the key press may come before Playwright has told Chromium
    # not to open a dialog.
    page.on("filechooser", lambda chooser: None)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "choose"
    outline = "getComputedStyle(document.activeElement.closest('label') || document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    for count, key in enumerate(("Enter", "Space"), start=1):
        with page.expect_file_chooser() as chooser:
            page.keyboard.press(key)
        assert chooser.value.is_multiple()
        chooser.value.set_files(chosen(photos, 1))
        watched.cards(count)
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
        if reached[-1] == "why":
            break
    assert reached[-3:] == ["save", "clear", "why"]
    page.keyboard.press("Space")
    page.locator(".heat").first.wait_for(state="visible")
    page.keyboard.press("Tab")
    before = page.evaluate("document.activeElement.value")
    page.keyboard.press("ArrowLeft")
    assert int(page.evaluate("document.activeElement.value")) == int(before) - 1
    page.focus("#clear")
    page.keyboard.press("Enter")
    assert page.locator(".card").count() == 0
    assert page.evaluate("document.activeElement.id") == "choose"


@pytest.mark.parametrize("width", [320, 360])
def test_a_narrow_screen_needs_no_horizontal_scrolling(open_page, url, photos: Photos, tmp_path, width):
    watched = open_page(url, viewport={"width": width, "height": 700}, has_touch=True, is_mobile=True)
    page = watched.page
    long = tmp_path / f"{'a_very_long_name_without_any_space' * 4}.jpg"
    long.write_bytes(b"junk")
    assert page.locator("#camera").is_visible()
    assert page.get_attribute("#camera", "capture") == "environment"
    page.set_input_files("#choose", [*chosen(photos, 1), str(long)])
    watched.cards(2)
    page.click(".why")
    page.locator(".heat").first.wait_for(state="visible")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for box in page.eval_on_selector_all("button, .button", "all => all.map(b => b.getBoundingClientRect().height)"):
        assert box == 0 or box >= 44


def test_the_csv_has_every_photo_and_no_formula(watched, photos: Photos):
    files = {"=cmd.jpg": read(photos, 1), 'a "b", c.jpg': read(photos, 2), "d.txt": b"words"}
    watched.page.dispatch_event("body", "drop", {"dataTransfer": transfer(watched, files)})
    watched.cards(3)
    with watched.page.expect_download() as download:
        watched.page.click("#save")
    with open(download.value.path(), newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(io.StringIO(file.read())))
    assert [row["file"] for row in rows] == ["'=cmd.jpg", 'a "b", c.jpg', "d.txt"]
    assert float(rows[0]["cat"]) + float(rows[0]["dog"]) == pytest.approx(1)
    assert rows[2]["label"] == ""
    assert "not an image" in rows[2]["error"]


def test_requests_to_a_busy_server_are_retried(open_page, url, photos: Photos):
    watched = open_page(url)
    refusals = [429, 503]

    def busy(route):
        if refusals:
            route.fulfill(status=refusals.pop(0), headers={"retry-after": "1"}, json={"error": "The server is busy."})
        else:
            route.continue_()

    watched.page.route("**/v1/classify", busy)
    watched.page.set_input_files("#choose", chosen(photos, 1))
    watched.page.get_by_text("Server busy, retrying").wait_for()
    assert watched.cards(1)[0]["state"] == "done"
    assert not refusals


def test_the_page_asks_for_the_api_key(open_page, url, photos: Photos):
    watched = open_page(url)
    page = watched.page

    def guard(route):
        allowed = route.request.headers.get("x-api-key") == "right"
        route.continue_() if allowed else route.fulfill(status=401, json={"error": "This service asks for an API key."})

    page.route("**/v1/*", guard)
    page.reload()
    page.set_input_files("#choose", chosen(photos, 1))
    assert "asks for its API key" in watched.cards(1)[0]["detail"]
    for secret, state in (("wrong", "failed"), ("right", "done")):
        page.fill("#secret", secret)
        page.keyboard.press("Enter")
        page.locator(f'.card[data-state="{state}"]').wait_for()
        page.wait_for_function("hidden => document.querySelector('#key').hidden === hidden", arg=state == "done")
    assert "pets@1" in page.inner_text("#model")


def test_a_missing_model_and_a_missing_server_are_shown(open_page, photos: Photos, tmp_path):
    with page_server(tmp_path) as server:
        watched = open_page(server.url)
        watched.page.get_by_text("No model is loaded yet").wait_for()
        watched.page.set_input_files("#choose", chosen(photos, 1))
        assert "has no model" in watched.cards(1)[0]["detail"]
        server.stop()
        watched.page.click("#retry-all")
        watched.page.get_by_role("alert").get_by_text("can't be reached").wait_for()
        assert "can't be reached" in watched.cards(1)[0]["detail"]
        watched.page.context.set_offline(True)
        watched.page.click(".retry")
        watched.page.get_by_role("alert").get_by_text("offline").wait_for()


def test_nothing_is_inline_and_the_content_policy_is_strict(url):
    response = httpx.get(url)
    policy = response.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "style=" not in response.text
    assert "onclick" not in response.text
    script = httpx.get(f"{url}/static/app.js")
    assert script.headers["x-content-type-options"] == "nosniff"
    assert httpx.get(f"{url}/static/app.js", headers={"if-none-match": script.headers["etag"]}).status_code == 304
    assert httpx.get(f"{url}/static/../api.py").status_code == 404


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"junk", "image/jpeg", 422),
        (b"", "image/jpeg", 422),
        (b"{}", "application/json", 415),
        (bytes(32 * 2**20 + 1), "image/jpeg", 422),
    ],
)
def test_explain_refuses_what_classify_refuses(url, content, kind, status):
    response = httpx.post(f"{url}/v1/explain", content=content, headers={"content-type": kind}, timeout=60)
    assert response.status_code == status
    assert response.json()["error"]


def test_explain_agrees_with_classify(url, photos: Photos):
    for number in range(1, 6):
        request = {"content": read(photos, number), "headers": {"content-type": "image/jpeg"}}
        prediction = httpx.post(f"{url}/v1/classify", **request).json()["predictions"][0]
        response = httpx.post(f"{url}/v1/explain", **request)
        assert response.headers["content-type"] == "image/png"
        assert response.headers["pawcast-label"] == prediction["label"]
        assert response.headers["pawcast-model"] == "pets@1"
        assert float(response.headers["pawcast-probability"]) == pytest.approx(prediction["probability"], abs=5.1e-7)
