"""The files of the page, without a browser."""

from __future__ import annotations

import httpx

from tests.support.served import ask


def test_the_pages_files_are_revalidated_and_nothing_else_is_served(model_store):
    async def scenario(http: httpx.AsyncClient) -> list[httpx.Response]:
        script = await http.get("/static/app.js")
        unchanged = await http.get("/static/app.js", headers={"if-none-match": script.headers["etag"]})
        return [await http.get("/"), script, unchanged, await http.get("/static/..%2fapi.py")]

    page, script, unchanged, outside = ask(model_store, scenario)
    assert [response.status_code for response in (page, script, unchanged, outside)] == [200, 200, 304, 404]
    for response in (page, script):
        assert response.headers["cache-control"] == "no-cache"
        assert "unsafe-inline" not in response.headers["content-security-policy"]
