"""What only S3 can have: a server that is far away, and a clock of its own."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

from pawcast.doctor.finding import Level, Notes, first_line
from pawcast.store.s3 import S3Store, endpoint_url

_WARN_SECONDS, _REFUSED_SECONDS = 60, 15 * 60
_SET_CLOCK = "set this machine's clock (timedatectl set-ntp true), or the server's"


def reachable(store: S3Store, notes: Notes) -> bool:
    """Note whether a server answers, and what its clock says. Asks without credentials: any answer will do."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    # One attempt: the store itself tries for long enough to outlast a hiccup, which is too long here.
    config = Config(
        signature_version=UNSIGNED,
        connect_timeout=5,
        read_timeout=10,
        retries={"total_max_attempts": 1},
        s3={"addressing_style": "path" if endpoint_url() else "auto"},
    )
    started = time.time()
    try:
        client = boto3.Session().client("s3", config=config)
        endpoint = client.meta.endpoint_url
        answer = client.head_bucket(Bucket=store.bucket)
    except ClientError as error:
        answer = error.response
    except (BotoCoreError, ValueError) as error:
        notes.problem(
            "reach", f"{store.uri} could not be reached: {first_line(error)}",
            "check AWS_ENDPOINT_URL, AWS_REGION, AWS_PROFILE and the network",
        )  # fmt: skip
        return False
    ended = time.time()
    notes.ok("reach", f"{endpoint} answers, {(ended - started) * 1_000:,.0f} ms")
    level, seen = skew(answer["ResponseMetadata"]["HTTPHeaders"].get("date"), (started + ended) / 2)
    if level == "problem":
        notes.problem("clock", seen, _SET_CLOCK)
    elif level == "warning":
        notes.warning("clock", seen, _SET_CLOCK)
    else:
        notes.ok("clock", seen)
    return True


def skew(date: str | None, now: float) -> tuple[Level, str]:
    """Judge a server's `Date` header against our clock, in seconds since 1970."""
    try:
        server = parsedate_to_datetime(date or "").timestamp()
    except (ValueError, TypeError):
        return "warning", "the server doesn't tell its time"
    seconds = server - now
    # The header has whole seconds.
    if abs(seconds) <= 2:
        return "ok", "the server's time is ours"
    seen = f"the server's clock is {abs(seconds):,.0f} s {'ahead' if seconds > 0 else 'behind'}"
    if abs(seconds) > _REFUSED_SECONDS:
        return "problem", f"{seen}; S3 refuses requests that are more than 15 minutes off"
    return ("warning" if abs(seconds) > _WARN_SECONDS else "ok"), seen
