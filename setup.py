"""The packages of each source folder. pyproject.toml has everything else."""

from setuptools import find_packages, setup

FOLDERS = {"pawcast": "platform/pawcast", "pawcast_jobs": "jobs", "pawcast_serve": "serve", "pawcast_infra": "infra"}

setup(
    package_dir=FOLDERS,
    packages=[*FOLDERS, *(f"{package}.{sub}" for package, folder in FOLDERS.items() for sub in find_packages(folder))],
)
