"""The API answers as its OpenAPI document says: Schemathesis generates the requests.

All of its checks are on. A schema can't say which bytes are a photo, nor which shapes fit their
data, so that refusing those is expected. https://schemathesis.readthedocs.io
"""

from __future__ import annotations

import subprocess

import pytest

from pawcast.store import open_store
from pawcast_serve.classifier import Classifier
from tests.support.served import MODEL, publish, serving
from tests.support.services import BIN

KEY = "a key of sixteen and more"
CONFIG = """
[parameters]
"path.name" = "pets"

[[operations]]
include-name = "POST /v1/classify"
checks.positive_data_acceptance.expected-statuses = ["200", "422"]

[[operations]]
include-name = "POST /v2/models/{name}/infer"
checks.positive_data_acceptance.expected-statuses = ["200", "400", "422"]
"""


@pytest.mark.parametrize("key", [None, KEY], ids=["open", "key"])
def test_the_api_answers_as_its_openapi_document_says(tmp_path, key):
    store = open_store(str(tmp_path / "store"))
    publish(store)
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    with serving(Classifier(store, MODEL), key) as url:
        command = [BIN / "schemathesis", "--config-file", config, "run", f"{url}/openapi.json", "--checks=all"]
        command += ["--max-examples=25", "--no-color", *([f"--header=Authorization: Bearer {key}"] if key else [])]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout[-6_000:]
    assert "11 selected / 11 total" in done.stdout
