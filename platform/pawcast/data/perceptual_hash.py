"""Find photos that look alike: a perceptual hash, and a search for near pairs among many hashes.

The hash is dHash in both directions: for any two neighboring cells of a 9x9 gray picture, one bit
says which is brighter. It survives scaling, recompression and small changes of light, and differs
between most photos that show different things.
Source: N. Krawetz, "Kind of Like That", https://www.hackerfactor.com/blog/?/archives/529-Kind-of-Like-That.html
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import cv2
import numpy as np

MAX_DISTANCE = 7
"""Two photos are near if their hashes differ in at most so many of the 128 bits."""

MAX_PAIRS = 100_000
"""Approximate limit of pairs: thousands of copies of one placeholder would make millions."""

# A half of a hash with fewer set or unset bits comes from a flat picture, whose hash says nothing
# about what it shows.
_MIN_EDGES = 8


def perceptual_hashes(gray: np.ndarray) -> tuple[bytes, bytes]:
    """Return the hashes of uint8 [h, w] and of its mirror image.

    16 bytes each: 64 horizontal differences, then 64 vertical ones.
    """
    cells = cv2.resize(gray, (9, 9), interpolation=cv2.INTER_AREA)
    return _hash_of(cells), _hash_of(cells[:, ::-1])


def _hash_of(cells: np.ndarray) -> bytes:
    across, down = cells[:8, 1:] > cells[:8, :-1], cells[1:, :8] > cells[:-1, :8]
    return np.packbits(np.concatenate([across, down])).tobytes()


def near_pairs(hashes: Sequence[tuple[bytes, bytes]]) -> Iterator[tuple[int, int, int, bool]]:
    """Yield (i, j, number of differing bits, mirrored) for near pairs, i < j, each once, sorted.

    Args:
        hashes: Of each photo and of its mirror image, as `perceptual_hashes` returns them.

    Yields all pairs, or about `MAX_PAIRS` if there are more. Hashes are split into eight bands of
    16 bits. If at most seven bits differ, one band is equal, so only photos that share a band are
    compared: time grows with the number of such pairs, not with the square of the photos.
    Source: multi-index hashing, Norouzi et al. 2012, https://arxiv.org/abs/1307.2982
    """
    # 64 bits for horizontal differences, 64 for vertical ones.
    both_ways = chain((straight for straight, _ in hashes), (mirrored for _, mirrored in hashes))
    halves = np.frombuffer(b"".join(both_ways), np.uint64).reshape(-1, 2)
    edges = np.bitwise_count(halves)
    usable = np.flatnonzero((np.minimum(edges, 64 - edges) >= _MIN_EDGES).all(axis=1))
    across, down = np.ascontiguousarray(halves.T)
    photos, distances = len(hashes), dict[tuple[int, int], tuple[bool, int]]()
    for keys in np.ascontiguousarray(halves[usable]).view(np.uint16).T:
        order = np.argsort(keys, kind="stable")
        keys, members = keys[order], usable[order]
        # Photos with an equal band are adjacent: compare each with its next neighbor, then the one
        # after it, and so on.
        start, step = np.arange(len(keys)), 1
        while len(start := start[start < len(keys) - step]):
            start = start[keys[start] == keys[start + step]]
            a, b = members[start], members[start + step]
            # Not two mirror images, which are as near as the photos, nor a photo with itself.
            useful = (np.minimum(a, b) < photos) & (a % photos != b % photos)
            a, b = a[useful], b[useful]
            differing = np.bitwise_count(across[a] ^ across[b]) + np.bitwise_count(down[a] ^ down[b])
            near = differing <= MAX_DISTANCE
            for i, j, distance in zip(a[near].tolist(), b[near].tolist(), differing[near].tolist(), strict=True):
                pair = min(i % photos, j % photos), max(i % photos, j % photos)
                found = (i >= photos) != (j >= photos), distance
                distances[pair] = min(found, distances.get(pair, found))
            if len(distances) >= MAX_PAIRS:
                break
            step += 1
    yield from ((i, j, distance, mirrored) for (i, j), (mirrored, distance) in sorted(distances.items()))
