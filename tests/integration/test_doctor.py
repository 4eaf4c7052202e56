"""The doctor on real stores and a real Ray: healthy ones, broken ones, and nothing left behind."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pawcast.doctor import cluster, store
from pawcast.doctor.finding import Finding
from pawcast.store import open_store
from tests.support.cluster import Cluster
from tests.support.services import free_port, job, result_of

OPERATIONS = {"read_write", "conditional_writes", "arrow"}


def problems(findings: Iterable[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings if finding.level == "problem"}


def checks(result: dict[str, Any], area: str) -> dict[str, str]:
    """Return the checks of one area with their levels."""
    return {item["check"]: item["level"] for item in result["checks"] if item["area"] == area}


def test_a_folder_and_a_private_ray_are_healthy(tmp_path):
    code, output, errors = job("doctor.py", "--store", str(tmp_path / "store"), "--json")
    assert code == 0, errors
    result = result_of(output)
    assert result["ok"]
    assert set(checks(result, "store")) == OPERATIONS
    assert {"packages", "tensorflow"} == set(checks(result, "machine"))
    assert "session" in checks(result, "ray")
    assert any(check.startswith("node ") for check in checks(result, "ray"))
    assert not list((tmp_path / "store").iterdir())
    assert "conditional_writes" in errors


def test_a_bucket_is_healthy(s3):
    uri = f"{s3}/doctor"
    open_store(uri).put("mine", b"x")
    code, output, errors = job("doctor.py", "--store", uri, "--json")
    assert code == 0, errors
    assert OPERATIONS | {"reach"} == set(checks(result_of(output), "store"))
    assert list(open_store(uri).list("")) == ["mine"]


def test_wrong_and_missing_credentials_are_problems(s3, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    found = problems(store.check(f"{s3}/doctor"))
    assert "refused the credentials" in found["reach"].seen
    assert "AWS_SECRET_ACCESS_KEY" in found["reach"].fix
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert "no usable credentials" in problems(store.check(f"{s3}/doctor"))["reach"].seen


def test_a_bucket_that_is_not_there_is_not_made(s3):
    for _ in range(2):
        # The second time would find the bucket if the first one had made it.
        assert set(problems(store.check("s3://no-such-bucket/x"))) == {"reach"}


def test_an_endpoint_for_s3_alone_is_used_by_arrow_too(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", os.environ["AWS_ENDPOINT_URL"])
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    findings = list(store.check(f"{s3}/doctor"))
    assert problems(findings) == {}
    assert "arrow" in {finding.check for finding in findings}


def test_an_absent_store_and_an_absent_cluster_are_two_problems(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    address = f"127.0.0.1:{free_port()}"
    started = time.monotonic()
    code, output, errors = job(
        "doctor.py", "--store", "s3://nowhere/x", "--json", environment={**os.environ, "RAY_ADDRESS": address}
    )
    # The store's failure alone would be 6.
    assert code == 8
    assert "Traceback" not in errors
    assert errors.strip().splitlines()[-1] == "error: Problems: store reach, ray session. Fix: see the lines above."
    result = result_of(output)
    assert (result["ok"], result["problems"]) == (False, 2)
    assert {item["exit_code"] for item in result["checks"]} == {0, 6, 8}
    # Most of the time is TensorFlow's start. Ray alone would try for minutes.
    assert time.monotonic() - started < 90


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that nobody can write to. For root, who ignores permissions, it is a mount."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    folder.chmod(0o500)
    if not os.access(folder, os.W_OK):
        yield folder
        return
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", folder], capture_output=True).returncode:
        pytest.skip("root can write everywhere, and nothing can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_read_only_folder_is_a_problem(read_only):
    for uri in (read_only, read_only / "deeper"):
        found = problems(store.check(str(uri)))
        assert set(found) == {"read_write"}
        assert (found["read_write"].exit_code, found["read_write"].fix) == (6, "check its permissions.")


def test_another_server_at_rays_address_is_a_problem(monkeypatch):
    monkeypatch.setattr(cluster, "_JOIN_SECONDS", 8)
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        (finding,) = cluster.check(None)
    assert finding.seen == f"Ray: No answer within 8 s. Received: RAY_ADDRESS={address}."
    assert (finding.level, finding.exit_code) == ("problem", 8)


def test_a_cluster_with_and_without_its_token(head: Cluster, monkeypatch):
    uri = str(head.store / "doctor")
    for name, value in head.environment.items():
        monkeypatch.setenv(name, value)
    findings = list(cluster.check(uri))
    assert {finding.level for finding in findings} == {"ok"}, findings
    assert "session" in {finding.check for finding in findings}
    (node,) = [finding for finding in findings if finding.check.startswith("node ")]
    assert "the same store" in node.seen
    assert not list(Path(uri).iterdir())
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    (refused,) = problems(cluster.check(None)).values()
    assert "refused our token" in refused.seen
    assert "RAY_AUTH_MODE=token" in refused.fix
