"""A decoder that kills its process at marked photos: a `worker_process_setup_hook` for Ray."""

from __future__ import annotations

import os
import signal

from pawcast.vision import decode
from pawcast.vision.decode import ProbeResult

MARKS = {b"segmentation fault": signal.SIGSEGV, b"killed": signal.SIGKILL}
_probe = decode.probe


def install() -> None:
    """Let `probe` die of the signal whose mark is in a photo's bytes."""
    decode.probe = _probe_or_die


def _probe_or_die(data: bytes) -> ProbeResult:
    for mark, number in MARKS.items():
        if data.endswith(mark):
            os.kill(os.getpid(), number)
    return _probe(data)
