"""Where pretrained weights are read from."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pawcast.errors import NotFoundError, UsageError
from pawcast.models.pretrained.source import read_weights
from pawcast.store import open_store


def test_a_missing_file_or_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"a \.h5, \.pth or \.pt file"):
        read_weights("weights.onnx")
    with pytest.raises(NotFoundError, match="No package 'no_such_weights'"):
        read_weights("package:no_such_weights/net.pth")
    # A package in a package, a module without a folder, and names that Python refuses.
    for name in ("no_such.weights", "json.no_such", "sys", "no-such.weights", ".weights", ""):
        with pytest.raises(NotFoundError, match=f"No package '{name}'"):
            read_weights(f"package:{name}/net.pth")
    with pytest.raises(NotFoundError, match="can't be read"):
        read_weights("package:json/net.pth")
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(NotFoundError, match="Is a directory"):
        read_weights(str(tmp_path / "folder.pth"))
    with pytest.raises(NotFoundError, match="No such file"):
        read_weights(str(tmp_path / "net.pth"))
    (tmp_path / "net.pth").write_bytes(b"here")
    assert read_weights(str(tmp_path / "net.pth")) == b"here"


def test_weights_are_read_from_a_store_by_their_uri(tmp_path):
    store = open_store(str(tmp_path))
    store.put("pretrained/net.h5", b"here")
    assert read_weights(f"file://{tmp_path}/pretrained/net.h5") == b"here"


def test_reading_weights_needs_no_tensorflow():
    code = (
        "import sys, pawcast.models.pretrained.source; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
