"""Decode damaged photos in a process of its own: a decoder's crash would end the tests.

A memory limit also applies to a whole process.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap

from tests.support.services import ROOT

_PRELUDE = """
    import random, resource, sys, time
    from tests.support import malformed
    from pawcast.vision import decode as decoder
    from pawcast.errors import ImageError

    def limit_memory(mib):
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + mib * 2**20,) * 2)

    def outcome(function, data):
        try:
            return function(data), None
        except ImageError as error:
            reason = error.what
            assert reason.isprintable() and len(reason) < 120, reason
            assert "MemoryError" not in reason, reason
            return None, reason

    def decode(data):
        started = time.process_time()
        pixels, reason = outcome(decoder.decode, data)
        seconds = time.process_time() - started
        probed, probe_reason = outcome(decoder.probe, data)
        assert (reason is None) == (probe_reason is None), (reason, probe_reason)
        if reason is None:
            assert str(pixels.dtype) == "uint8" and pixels.ndim == 3 and pixels.shape[2] == 3
            header, grey = probed
            assert pixels.shape[:2] == (header.height, header.width), (pixels.shape, header)
            assert str(grey.dtype) == "uint8" and grey.ndim == 2 and min(grey.shape) >= 1
        return reason, seconds
"""
_DAMAGE = """
    decoder.MAX_PIXELS = 1_000_000
    photos = malformed.samples() | malformed.case_photos()
    limit_memory(96)
    count = usable = 0
    for kind, photo in photos.items():
        rng = random.Random(f"{kind} {seed}")
        copies = malformed.damaged(photo, list(photos.values()), rng)
        for number in range(per_photo):
            print(kind, number, flush=True)  # the last line names the photo that ends the process
            reason, seconds = decode(next(copies))
            assert seconds < 1, (kind, reason, seconds)
            count, usable = count + 1, usable + (reason is None)
    print(count, usable)
"""


def run(code: str) -> str:
    """Run code after the prelude, whose `decode` also checks that `probe` agrees."""
    program = textwrap.dedent(_PRELUDE) + textwrap.dedent(code)
    command = [sys.executable, "-W", "error", "-X", "faulthandler", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, f"{done.stdout[-200:]}\n{done.stderr[-3000:]}"
    assert "Warning" not in done.stderr
    return done.stdout


def decode_damaged(per_photo: int, seed: int) -> tuple[int, int]:
    """Decode and probe damaged copies of photos of every kind, and of those that went wrong once.

    Returns:
        How many copies there were, and how many of them are usable.
    """
    output = run(f"per_photo, seed = {per_photo}, {seed}\n{textwrap.dedent(_DAMAGE)}")
    count, usable = map(int, output.splitlines()[-1].split())
    return count, usable
