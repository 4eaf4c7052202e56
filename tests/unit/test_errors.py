"""Errors: one readable line, which survives pickling."""

from __future__ import annotations

import pickle

from pawcast import errors
from pawcast.errors import DataError, ImageError, PawcastError, UsageError, suggest


def test_an_error_is_one_line_of_what_received_expected_and_fix():
    error = UsageError("Unknown recipe.", received="'x'", expected="one of a, b", fix="choose one.")
    assert str(error) == "Unknown recipe. Received: 'x'. Expected: one of a, b. Fix: choose one."
    assert str(DataError("Nothing there")) == "Nothing there."


def test_an_error_survives_pickling():
    error = pickle.loads(pickle.dumps(ImageError("empty file", fix="send one")))
    assert isinstance(error, ImageError)
    assert (str(error), error.what) == ("empty file. Fix: send one.", "empty file")


def test_every_class_documents_its_exit_code_and_status():
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, PawcastError):
            line = next(line for line in (errors.__doc__ or "").splitlines() if name in line)
            assert f"exit {kind.exit_code:>2}" in line
            assert f"HTTP {kind.http_status}" in line


def test_a_suggestion_names_the_nearest_choice():
    assert suggest("artikle", ["smoke", "article"]) == "one of article, smoke (did you mean 'article'?)"
    assert suggest("x", []) == "none exist yet"
