"""What all kinds of sources have in common: they list their files, and read one."""

from __future__ import annotations

import posixpath
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from pawcast.data.sources.labels import display_name, fold_case, normalize_path, refusal
from pawcast.errors import ImageError
from pawcast.vision.decode import MAX_BYTES

MAX_MEMBERS = 1_000_000
_MAX_RATIO = 100
_MAX_UNCHECKED = 2**30  # Inflated bytes that are accepted at any ratio.
UNPACK = "unpack it and give the folder"
DOWNLOAD = "download or copy it again"
PACK_AGAIN = "pack the folder again, from within"


class Entry(NamedTuple):
    """A file in a source.

    Attributes:
        member: The path that the source itself uses.
        name: Its path below the root, with single slashes.
        kind: Why it can't be read: `link`, `special` or `hidden`. Empty: a file.
        target: The member that a link leads to.
        label, group: What a table with pictures in it says, as text.
    """

    member: str
    name: str
    kind: str = ""
    target: str = ""
    label: str = ""
    group: str = ""


class Container(ABC):
    """The files of one source, untrusted."""

    @abstractmethod
    def entries(self) -> Iterable[Entry]:
        """List the files. Raises `DataError` if they can't be listed."""

    def rows(self, label_column: str, group: str) -> Iterator[Entry] | None:
        """List the photos of a container that is a table itself, or return None for any other.

        Args:
            label_column: The column of labels. Empty: `label`, `class` and the like.
            group: The column of groups, if there is one of this name.

        Raises:
            DataError: If there is no such column of labels, or the file is damaged.
        """
        return None

    @abstractmethod
    def read(self, member: str, limit: int = MAX_BYTES) -> bytes:
        """Return a file's bytes. Raises `ImageError` if they can't be read or exceed the limit."""

    @abstractmethod
    def metadata(self, member: str) -> tuple[object, ...]:
        """Return what tells without reading it that a file has changed, such as its size."""

    def check_photos(self, photos: Sequence[Entry]) -> None:  # noqa: B027 (most kinds have no more to check)
        """Raise `DataError` if photos like these aren't to be read from this container."""

    def head(self, member: str, size: int) -> bytes:
        """Return the first bytes of a file. Raises `ImageError`."""
        return self.read(member)[:size]

    def read_all(self, members: Sequence[str]) -> Iterator[bytes | ImageError]:
        """Yield each file's bytes, or the reason why they can't be read."""
        for member in members:
            try:
                yield self.read(member)
            except ImageError as error:
                yield error


def too_large(limit: int) -> ImageError:
    """Return the reason of a file over the limit."""
    return ImageError(f"larger than {limit >> 20} MiB")


def refuse_bomb(path: str, inflated: int, compressed: int) -> None:
    """Raise `DataError` if an archive inflates to more than photos ever do."""
    if inflated > most_inflated(compressed):
        received = f"{compressed:,} bytes that inflate to {inflated:,}"
        expected = f"at most {_MAX_RATIO} times as many, since photos hardly compress"
        raise refusal(path, "looks like an archive bomb", received, expected, fix=f"{UNPACK}, if you trust it")


def most_inflated(compressed: int) -> int:
    """Return how many bytes so many compressed ones may inflate to."""
    return max(_MAX_UNCHECKED, _MAX_RATIO * compressed)


def refuse_ambiguous_names(path: str, photos: Sequence[Entry]) -> None:
    """Refuse an archive of two photos whose names differ only in letter case or accents.

    Raises:
        DataError: With both names.
    """
    seen: dict[str, str] = {}
    for photo in photos:
        if (key := fold_case(photo.name)) in seen:
            received = f"{display_name(seen[key])!r} and {display_name(photo.member)!r}"
            what = "holds two members of one name (letter case and accents don't count)"
            raise refusal(path, what, received, fix="rename or remove one, and pack again")
        seen[key] = photo.member


def follow_links(links: Mapping[str, str], files: Iterable[str]) -> dict[str, str]:
    """Return the file within an archive that each link leads to, for those that lead to one.

    Args:
        links: Targets of links, relative to the link's folder, by the link's path in the archive.
        files: Paths of the archive's files.
    """
    by_path = {normalize_path(file): file for file in files}
    targets = {
        normalize_path(link): posixpath.normpath(posixpath.join(posixpath.dirname(normalize_path(link)), target))
        for link, target in links.items()
    }
    found = {}
    for link in links:
        path, seen = normalize_path(link), set[str]()
        while path in targets and path not in seen:
            seen.add(path)
            path = targets[path]
        if path in by_path:
            found[link] = by_path[path]
    return found
