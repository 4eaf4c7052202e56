"""A command with an S3 server beside it: the server outlives the command, and then stops."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing

import pytest

from tests.support.services import wait_for

WRAPPER = (sys.executable, "-m", "pawcast_infra.local.seaweedfs")
PUT = """
import json, os, signal, sys, time
from pathlib import Path
from pawcast.store import open_store
store = open_store("s3://pawcast/test")
def end(*_):
    store.put("after", b"x")
    sys.exit(5)
signal.signal(signal.SIGINT, end)
signal.signal(signal.SIGTERM, end)
report = Path(sys.argv[1])
report.with_suffix(".new").write_text(json.dumps([os.environ["AWS_ENDPOINT_URL"], list(store.list(""))]))
report.with_suffix(".new").rename(report)
store.put("before", b"x")
if sys.argv[2:] == ["wait"]:
    time.sleep(60)
sys.exit(3)
"""


def stopped(endpoint: str) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", int(endpoint.rpartition(":")[2]))) != 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_server_outlives_its_command_and_then_stops(tmp_path, number):
    folder, report = tmp_path / "s3", tmp_path / "report"
    # The user's own settings must not lead the command to another server.
    environment = {**os.environ, "AWS_SESSION_TOKEN": "x", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}
    command = [*WRAPPER, "--dir", str(folder), "--", sys.executable, "-c", PUT, str(report)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 3, done.stderr
    endpoint, listed = json.loads(report.read_text())
    assert (listed, stopped(endpoint)) == ([], True)
    report.unlink()

    with subprocess.Popen([*command, "wait"], env=environment, start_new_session=True) as wrapper:
        try:
            wait_for(report.exists, 60)
            endpoint, listed = json.loads(report.read_text())
            assert listed == ["before"]
            # Ctrl-C goes to all processes of the terminal; kill goes to one.
            if number == signal.SIGINT:
                os.killpg(wrapper.pid, number)
            else:
                wrapper.send_signal(number)
            assert wrapper.wait(60) == 5
        finally:
            wrapper.kill()
    assert stopped(endpoint)
    report.unlink()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert sorted(json.loads(report.read_text())[1]) == ["after", "before"], done.stderr


def test_a_missing_command_is_an_error_in_one_line(tmp_path):
    command = [*WRAPPER, "--dir", str(tmp_path), "--", "no-such-command"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 3
    assert done.stderr.strip().splitlines()[-1].startswith("error: no-such-command can't be run")
