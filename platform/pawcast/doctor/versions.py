"""Python and the packages: are they the versions that Pawcast requires? Nothing is imported."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement

from pawcast.doctor.finding import Finding, ok, problem

PACKAGES = ("ray", "tensorflow", "keras", "pyarrow", "boto3", "pillow")
"""The packages that the report names, and that must be equal on all nodes."""


def check() -> Iterator[Finding]:
    """Compare the installed versions with the requirements in Pawcast's own metadata."""
    python = Requirement(f"python{metadata.metadata('pawcast')['Requires-Python']}")
    requirements = [Requirement(line) for line in metadata.requires("pawcast") or []]
    versions = installed([requirement.name for requirement in requirements])
    if (seen := versions["python"]) and python.specifier.contains(seen, prereleases=True):
        yield ok("versions", "python", seen)
    else:
        seen = f"{seen}, but Pawcast requires {python.specifier}"
        yield problem("versions", "python", seen, "make setup PYTHON=python3.12, in a new .venv")
    unmet = list(unmet_requirements(requirements, versions))
    yield from unmet
    if not unmet:
        yield ok("versions", "packages", ", ".join(f"{name} {versions[name]}" for name in PACKAGES))


def installed(packages: list[str]) -> dict[str, str | None]:
    """Return the versions of Python and of some packages; None for one that isn't installed."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def unmet_requirements(requirements: list[Requirement], versions: dict[str, str | None]) -> Iterator[Finding]:
    """Yield a problem for each unmet requirement, extras and other platforms aside."""
    for requirement in requirements:
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = versions[requirement.name]
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            seen = f"{version or 'not installed'}, but Pawcast requires {requirement.specifier or 'it'}"
            fix = "python -m pip install --require-hashes -r requirements.lock"
            yield problem("versions", requirement.name, seen, fix)
