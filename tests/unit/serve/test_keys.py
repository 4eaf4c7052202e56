"""API keys: from the environment or from a file, and their changes."""

from __future__ import annotations

import asyncio

import pytest
from starlette.datastructures import Headers

from pawcast.errors import NotFoundError, UsageError
from pawcast_serve.keys import ApiKeys, read_api_keys

OLD, NEW = "the old key of the service", "the new key of the service"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"{OLD}\n")
    return path


def accepted(keys: ApiKeys) -> list[bool]:
    return [keys.accept(Headers({"x-api-key": key})) for key in (OLD, NEW)]


def test_without_a_file_the_key_comes_from_the_environment(monkeypatch, file):
    monkeypatch.delenv("PAWCAST_API_KEY", raising=False)
    assert read_api_keys() == []
    monkeypatch.setenv("PAWCAST_API_KEY", NEW)
    assert read_api_keys() == [NEW]
    assert read_api_keys(file) == [OLD]


def test_a_file_without_a_usable_key_is_refused(file, tmp_path):
    with pytest.raises(NotFoundError, match="can't be read"):
        read_api_keys(tmp_path / "missing")
    file.write_bytes(b"\xff" * 20)
    with pytest.raises(NotFoundError, match="can't be read"):
        read_api_keys(file)
    file.write_text(" \n\n")
    with pytest.raises(UsageError, match="holds no API key"):
        read_api_keys(file)
    file.write_text(f"{OLD}\nshort\n")
    with pytest.raises(UsageError, match="is too short") as caught:
        read_api_keys(file)
    assert "short\n" not in str(caught.value)
    assert OLD not in str(caught.value)


def test_a_key_is_replaced_while_the_service_runs(file, monkeypatch, caplog):
    monkeypatch.setattr("pawcast_serve.keys._CHECK_SECONDS", 0.01)

    async def scenario() -> None:
        keys = ApiKeys(lambda: read_api_keys(file))
        following = asyncio.create_task(keys.follow())
        assert accepted(keys) == [True, False]
        file.write_text(f"{OLD}\n{NEW}\n")
        await until(lambda: accepted(keys) == [True, True])
        file.write_text(f"{NEW}\r\n")
        await until(lambda: accepted(keys) == [False, True])
        # Without a file the service must neither stop nor open.
        file.unlink()
        await until(lambda: "stay as they are" in caplog.text)
        assert accepted(keys) == [False, True]
        file.write_text(OLD)
        await until(lambda: accepted(keys) == [True, False])
        following.cancel()

    async def until(condition) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.01)

    asyncio.run(scenario())
