"""Can Ray be joined or started, and is every node fit for our tasks?

The joining is done by a process of its own (`doctor.join`): Ray can wait for minutes, write to the terminal from
native code or end its process, and reads its settings when it is imported.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pawcast.doctor.finding import Finding, Notes
from pawcast.errors import ClusterError

_JOIN_SECONDS = 90
_SHM = Path("/dev/shm")
_START = "start it (ray start --head), correct RAY_ADDRESS, or unset it to use a private local Ray"


def check(store: str | None) -> list[Finding]:
    """Join the cluster of RAY_ADDRESS, or start a private Ray; look at its nodes.

    Args:
        store: The store that each node must reach, or None not to try.
    """
    notes = Notes("ray", ClusterError)
    address = os.environ.get("RAY_ADDRESS")
    if address:
        token(os.environ, Path.home() / ".ray" / "auth_token", notes)
    elif _SHM.is_dir():
        usage = shutil.disk_usage(_SHM)
        shared_memory(usage.total, usage.free, notes)
    with notes.guarded("join" if address else "start"):
        notes.findings += joined(store, address)
    return notes.findings


def token(environment: Mapping[str, str], file: Path, notes: Notes) -> None:
    """Note a token that is there but not used, or used but not there: both end as refusals that don't say why."""
    mode = environment.get("RAY_AUTH_MODE")
    given = bool(environment.get("RAY_AUTH_TOKEN") or environment.get("RAY_AUTH_TOKEN_PATH")) or file.exists()
    if mode is None and given:
        notes.warning(
            "token",
            f"RAY_AUTH_MODE is unset, but there is a token in {file}: a head started here may ask for it, and then "
            "`ray job submit` and `serve deploy` fail with 401",
            "export RAY_AUTH_MODE=token, the same on every machine and in every terminal",
        )
    elif mode == "token" and not given:
        notes.problem(
            "token", f"RAY_AUTH_MODE=token, but there is no token in {file}",
            f"copy the head's {file} here, or `ray get-auth-token --generate` before the head is started",
        )  # fmt: skip
    else:
        notes.ok("token", f"RAY_AUTH_MODE={mode}" if mode else "no token, RAY_AUTH_MODE unset: the cluster is open")


def shared_memory(total: int, free: int, notes: Notes) -> None:
    """Note whether /dev/shm, in bytes, has room for decoded photos: Ray's object store lies in there."""
    seen = f"{free / 1e9:,.1f} of {total / 1e9:,.1f} GB free in /dev/shm, where decoded photos lie"
    if free < 2e9:
        notes.warning(
            "shared memory", f"{seen}; 23,000 photos at 150 px take 1.6 GB, and what doesn't fit goes to disk",
            "docker run --shm-size=4g, or delete what an earlier Ray left in /dev/shm",
        )  # fmt: skip
    else:
        notes.ok("shared memory", seen)


def joined(store: str | None, address: str | None) -> list[Finding]:
    """Let a process of its own join or start Ray; return what it found.

    Raises:
        ClusterError: If it ends without an answer, or takes too long.
    """
    command = [sys.executable, "-m", "pawcast.doctor.join", json.dumps(store)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            output, errors = process.communicate(timeout=_JOIN_SECONDS)
        except subprocess.TimeoutExpired:
            _end(process)
            raise ClusterError(
                "Ray gave no answer",
                received=f"RAY_ADDRESS={address}" if address else None,
                expected=f"one within {_JOIN_SECONDS} s",
                fix=_START if address else "see the newest logs in /tmp/ray/session_latest/logs",
            ) from None
        except BaseException:
            _end(process)
            raise
    if "InvalidAuthToken" in errors:
        # Only Ray's native log says so; its Python error doesn't.
        raise ClusterError(
            "The Ray cluster refused our token",
            received=f"RAY_ADDRESS={address}, RAY_AUTH_MODE={os.environ.get('RAY_AUTH_MODE', 'unset')}",
            expected="RAY_AUTH_MODE=token and the head's own token",
            fix="export RAY_AUTH_MODE=token, with a copy of the head's ~/.ray/auth_token in the same place here",
        )
    lines = output.splitlines()
    if process.returncode or not lines:
        said = errors.strip().splitlines() or [f"exit code {process.returncode}"]
        raise ClusterError("Ray failed", received=said[-1][:300], fix="see /tmp/ray/session_latest/logs")
    answer: list[dict[str, Any]] = json.loads(lines[-1])
    return [Finding(**item) for item in answer]


def _end(process: subprocess.Popen[str]) -> None:
    """End it in order, so that a private Ray ends with it; by force if it hangs in native code."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
