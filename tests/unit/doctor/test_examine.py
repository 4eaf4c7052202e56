from __future__ import annotations

import subprocess
import sys

import pytest

from pawcast import doctor
from pawcast.doctor.finding import Finding
from pawcast.errors import UsageError


@pytest.fixture
def checked_from_nodes(monkeypatch) -> list[str | None]:
    """Replace the slow checks; return the stores that the nodes were told to reach."""
    stores: list[str | None] = []

    def check_cluster(store: str | None):
        stores.append(store)
        yield Finding("ray", "session", "ok", "joined")

    monkeypatch.setattr(doctor.machine, "check", lambda: iter([Finding("machine", "tensorflow", "ok", "computes")]))
    monkeypatch.setattr(doctor.cluster, "check", check_cluster)
    return stores


def test_all_areas_are_checked(checked_from_nodes, tmp_path):
    findings = doctor.examine(str(tmp_path))
    assert list(dict.fromkeys(finding.area for finding in findings)) == ["store", "machine", "ray"]
    assert checked_from_nodes == [str(tmp_path)]


def test_a_store_that_fails_here_is_not_tried_from_the_nodes(checked_from_nodes, tmp_path):
    (tmp_path / "file").touch()
    findings = doctor.examine(str(tmp_path / "file" / "store"))
    assert [(finding.check, finding.exit_code) for finding in findings if finding.level == "problem"] == [
        ("read_write", 6)
    ]
    assert checked_from_nodes == [None]


def test_an_unknown_kind_of_store_is_an_error(checked_from_nodes):
    with pytest.raises(UsageError, match="gs://nowhere"):
        doctor.examine("gs://nowhere")


def test_the_doctor_imports_no_tensorflow_and_no_ray():
    code = "import sys, pawcast.doctor; assert not {'tensorflow', 'keras', 'ray'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
