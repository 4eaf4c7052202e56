from __future__ import annotations

import pytest

from pawcast.doctor import cluster
from pawcast.doctor.finding import find
from pawcast.errors import ClusterError
from pawcast.store import open_store


def test_a_node_must_have_the_same_versions_and_the_same_store(tmp_path):
    store = str(tmp_path / "here")
    open_store(store).put("k", b"written by the doctor")
    open_store(store).put("other", b"x")
    here = cluster.versions()
    assert "same store" in cluster.node(here, store, "k")
    assert "not tried" in cluster.node(here, "", "")
    with pytest.raises(ClusterError, match=r"'ray': '0\.1'"):
        cluster.node(here | {"ray": "0.1"}, store, "k")
    with pytest.raises(ClusterError, match="share one folder"):
        cluster.node(here, store, "other")
    elsewhere = find("ray", "node a", cluster.node, here, str(tmp_path / "elsewhere"), "k")
    assert (elsewhere.level, elsewhere.exit_code) == ("problem", 3)
    assert "has no k" in elsewhere.seen
    assert not (tmp_path / "elsewhere").exists()


def join(monkeypatch, code: str) -> tuple[cluster.Finding, ...]:
    monkeypatch.setattr(cluster, "_JOIN", code)
    monkeypatch.setattr(cluster, "_JOIN_SECONDS", 1)
    monkeypatch.setenv("RAY_ADDRESS", "1.2.3.4:5")
    return tuple(cluster.check(None))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import sys; sys.exit('error: broken')", "Ray failed. Received: broken."),
        ("import sys; sys.stderr.write('InvalidAuthToken'); sys.exit(1)", "refused our token"),
        ("import time; time.sleep(60)", "No answer within 1 s. Received: RAY_ADDRESS=1.2.3.4:5."),
    ],
)
def test_a_ray_that_fails_is_one_problem(monkeypatch, code, words):
    (finding,) = join(monkeypatch, code)
    assert (finding.check, finding.level, finding.exit_code) == ("session", "problem", 8)
    assert words in finding.seen


def test_the_findings_about_nodes_follow_that_about_the_session(monkeypatch):
    found = join(monkeypatch, 'print(\'["2 CPUs", [["ray", "node a", "ok", "fine", "", 0]]]\')')
    assert [(finding.check, finding.seen) for finding in found] == [("session", "2 CPUs"), ("node a", "fine")]
