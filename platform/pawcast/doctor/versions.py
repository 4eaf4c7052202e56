"""Are Python and the packages those that Pawcast asks for? Read from metadata: nothing is imported."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable
from importlib import metadata
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from pawcast.doctor.finding import Finding, Notes

PACKAGES = ("ray", "tensorflow", "keras", "pyarrow", "boto3", "pillow")
_INSTALL = "python -m pip install --require-hashes -r requirements.lock"


class Unmet(NamedTuple):
    """A requirement that the environment doesn't meet; `found` is None if the package is absent."""

    name: str
    found: str | None
    wanted: str


def check() -> list[Finding]:
    """Compare what is installed with the requirements in Pawcast's own metadata."""
    notes = Notes("versions")
    try:
        wanted = metadata.metadata("pawcast")["Requires-Python"] or ""
        requirements = metadata.requires("pawcast") or []
    except metadata.PackageNotFoundError:
        notes.warning("pawcast", "not installed, so its requirements aren't known", "make setup")
        return notes.findings
    python = platform.python_version()
    if SpecifierSet(wanted).contains(python, prereleases=True):
        notes.ok("python", python)
    else:
        notes.problem("python", f"{python}, but Pawcast needs {wanted}", "make setup PYTHON=python3.12, in a new .venv")
    missing = unmet(requirements, installed)
    for item in missing:
        seen = f"{item.found or 'not installed'}, but Pawcast needs {item.wanted or 'it'}"
        notes.problem(item.name, seen, _INSTALL)
    if not missing:
        notes.ok("packages", ", ".join(f"{name} {installed(name)}" for name in PACKAGES))
    return notes.findings


def installed(name: str) -> str | None:
    """Return an installed package's version, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def unmet(requirements: Iterable[str], version_of: Callable[[str], str | None]) -> list[Unmet]:
    """Return the requirements that don't hold here. Those of extras and of other platforms are passed over."""
    found = []
    for line in requirements:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = version_of(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            found.append(Unmet(requirement.name, version, str(requirement.specifier)))
    return found
