"""The deployment's arguments, and the API key from the environment."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from ray.serve import Application

from pawcast.core.settings import api_key
from pawcast.errors import UsageError
from pawcast_serve.app import Arguments, app
from pawcast_serve.limits import ServiceLimits


def test_unknown_or_impossible_arguments_are_refused():
    bad_origins = [{"allow_origins": [origin]} for origin in ("", "pets.example", "https://pets.example/")]
    for wrong in (
        {"modle": "x"},
        {"limits": {"photo": 1}},
        {"limits": {"photos": 0}},
        {"check_seconds": 0},
        *bad_origins,
    ):
        with pytest.raises(ValidationError):
            Arguments.model_validate(wrong)
    assert Arguments.model_validate({"limits": {"photos": 1}}).limits == ServiceLimits(photos=1)
    assert Arguments.model_validate({"allow_origins": ["https://pets.example:8443", "*"]})


def test_an_application_is_built_without_a_model_or_a_key(tmp_path, monkeypatch):
    monkeypatch.delenv("PAWCAST_API_KEY", raising=False)
    assert isinstance(app(Arguments(store=str(tmp_path))), Application)


def test_a_key_that_is_too_short_is_refused_when_the_service_is_deployed(tmp_path, monkeypatch):
    file = tmp_path / "keys"
    file.write_text("short")
    with pytest.raises(UsageError, match="too short"):
        app(Arguments(store=str(tmp_path), api_key_file=file))
    monkeypatch.setenv("PAWCAST_API_KEY", "short")
    with pytest.raises(UsageError, match="too short"):
        app(Arguments(store=str(tmp_path)))


def test_the_key_comes_from_the_environment_and_is_not_too_short(monkeypatch):
    for value, expected in (("", None), ("  ", None), (" a key of sixteen or more\n", "a key of sixteen or more")):
        monkeypatch.setenv("PAWCAST_API_KEY", value)
        assert api_key() == expected
    monkeypatch.delenv("PAWCAST_API_KEY")
    assert api_key() is None
    monkeypatch.setenv("PAWCAST_API_KEY", "short")
    with pytest.raises(UsageError) as caught:
        api_key()
    assert "short'" not in str(caught.value)
