"""Where things are, from the environment. S3's credentials stay with the AWS chain.

| variable             | meaning                                                   | default      |
| -------------------- | --------------------------------------------------------- | ------------ |
| `PAWCAST_STORE`      | the store: a folder, or `s3://bucket/prefix`              | `var/store`  |
| `PAWCAST_MODEL`      | the model that the service loads, `name@ref`              | `catdog@production` |
| `PAWCAST_API_KEY`    | the key that the service asks its callers for             | none asked   |
| `AWS_ENDPOINT_URL`   | S3 endpoint; read alike by boto3, Arrow and Ray           | AWS          |
| `RAY_ADDRESS`        | the Ray cluster to use; a private local one if unset      | unset        |
"""

from __future__ import annotations

import os
from pathlib import Path

from pawcast.errors import UsageError

DEFAULT_STORE = "var/store"
DEFAULT_MODEL = "catdog@production"
_SHORTEST_KEY = 16


def store_uri(option: str | None = None) -> str:
    """Return the store's URI: the option if given, else `PAWCAST_STORE`, else a folder in the project.

    A folder comes back absolute, since Ray's workers run elsewhere than the command that names it.

    Raises:
        UsageError: In a submitted job without an explicit store. Its working directory is a throw-away
            copy, and a default store in there would vanish with it.
    """
    uri = option or os.environ.get("PAWCAST_STORE")
    if not uri:
        if "runtime_resources/working_dir_files" in os.getcwd():
            raise UsageError(
                "A submitted job needs to be told its store",
                expected="a store that outlives the job's working directory",
                fix="set PAWCAST_STORE in the job's runtime environment, or pass --store",
            )
        uri = DEFAULT_STORE
    return uri if "://" in uri else str(Path(uri).expanduser().resolve())


def served_model() -> str:
    """Return `name@ref` of the model that the service loads."""
    return os.environ.get("PAWCAST_MODEL") or DEFAULT_MODEL


def api_key() -> str | None:
    """Return the key that the service asks for, or None if it asks for none. Don't keep or log it.

    Raises:
        UsageError: If it is so short that it could be guessed.
    """
    key = os.environ.get("PAWCAST_API_KEY", "").strip()
    if key and len(key) < _SHORTEST_KEY:
        raise UsageError(
            "PAWCAST_API_KEY is too short", received=f"{len(key)} characters",
            expected=f"at least {_SHORTEST_KEY}", fix="export PAWCAST_API_KEY=$(openssl rand -hex 24)",
        )  # fmt: skip
    return key or None
