"""Multipart forms, however they arrive and whoever wrote them."""

from __future__ import annotations

import random

import pytest
from starlette.exceptions import HTTPException

from pawcast.client import service_client
from pawcast.errors import ImageError
from pawcast_serve.io import multipart as forms
from pawcast_serve.io.multipart import MultipartReader

TYPE = "multipart/form-data; boundary=cut"
FILE = b'Content-Disposition: form-data; name="photo"; filename="a.jpg"\r\n\r\n'


def written(*parts: bytes, end: bytes = b"--cut--\r\n") -> bytes:
    return b"".join(b"--cut\r\n" + part + b"\r\n" for part in parts) + end


def read(body: bytes, content_type: str = TYPE, most: int = 8) -> list[forms.FormFile]:
    form = MultipartReader(content_type, most)
    form.feed(body)
    return form.end()


def refusal(body: bytes, content_type: str = TYPE, most: int = 8) -> str:
    with pytest.raises(HTTPException) as refused:
        read(body, content_type, most)
    assert refused.value.status_code == 400
    return refused.value.detail


@pytest.mark.parametrize("most", [1, 7, 1_000])
def test_where_a_form_is_cut_into_chunks_makes_no_difference(most):
    chance = random.Random(most)
    # Line breaks and dashes, as the marks between parts have them.
    photos = [bytes(chance.choices(b"\r\n-x", k=chance.randrange(500))) for _ in range(20)]
    body, content_type = service_client.encode_form(photos)
    form, at = MultipartReader(content_type, len(photos)), 0
    while at < len(body):
        size = chance.randint(0, most)
        form.feed(body[at : at + size])
        at += size
    assert form.end() == [(str(i), photo) for i, photo in enumerate(photos)]


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('form-data; name="photo"; filename="größe 3.jpg"'.encode(), "größe 3.jpg"),
        ('form-data; name="photo"; filename="größe.jpg"'.encode("latin-1"), "gr��e.jpg"),
        (b'form-data; name="photo"; filename="say %22cheese%22.jpg"', 'say "cheese".jpg'),
        (b"form-data; name=photo; filename=a.jpg", "a.jpg"),
        (b'form-data; filename="a.jpg"', "a.jpg"),
        (b'form-data; name="photo"; filename=""', "photo"),
        # What only old clients write; their type tells that it's a file.
        (b"form-data; name=photo; filename*=UTF-8''a.jpg", "photo"),
    ],
)
def test_a_photo_has_the_name_that_its_sender_gave_it(disposition, name):
    body = written(b"Content-Disposition: " + disposition + b"\r\nContent-Type: image/jpeg\r\n\r\nJPEG")
    assert read(body) == [(name, b"JPEG")]


def test_text_between_photos_is_passed_over():
    text = b'Content-Disposition: form-data; name="note"\r\n\r\nhello'
    typed = b'Content-Disposition: form-data; name="note"\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nhello'
    assert read(written(text, FILE + b"1", typed, FILE + b"2")) == [("a.jpg", b"1"), ("a.jpg", b"2")]
    assert refusal(written(text)) == "The form holds no photo. Expected: at least one file field."


def test_a_photo_that_is_too_large_costs_no_other_its_answer(monkeypatch):
    monkeypatch.setattr(forms, "MAX_BYTES", 4)
    (_, large), small = read(written(FILE + b"12345", FILE + b"1234"))
    assert isinstance(large, ImageError)
    assert small == ("a.jpg", b"1234")


def test_what_comes_before_and_after_a_form_is_ignored():
    assert read(b"preamble\r\n" + written(FILE + b"1") + b"epilogue") == [("a.jpg", b"1")]


@pytest.mark.parametrize(
    ("body", "content_type", "line"),
    [
        (b"", TYPE, "Unexpected end"),
        (written(FILE + b"1", end=b""), TYPE, "Unexpected end"),
        (written(FILE + b"1", end=b"--cut"), TYPE, "Unexpected end"),
        (written(b"1"), TYPE, "Malformed"),
        (written(b"no colon\r\n\r\n1"), TYPE, "Malformed"),
        (written(b"Content-Type: image/jpeg\r\n\r\n1"), TYPE, "Missing Content-Disposition"),
        (written(b"Content-Disposition: attachment\r\n\r\n1"), TYPE, "Wrong type"),
        (written(FILE + b"1"), "multipart/form-data", "Empty boundary"),
        (written(FILE + b"1"), "multipart/form-data; boundary=other", "Unexpected end"),
    ],
)
def test_what_is_no_form_is_refused(body, content_type, line):
    said = refusal(body, content_type)
    assert said.startswith("The form can't be read: ")
    assert line in said


def test_neither_more_photos_than_allowed_nor_endless_fields():
    assert len(read(written(FILE + b"1", FILE + b"2"), most=2)) == 2
    assert refusal(written(*[FILE] * 3), most=2) == "The form holds more than 2 photos; send fewer at once."
    field = b'Content-Disposition: form-data; name="note"\r\n\r\n'
    assert "count" in refusal(written(FILE, *[field] * 4), most=2)
