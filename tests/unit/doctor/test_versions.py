from __future__ import annotations

from packaging.requirements import Requirement

from pawcast.doctor import versions


def test_unmet_requirements_are_problems():
    have = {"ray": "2.60.0", "keras": "3.1.0", "tensorflow": None, "odd_one": "1.0rc1", "pywin32": None}
    lines = [
        "ray[serve,train]==2.60.0",
        "keras>=3.15.1",
        "tensorflow>=2.21",
        "odd_one>=1.0rc1",
        "mypy>=2; extra == 'dev'",
        "pywin32; sys_platform == 'nowhere'",
    ]
    unmet = versions.unmet_requirements([Requirement(line) for line in lines], have)
    assert [(finding.check, finding.seen) for finding in unmet] == [
        ("keras", "3.1.0, but Pawcast requires >=3.15.1"),
        ("tensorflow", "not installed, but Pawcast requires >=2.21"),
    ]


def test_this_environment_meets_all_requirements():
    findings = list(versions.check())
    assert [(finding.check, finding.level) for finding in findings] == [("python", "ok"), ("packages", "ok")]


def test_an_absent_package_has_no_version():
    assert versions.installed(["ray", "no-such-package"]) | {"python": ""} == {
        "python": "",
        "ray": versions.metadata.version("ray"),
        "no-such-package": None,
    }
