"""Settings from the environment.

| variable           | meaning                                        | default             |
| ------------------ | ---------------------------------------------- | ------------------- |
| `PAWCAST_STORE`    | the store: a folder or `s3://bucket/prefix`    | `var/store`         |
| `PAWCAST_MODEL`    | the model that the service loads, `NAME@REF`   | `catdog@production` |
| `PAWCAST_API_KEY`  | the key that the service asks its clients for  | none asked          |
| `AWS_ENDPOINT_URL` | the S3 endpoint; boto3, Arrow and Ray read it  | AWS                 |
| `RAY_ADDRESS`      | the Ray cluster to use                         | a private local Ray |

boto3 takes S3's credentials and region from the usual AWS settings.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from pawcast.errors import UsageError

DEFAULT_STORE = "var/store"
DEFAULT_MODEL = "catdog@production"
_MIN_KEY_LENGTH = 16


class Settings(BaseSettings):
    """What the variables `PAWCAST_…` say. An empty variable counts as unset."""

    model_config = SettingsConfigDict(env_prefix="PAWCAST_", env_ignore_empty=True, str_strip_whitespace=True)

    store: str = ""
    model: str = DEFAULT_MODEL
    api_key: SecretStr = SecretStr("")


def store_uri(option: str | None = None) -> str:
    """Return the URI of the store: the option if given, else `PAWCAST_STORE`, else `var/store`.

    A folder comes back as an absolute path, since Ray's workers have other working directories.

    Raises:
        UsageError: In a submitted Ray job without a store. The job's working directory is
            temporary, and a default store in it would vanish with it.
    """
    uri = option or Settings().store
    if not uri:
        if "runtime_resources/working_dir_files" in os.getcwd():
            fix = "set PAWCAST_STORE in the job's runtime environment, or pass --store"
            raise UsageError("A submitted job has no default store", fix=fix)
        uri = DEFAULT_STORE
    return uri if "://" in uri else str(Path(uri).expanduser().resolve())


def served_model() -> str:
    """Return `NAME@REF` of the model that the service loads."""
    return Settings().model


def api_key() -> str | None:
    """Return the key that the service asks for, or None if it asks for none. Don't keep or log it.

    Raises:
        UsageError: If the key is short enough to be guessed.
    """
    key = Settings().api_key.get_secret_value().strip()
    return check_key(key, "PAWCAST_API_KEY") if key else None


def check_key(key: str, name: str) -> str:
    """Return an API key. Raises `UsageError`, with the key's `name`, if it is too short."""
    if len(key) < _MIN_KEY_LENGTH:
        received, expected = f"{len(key)} characters", f"at least {_MIN_KEY_LENGTH}"
        raise UsageError(f"{name} is too short", received=received, expected=expected, fix="openssl rand -hex 24")
    return key
