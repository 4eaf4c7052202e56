"""Settings from the environment."""

from __future__ import annotations

import pytest

from pawcast.core import settings
from pawcast.errors import UsageError

KEY = "a key of sixteen or more"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch, tmp_path):
    for name in ("PAWCAST_STORE", "PAWCAST_MODEL", "PAWCAST_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_store_is_the_option_or_the_variable_or_a_default_folder(monkeypatch, tmp_path):
    assert settings.store_uri() == str(tmp_path / "var" / "store")
    monkeypatch.setenv("PAWCAST_STORE", "s3://bucket/prefix")
    assert settings.store_uri() == "s3://bucket/prefix"
    assert settings.store_uri("other") == str(tmp_path / "other")
    monkeypatch.setenv("PAWCAST_STORE", "")
    assert settings.store_uri() == str(tmp_path / "var" / "store")


def test_a_submitted_job_has_no_default_store(monkeypatch, tmp_path):
    folder = tmp_path / "runtime_resources" / "working_dir_files" / "x"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    with pytest.raises(UsageError, match="set PAWCAST_STORE"):
        settings.store_uri()
    assert settings.store_uri("s3://bucket/x") == "s3://bucket/x"


def test_the_served_model(monkeypatch):
    assert settings.served_model() == "catdog@production"
    monkeypatch.setenv("PAWCAST_MODEL", "pets@3")
    assert settings.served_model() == "pets@3"


def test_the_api_key_is_stripped_and_never_shown(monkeypatch):
    assert settings.api_key() is None
    for blank in ("", "  "):
        monkeypatch.setenv("PAWCAST_API_KEY", blank)
        assert settings.api_key() is None
    monkeypatch.setenv("PAWCAST_API_KEY", f" {KEY}\n")
    assert settings.api_key() == KEY
    assert KEY not in repr(settings.Settings())


def test_a_short_api_key_is_refused_without_showing_it(monkeypatch):
    monkeypatch.setenv("PAWCAST_API_KEY", "guessable")
    with pytest.raises(UsageError, match="at least 16") as caught:
        settings.api_key()
    assert "guessable" not in str(caught.value)
