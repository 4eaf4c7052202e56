"""The deployment files in `serve/`: valid for Ray, and consistent with the service's limits."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from pawcast_serve.app import Arguments

SERVE = Path(__file__).resolve().parents[3] / "serve"


@pytest.mark.parametrize("name", ["config.yaml", "config-cluster.yaml"])
def test_a_deployment_is_valid_and_consistent_with_the_limits(name):
    (application,) = ServeDeploySchema.model_validate(yaml.safe_load((SERVE / name).read_text())).applications
    limits = Arguments.model_validate(application.args).limits
    (deployment,) = application.deployments
    assert application.import_path == "pawcast_serve.app:app"
    # The replica must refuse before Serve does: the API documents the replica's responses.
    assert deployment.max_ongoing_requests > limits.requests + limits.arriving
    assert deployment.backpressure_config.status_code == 429
    assert deployment.max_surge_percent > 0
    assert deployment.graceful_shutdown_timeout_s > limits.receive_seconds
    # The API key belongs in no file.
    assert not application.runtime_env


def test_the_deployment_of_one_machine_listens_on_loopback_only():
    config = yaml.safe_load((SERVE / "config.yaml").read_text())
    assert config["http_options"]["host"] == "127.0.0.1"
