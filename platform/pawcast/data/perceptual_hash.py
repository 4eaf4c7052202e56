"""Photos that look alike: a perceptual hash, and the search for near pairs among many.

The hash is dHash, in both directions: which of two neighbouring cells of a 9x9 grey picture is brighter.
It survives scaling, recompression and small changes of light, and tells most different photos apart.
Source: N. Krawetz, "Kind of Like That", https://www.hackerfactor.com/blog/?/archives/529-Kind-of-Like-That.html
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

MAX_DISTANCE = 7
"""Bits, of 128, in which two photos may differ and still count as near."""

MAX_PAIRS = 100_000
"""Thousands of copies of one placeholder would make millions of pairs, which nobody wants to see."""

# Among eight bands of 16 bits, at most seven bits that differ leave one band equal: only photos that share a band
# are compared (multi-index hashing, Norouzi et al. 2012, https://arxiv.org/abs/1307.2982).
# Flat pictures have few or no edges, so their hashes agree whatever they show.
_MIN_EDGES = 8


def to_cells(grey: np.ndarray) -> np.ndarray:
    """Return a photo as the 81 cells that its fingerprint is made of.

    Args:
        grey: uint8 [h, w], any size.

    Returns:
        uint8 [9, 9].
    """
    return cv2.resize(grey, (9, 9), interpolation=cv2.INTER_AREA)


def perceptual_hashes(photos: Sequence[np.ndarray]) -> list[bytes]:
    """Return the perceptual hashes of many photos at once.

    Args:
        photos: uint8 [9, 9] each, from `cells`.

    Returns:
        16 bytes each: 8 for the horizontal differences, 8 for the vertical ones.
    """
    if not photos:
        return []
    all_cells = np.stack(photos)
    across = all_cells[:, :8, 1:] > all_cells[:, :8, :-1]
    down = all_cells[:, 1:, :8] > all_cells[:, :-1, :8]
    bits = np.packbits(np.concatenate([across, down], axis=1).reshape(len(photos), -1), axis=1)
    return [row.tobytes() for row in bits]


def near_pairs(hashes: Sequence[bytes]) -> Iterator[tuple[int, int, int]]:
    """Yield (i, j, bits that differ) for all near pairs, i < j, each once, sorted; for `MAX_PAIRS` or so if more.

    Time grows with the photos and with the pairs that share a band, not with the square of the photos.
    """
    if not hashes:
        return
    halves = np.frombuffer(b"".join(hashes), np.uint64).reshape(-1, 2)
    edges = np.bitwise_count(halves)
    usable = np.flatnonzero((np.minimum(edges, 64 - edges) >= _MIN_EDGES).all(axis=1))
    across, down = np.ascontiguousarray(halves.T)
    found: dict[tuple[int, int], int] = {}
    for keys in np.ascontiguousarray(halves[usable]).view(np.uint16).T:
        order = np.argsort(keys, kind="stable")
        keys, members = keys[order], usable[order]
        # Photos of one band lie side by side: compare each with its first neighbour, then its second, and so on.
        start, step = np.arange(len(keys)), 1
        while len(start := start[start < len(keys) - step]):
            start = start[keys[start] == keys[start + step]]
            a, b = members[start], members[start + step]
            differing = np.bitwise_count(across[a] ^ across[b]) + np.bitwise_count(down[a] ^ down[b])
            near = differing <= MAX_DISTANCE
            for i, j, distance in zip(a[near], b[near], differing[near], strict=True):
                found[min(int(i), int(j)), max(int(i), int(j))] = int(distance)
            if len(found) >= MAX_PAIRS:
                break
            step += 1
    yield from ((i, j, distance) for (i, j), distance in sorted(found.items()))
