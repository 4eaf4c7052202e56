"""Finds the packages: each folder below is one, installed under the name beside it."""

from setuptools import find_packages, setup

ROOTS = {"pawcast": "platform/pawcast", "pawcast_jobs": "jobs", "pawcast_serve": "serve", "pawcast_infra": "infra"}

setup(
    package_dir=ROOTS,
    packages=[
        name for root, folder in ROOTS.items() for name in (root, *(f"{root}.{sub}" for sub in find_packages(folder)))
    ],
)
