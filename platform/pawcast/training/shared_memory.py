"""The sum of arrays over the ranks of one node, in memory that all of them map.

Between processes of one machine, a network protocol spends most of its time on copies. Here each
rank writes its arrays once, adds up its share of all ranks' arrays, and reads the result.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import IO, Any

import numpy as np

from pawcast.errors import ClusterError

# Gradients are added in pieces of this size. 14 MB took 4.2 ms in pieces of 1 MiB, 3.4 ms in pieces
# of 2 MiB, 3.2 ms in pieces of 4 MiB.
_PIECE_BYTES = 2**21
_MEMORY = Path("/dev/shm")


class SharedMemory:
    """Memory that the ranks of one node share, and a connection from each rank to rank 0.

    The memory's file and the address have no name once all ranks have joined, so nothing is left
    behind, however a process ends.

    Args:
        rank: This rank.
        world: How many ranks there are, all on this node.
        broadcast: Returns rank 0's argument on every rank, such as
            `ray.train.collective.broadcast_from_rank_zero`.

    Raises:
        ClusterError: If there isn't enough memory.
    """

    def __init__(self, rank: int, world: int, broadcast: Callable[[Any], Any]) -> None:
        self._rank, self._turn = rank, 0
        # Two buffers in turns: a slow rank still reads one while a fast rank writes the other.
        shape = (2, world, _PIECE_BYTES)
        if rank:
            address, key, path = broadcast(None)
            self._peers = [Client(address, authkey=key)]
            self._memory = np.memmap(path, np.uint8, "r+", shape=shape)
            self._barrier()
            return
        key = secrets.token_bytes(32)
        with (
            Listener(("127.0.0.1", 0), backlog=world, authkey=key) as listener,
            tempfile.NamedTemporaryFile(prefix="pawcast-sum-", dir=_MEMORY if _MEMORY.is_dir() else None) as file,
        ):
            _allocate(file, int(np.prod(shape)))
            self._memory = np.memmap(file.name, np.uint8, "r+", shape=shape)
            broadcast((listener.address, key, file.name))
            self._peers = [listener.accept() for _ in range(world - 1)]
            self._barrier()

    def sum(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """Return the sum of each array over all ranks, added in the order of ranks.

        Every rank must call this function with arrays of the same shapes, and gets the same bits.

        Args:
            arrays: At least one, all of one dtype.

        Raises:
            ConnectionError: If another rank has ended.
        """
        flat = np.concatenate([array.ravel() for array in arrays])
        piece = _PIECE_BYTES // flat.itemsize
        for start in range(0, flat.size, piece):
            self._sum_piece(flat[start : start + piece])
        parts = np.split(flat, np.cumsum([array.size for array in arrays])[:-1])
        return [part.reshape(array.shape) for part, array in zip(parts, arrays, strict=True)]

    def _sum_piece(self, piece: np.ndarray) -> None:
        """Replace a piece by its sum over all ranks."""
        self._turn = 1 - self._turn
        slots = self._memory[self._turn, :, : piece.nbytes].view(piece.dtype)
        world, size = slots.shape
        slots[self._rank] = piece
        self._barrier()
        share = slice(size * self._rank // world, size * (self._rank + 1) // world)
        for other in slots[1:, share]:
            slots[0, share] += other
        self._barrier()
        piece[:] = slots[0]

    def _barrier(self) -> None:
        """Return once all ranks have called this method. Each then sees what the others wrote."""
        try:
            if self._rank:
                self._peers[0].send_bytes(b"here")
                self._peers[0].recv_bytes()
            else:
                for peer in self._peers:
                    peer.recv_bytes()
                for peer in self._peers:
                    peer.send_bytes(b"all")
        except (EOFError, OSError) as error:
            # Rank 0 closes its connections, so that the other ranks notice as well.
            for peer in self._peers:
                peer.close()
            raise ConnectionError("another rank of this node has ended") from error


def _allocate(file: IO[bytes], size: int) -> None:
    """Fill the file: a mapped file without room for its pages kills the process that writes."""
    try:
        file.write(bytes(size))
        file.flush()
    except OSError as error:
        raise ClusterError(
            "The training workers of a node can't share memory",
            received=f"{error.strerror}, for {size / 2**20:.0f} MiB in {Path(file.name).parent}",
            fix="free some space there, or give this container more of it (docker run --shm-size)",
        ) from None
