"""Ten thousand damaged photos of every kind end no process, and both decoders agree on each."""

from __future__ import annotations

import pytest

from tests.support.decoders import decode_damaged


@pytest.mark.parametrize("seed", [1, 2])
def test_probe_and_decode_agree_on_every_damaged_photo(seed):
    count, usable = decode_damaged(per_photo=90, seed=seed)
    assert count >= 5_000
    assert 0.1 * count < usable < 0.9 * count
