"""Request bodies: multipart forms in any chunks and of any client, and compressed bodies."""

from __future__ import annotations

import asyncio
import gzip
import random
import zlib
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from pawcast.errors import ImageError
from pawcast_serve.io.body import BodyReader, FormFile, MultipartForm
from pawcast_serve.limits import ServiceLimits

TYPE = "multipart/form-data; boundary=cut"
FILE = b'Content-Disposition: form-data; name="photo"; filename="a.jpg"\r\n\r\n'


def encode_form(*parts: bytes, end: bytes = b"--cut--\r\n") -> bytes:
    return b"".join(b"--cut\r\n" + part + b"\r\n" for part in parts) + end


def read(body: bytes, content_type: str = TYPE, max_files: int = 8) -> list[FormFile]:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def run() -> list[FormFile]:
        request = Request({"type": "http", "headers": [(b"content-type", content_type.encode())]}, receive)
        with BodyReader(ServiceLimits(photos=max_files)).receive(request) as request_body:
            return await request_body.files()

    return asyncio.run(run())


def refusal(body: bytes, content_type: str = TYPE, max_files: int = 8) -> str:
    with pytest.raises(HTTPException) as refused:
        read(body, content_type, max_files)
    assert refused.value.status_code == 400
    return refused.value.detail


@pytest.mark.parametrize("max_chunk", [1, 7, 1_000])
def test_the_chunks_in_which_a_form_arrives_make_no_difference(max_chunk):
    chance = random.Random(max_chunk)
    # Line breaks and dashes, as in the boundaries between parts.
    photos = [bytes(chance.choices(b"\r\n-x", k=chance.randrange(500))) for _ in range(20)]
    parts = [FILE.replace(b"a.jpg", b"%d" % i) + photo for i, photo in enumerate(photos)]
    body, form, offset = encode_form(*parts), MultipartForm(TYPE, len(photos)), 0
    while offset < len(body):
        size = chance.randint(0, max_chunk)
        form.feed(body[offset : offset + size])
        offset += size
    assert form.close() == [(str(i), photo) for i, photo in enumerate(photos)]


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('form-data; name="photo"; filename="größe 3.jpg"'.encode(), "größe 3.jpg"),
        ('form-data; name="photo"; filename="größe.jpg"'.encode("latin-1"), "gr��e.jpg"),
        (b'form-data; name="photo"; filename="say %22cheese%22.jpg"', 'say "cheese".jpg'),
        (b"form-data; name=photo; filename=a.jpg", "a.jpg"),
        (b'form-data; filename="a.jpg"', "a.jpg"),
        (b'form-data; name="photo"; filename=""', "photo"),
        (b"form-data; name=photo; filename*=UTF-8''gr%C3%B6%C3%9Fe.jpg", "größe.jpg"),
        (b"form-data; name=photo; filename=\"a.jpg\"; filename*=utf-8'de'gr%C3%B6%C3%9Fe.jpg", "größe.jpg"),
        (b"form-data; name=photo; filename*=iso-8859-1''gr%F6%DFe.jpg; filename=a.jpg", "größe.jpg"),
        (b"form-data; name=photo; filename*=klingon''%78.jpg; filename=a.jpg", "a.jpg"),
    ],
)
def test_a_photo_has_the_name_that_the_client_sent(disposition, name):
    body = encode_form(b"Content-Disposition: " + disposition + b"\r\nContent-Type: image/jpeg\r\n\r\nJPEG")
    assert read(body) == [(name, b"JPEG")]


def test_text_fields_are_skipped():
    text = b'Content-Disposition: form-data; name="note"\r\n\r\nhello'
    typed = b'Content-Disposition: form-data; name="note"\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nhello'
    assert read(encode_form(text, FILE + b"1", typed, FILE + b"2")) == [("a.jpg", b"1"), ("a.jpg", b"2")]
    assert refusal(encode_form(text)) == "The form holds no photo. Expected: at least one file field."


def test_file_inputs_without_a_file_are_skipped():
    empty = (
        b'Content-Disposition: form-data; name="photo"; filename=""\r\nContent-Type: application/octet-stream\r\n\r\n'
    )
    assert read(encode_form(empty, FILE + b"1", empty)) == [("a.jpg", b"1")]
    assert refusal(encode_form(empty)) == "The form holds no photo. Expected: at least one file field."
    assert read(encode_form(FILE)) == [("a.jpg", b"")]


def test_a_photo_that_is_too_large_does_not_fail_the_others(monkeypatch):
    monkeypatch.setattr("pawcast_serve.io.body.MAX_BYTES", 4)
    (_, large), small = read(encode_form(FILE + b"12345", FILE + b"1234"))
    assert isinstance(large, ImageError)
    assert small == ("a.jpg", b"1234")


def test_bytes_before_and_after_a_form_are_ignored():
    assert read(b"preamble\r\n" + encode_form(FILE + b"1") + b"epilogue") == [("a.jpg", b"1")]


@pytest.mark.parametrize(
    ("body", "content_type", "line"),
    [
        (b"", TYPE, "Unexpected end"),
        (encode_form(FILE + b"1", end=b""), TYPE, "Unexpected end"),
        (encode_form(FILE + b"1", end=b"--cut"), TYPE, "Unexpected end"),
        (encode_form(b"1"), TYPE, "Malformed"),
        (encode_form(b"no colon\r\n\r\n1"), TYPE, "Malformed"),
        (encode_form(b"Content-Type: image/jpeg\r\n\r\n1"), TYPE, "Missing Content-Disposition"),
        (encode_form(b"Content-Disposition: attachment\r\n\r\n1"), TYPE, "Wrong type"),
        (encode_form(FILE + b"1"), "multipart/form-data", "Empty boundary"),
        (encode_form(FILE + b"1"), "multipart/form-data; boundary=other", "Unexpected end"),
    ],
)
def test_a_malformed_form_is_refused(body, content_type, line):
    error = refusal(body, content_type)
    assert error.startswith("The form can't be read: ")
    assert line in error


def test_photos_and_fields_are_limited():
    assert len(read(encode_form(FILE + b"1", FILE + b"2"), max_files=2)) == 2
    assert refusal(encode_form(*[FILE] * 3), max_files=2) == "The form holds more than 2 photos; send fewer at once."
    field = b'Content-Disposition: form-data; name="note"\r\n\r\n'
    assert "count" in refusal(encode_form(FILE, *[field] * 4), max_files=2)


@pytest.mark.parametrize("max_chunk", [1, 7, 100_000])
@pytest.mark.parametrize(
    ("encoding", "compressed"),
    [
        ("gzip", gzip.compress(b"one, two")),
        ("X-GZip", gzip.compress(b"one, ") + gzip.compress(b"") + gzip.compress(b"two")),
        ("deflate", zlib.compress(b"one, two")),
        ("identity", b"one, two"),
    ],
)
def test_a_compressed_body_is_decompressed(encoding, compressed, max_chunk):
    assert read_compressed(encoding, compressed, max_chunk) == b"one, two"


@pytest.mark.parametrize(
    ("encoding", "compressed", "status", "line"),
    [
        ("gzip", b"junk", 400, "can't be decompressed"),
        ("gzip", gzip.compress(b"one")[:-1], 400, "truncated"),
        ("gzip", gzip.compress(b"one") + gzip.compress(b"two")[:9], 400, "truncated"),
        ("gzip", gzip.compress(b"one") + b"junk", 400, "can't be decompressed"),
        ("gzip", gzip.compress(b"") * 5_000, 400, "after the end"),
        ("gzip", gzip.compress(bytes(4 * 2**20)), 413, "less than 1/100"),
        ("deflate", zlib.compress(b"one") * 2, 400, "after the end"),
        ("deflate", zlib.compress(bytes(4 * 2**20)), 413, "less than 1/100"),
        ("br", b"", 415, "Unsupported Content-Encoding br"),
    ],
)
def test_a_compressed_body_that_is_damaged_or_a_bomb_is_refused(encoding, compressed, status, line):
    with pytest.raises(HTTPException, match=line) as refused:
        read_compressed(encoding, compressed, 2**16)
    assert refused.value.status_code == status


def read_compressed(encoding: str, compressed: bytes, chunk: int) -> bytes:
    parts = [compressed[start : start + chunk] for start in range(0, len(compressed), chunk)]

    async def receive() -> dict[str, Any]:
        part = parts.pop(0) if parts else b""
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def run() -> bytes:
        request = Request({"type": "http", "headers": [(b"content-encoding", encoding.encode())]}, receive)
        with BodyReader(ServiceLimits()).receive(request) as request_body:
            return await request_body.read()

    return asyncio.run(run())
