"""Perceptual hashes: what survives a recompression, and a search that misses nothing."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
from pawcast_infra.local.drawn_photos import draw

from pawcast.data import perceptual_hash as hashing
from pawcast.data.perceptual_hash import MAX_DISTANCE, near_pairs, perceptual_hash
from pawcast.vision import decode
from tests.support.files import encode


def of(data: bytes) -> bytes:
    return perceptual_hash(decode.probe(data)[1])


def bits(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()


def test_size_compression_and_light_change_little_and_another_photo_much():
    photos = [np.asarray(draw(index % 2, 0, index)) for index in range(20)]
    originals = [of(encode(photo, "JPEG", quality=95)) for photo in photos]
    for change in (
        lambda photo: encode(photo, "JPEG", quality=60),
        lambda photo: encode(photo, "PNG"),
        lambda photo: encode(cv2.resize(photo, None, fx=2, fy=2), "JPEG", quality=90),
        lambda photo: encode(cv2.convertScaleAbs(photo, alpha=0.8, beta=20), "JPEG", quality=90),
    ):
        near = [bits(a, of(change(photo))) <= MAX_DISTANCE for a, photo in zip(originals, photos, strict=True)]
        assert sum(near) >= 15
    assert all(bits(a, b) > 2 * MAX_DISTANCE for a, b in itertools.combinations(originals, 2))


def test_the_search_finds_just_the_pairs_that_comparing_all_finds():
    rng = np.random.default_rng(0)
    hashes = [rng.bytes(16) for _ in range(300)]
    for i in range(120):
        # Copies of copies, with 0 to 4 bits turned in each half: some near, some not any more.
        source = np.frombuffer(hashes[int(rng.integers(len(hashes)))], np.uint8).copy()
        for half in (0, 64):
            for bit in rng.choice(64, size=i % 5, replace=False) + half:
                source[bit // 8] ^= np.uint8(1 << (bit % 8))
        hashes.append(source.tobytes())
    expected = [
        (i, j, bits(hashes[i], hashes[j]))
        for i, j in itertools.combinations(range(len(hashes)), 2)
        if bits(hashes[i], hashes[j]) <= MAX_DISTANCE
    ]
    assert len(expected) > 60
    assert list(near_pairs(hashes)) == expected


def test_flat_pictures_are_like_nothing_and_none_are_no_pairs():
    flat = perceptual_hash(np.full((50, 60), 200, np.uint8))
    assert list(near_pairs([flat, flat, flat])) == []
    assert list(near_pairs([])) == []


def test_thousands_of_copies_do_not_make_millions_of_pairs(monkeypatch):
    monkeypatch.setattr(hashing, "MAX_PAIRS", 1_000)
    pairs = list(near_pairs([np.random.default_rng(1).bytes(16)] * 3_000))
    assert 1_000 <= len(pairs) < 20_000
