"""Perceptual hashes: what survives a recompression, and a search that misses nothing."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
from pawcast_infra.local.drawn_photos import draw

from pawcast.data import perceptual_hash as hashing
from pawcast.data.perceptual_hash import MAX_DISTANCE, near_pairs, perceptual_hashes
from pawcast.vision import decode
from tests.support.files import encode


def of(data: bytes) -> bytes:
    return perceptual_hashes(decode.probe(data)[1])[0]


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
        (i, j, bits(hashes[i], hashes[j]), False)
        for i, j in itertools.combinations(range(len(hashes)), 2)
        if bits(hashes[i], hashes[j]) <= MAX_DISTANCE
    ]
    assert len(expected) > 60
    assert list(near_pairs([(one, rng.bytes(16)) for one in hashes])) == expected


def test_flat_pictures_are_like_nothing_and_none_are_no_pairs():
    flat = perceptual_hashes(np.full((50, 60), 200, np.uint8))
    assert list(near_pairs([flat, flat, flat])) == []
    assert list(near_pairs([])) == []


def test_thousands_of_copies_do_not_make_millions_of_pairs(monkeypatch):
    monkeypatch.setattr(hashing, "MAX_PAIRS", 1_000)
    pairs = list(near_pairs([(bytes(range(16)), bytes(range(99, 115)))] * 3_000))
    assert 1_000 <= len(pairs) < 20_000


def test_a_mirrored_photo_is_near_and_said_to_be_mirrored():
    # Without the flat areas of drawn photos, whose bits are noise.
    rng = np.random.default_rng(0)
    coarse = [rng.integers(0, 256, (6, 8, 3), dtype=np.uint8) for _ in range(20)]
    photos = [cv2.resize(small, (160, 120), interpolation=cv2.INTER_CUBIC) for small in coarse]
    straight = [perceptual_hashes(decode.probe(encode(photo, "JPEG", quality=95))[1]) for photo in photos]
    flipped = [perceptual_hashes(decode.probe(encode(photo[:, ::-1], "JPEG", quality=90))[1]) for photo in photos]
    pairs = list(near_pairs(straight + flipped))
    found = {(i, j) for i, j, _, mirrored in pairs if mirrored}
    assert found == {(i, i + 20) for i in range(20)}


def test_the_search_finds_just_the_mirrored_pairs_that_comparing_all_finds():
    rng = np.random.default_rng(2)
    hashes = [(rng.bytes(16), rng.bytes(16)) for _ in range(100)]
    for i in range(0, 100, 2):
        # The mirror image of another photo, in which up to nine bits differ.
        turned = sum(1 << int(bit) for bit in rng.choice(128, size=i % 10, replace=False))
        straight, mirrored = hashes[i]
        hashes.append(((int.from_bytes(mirrored) ^ turned).to_bytes(16), straight))
    expected = [
        (i, j, min(bits(hashes[i][0], hashes[j][1]), bits(hashes[i][1], hashes[j][0])), True)
        for i, j in itertools.combinations(range(len(hashes)), 2)
        if min(bits(hashes[i][0], hashes[j][1]), bits(hashes[i][1], hashes[j][0])) <= MAX_DISTANCE
    ]
    assert len(expected) == 50
    assert list(near_pairs(hashes)) == expected
