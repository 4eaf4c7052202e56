"""The deployments in `serve/` are what Ray takes, and what the service's promises need."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema

from pawcast.core.settings import api_key
from pawcast.errors import UsageError
from pawcast_serve.app import Arguments
from pawcast_serve.limits import ServiceLimits

SERVE = Path(__file__).resolve().parents[3] / "serve"


@pytest.mark.parametrize("name", ["config.yaml", "config-cluster.yaml"])
def test_deployments(name):
    (application,) = ServeDeploySchema.model_validate(yaml.safe_load((SERVE / name).read_text())).applications
    limits = Arguments.model_validate(application.args).limits
    (deployment,) = application.deployments
    assert application.import_path == "pawcast_serve.app:app"
    # The replica refuses before Serve does, since its refusals are what the API promises.
    assert deployment.max_ongoing_requests > limits.requests
    assert deployment.backpressure_config.status_code == 429
    assert deployment.max_surge_percent > 0
    assert deployment.graceful_shutdown_timeout_s > limits.receive_seconds
    # The key belongs in no file.
    assert not application.runtime_env


def test_one_machine_is_not_open_to_others():
    config = yaml.safe_load((SERVE / "config.yaml").read_text())
    assert config["http_options"]["host"] == "127.0.0.1"


def test_unknown_or_impossible_arguments_are_refused():
    for wrong in ({"modle": "x"}, {"limits": {"photo": 1}}, {"limits": {"photos": 0}}, {"check_seconds": 0}):
        with pytest.raises(ValidationError):
            Arguments.model_validate(wrong)
    assert Arguments.model_validate({"limits": {"photos": 1}}).limits == ServiceLimits(photos=1)


def test_the_key_comes_from_the_environment_and_is_no_guess(monkeypatch):
    for value, expected in (("", None), ("  ", None), (" a key of sixteen or more\n", "a key of sixteen or more")):
        monkeypatch.setenv("PAWCAST_API_KEY", value)
        assert api_key() == expected
    monkeypatch.delenv("PAWCAST_API_KEY")
    assert api_key() is None
    monkeypatch.setenv("PAWCAST_API_KEY", "short")
    with pytest.raises(UsageError) as caught:
        api_key()
    assert "short'" not in str(caught.value)
