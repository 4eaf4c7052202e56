"""The photos of a multipart form, taken from it as it arrives.

Source: https://www.rfc-editor.org/rfc/rfc7578
"""

from __future__ import annotations

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header
from starlette.exceptions import HTTPException

from pawcast.errors import ImageError
from pawcast.vision.decode import MAX_BYTES

FormFile = tuple[str, bytes | ImageError]


class MultipartReader:
    """A form that is being received. What can't be read as one raises an `HTTPException` of 400.

    Args:
        content_type: The request's header, which says what parts the form.
        most: Most photos.
    """

    def __init__(self, content_type: str, most: int) -> None:
        self._most = most
        self._photos: list[FormFile] = []
        # The part that arrives: its headers, set before its bytes come.
        self._part: MultipartSegment
        self._data: list[bytes] = []
        _, options = parse_options_header(content_type)
        try:
            # Fields of text may come along, but not without end. Latin-1 takes every byte: a name that isn't UTF-8
            # shall not cost the whole form.
            self._parser = PushMultipartParser(
                options.get("boundary", ""), max_segment_count=2 * most, header_charset="latin-1"
            )
        except MultipartError as error:
            raise _unreadable(error) from None

    def feed(self, chunk: bytes) -> None:
        """Take in the next bytes."""
        if not chunk:  # To the parser that would be the end.
            return
        try:
            for event in self._parser.parse(chunk):
                if isinstance(event, MultipartSegment):
                    self._part, self._data = event, []
                elif event:
                    self._data.append(event)
                else:
                    self._take()
        except MultipartError as error:
            raise _unreadable(error) from None

    def end(self) -> list[FormFile]:
        """Return the form's files as (file name, bytes), whatever the names of their fields. Nothing follows."""
        try:
            self._parser.close()
        except MultipartError as error:
            raise _unreadable(error) from None
        if not self._photos:
            raise HTTPException(400, "The form holds no photo. Expected: at least one file field.")
        return self._photos

    def _take(self) -> None:
        """Take a part that is complete for a photo, unless it is text."""
        name, kind = self._part.filename, self._part.content_type
        if name is None and kind in (None, "text/plain"):
            return
        if len(self._photos) == self._most:
            raise HTTPException(400, f"The form holds more than {self._most} photos; send fewer at once.")
        too_large = self._part.size > MAX_BYTES
        data = ImageError(f"larger than {MAX_BYTES >> 20} MiB") if too_large else b"".join(self._data)
        self._photos.append((_utf8(name) if name else "photo", data))


def _utf8(name: str) -> str:
    return name if name.isascii() else name.encode("latin-1").decode(errors="replace")


def _unreadable(error: MultipartError) -> HTTPException:
    return HTTPException(400, f"The form can't be read: {error}.")
