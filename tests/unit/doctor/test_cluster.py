from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ray import cloudpickle

from pawcast.doctor import cluster
from pawcast.doctor.finding import Finding
from pawcast.doctor.versions import PACKAGES, installed


def test_a_token_and_its_mode_must_match(tmp_path):
    file = tmp_path / "auth_token"

    def level(**environment: str) -> str:
        return cluster.token(environment, file).level

    assert level() == "ok"
    assert level(RAY_AUTH_MODE="token") == "problem"
    assert level(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="x") == "ok"
    file.write_text("x")
    assert level() == "warning"
    assert level(RAY_AUTH_MODE="token") == "ok"
    assert level(RAY_AUTH_MODE="disabled") == "ok"


def test_little_shared_memory_is_a_warning():
    assert "--shm-size" in cluster.shared_memory(64 << 20).fix
    assert cluster.shared_memory(4e9).level == "ok"


def check_node(error: str = "", store: str | None = "s3://b/p", **versions: str | None) -> list[Finding]:
    return list(cluster.check_node("node a", store, installed(list(PACKAGES)) | versions, error))


def test_a_node_must_have_the_same_versions_and_reach_the_store():
    (healthy,) = check_node()
    assert healthy.level == "ok"
    assert "read and written" in healthy.seen
    assert "not tried" in check_node(store=None)[0].seen
    (other,) = check_node(ray=None)
    assert other.seen == f"ray None (here {installed(['ray'])['ray']})"
    assert other.exit_code == 8
    (refused,) = check_node("Refused. Fix: renew them.")
    assert (refused.seen, refused.fix) == ("Refused.", "renew them.")
    assert "ray start" in check_node("There are no credentials")[0].fix
    assert len(check_node("Refused.", ray=None)) == 2


def test_a_node_without_pawcast_answers_all_the_same(tmp_path):
    task = tmp_path / "task"
    task.write_bytes(cloudpickle.dumps(cluster.probe()))
    code = (
        "import sys, pickle, pathlib; sys.modules['pawcast'] = None;"
        "run = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes());"
        "versions, error = run(('pillow', 'no-such-package'), '/nowhere', 'k', b'x');"
        "assert 'pip install' in error and versions['pillow'] and versions['no-such-package'] is None"
    )
    assert subprocess.run([sys.executable, "-c", code, task], check=False).returncode == 0


def test_a_node_that_sees_another_folder_is_reported(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    _, error = cluster.probe()((), str(elsewhere), "doctor-x/node", b"x")
    assert "has no doctor-x/node" in error
    assert not Path(elsewhere).exists()
