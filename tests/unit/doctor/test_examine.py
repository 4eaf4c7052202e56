from __future__ import annotations

import pytest

from pawcast import doctor
from pawcast.doctor.finding import ok, problem


@pytest.fixture
def checked_from_nodes(monkeypatch) -> list[str | None]:
    """Replace the slow checks; return the stores that the nodes were told to reach."""
    stores: list[str | None] = []

    def check_cluster(store: str | None):
        stores.append(store)
        yield ok("ray", "session", "joined")

    monkeypatch.setattr(doctor.machine, "check", lambda: iter([ok("machine", "cpu", "4 cores")]))
    monkeypatch.setattr(doctor.cluster, "check", check_cluster)
    return stores


def test_all_areas_are_checked_in_order(checked_from_nodes, tmp_path):
    areas: list[str] = []
    findings = doctor.examine(str(tmp_path), areas.append)
    assert areas == ["versions", "machine", "store", "ray"] == list(dict.fromkeys(f.area for f in findings))
    assert checked_from_nodes == [str(tmp_path)]


def test_a_store_that_fails_here_is_not_tried_from_the_nodes(checked_from_nodes):
    findings = doctor.examine("gs://nowhere")
    (finding,) = [finding for finding in findings if finding.area == "store"]
    assert (finding.level, finding.exit_code) == ("problem", 2)
    assert checked_from_nodes == [None]


def test_a_check_that_fails_hides_no_other(checked_from_nodes, monkeypatch, tmp_path):
    def broken():
        yield problem("machine", "cpu", "none", "buy one")
        raise ZeroDivisionError("by nought")

    monkeypatch.setattr(doctor.machine, "check", broken)
    findings = doctor.examine(str(tmp_path))
    seen = [finding.seen for finding in findings if finding.area == "machine"]
    assert seen == ["none", "ZeroDivisionError: by nought"]
    assert findings[-1].area == "ray"
