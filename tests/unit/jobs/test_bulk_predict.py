"""`pawcast bulk-predict` against a stub of the service: the files, the line, and the JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import typer
from pawcast_jobs import bulk_predict
from typer.testing import CliRunner, Result

from pawcast.core import command
from pawcast.data import sources
from pawcast.data.sources import LeftOut
from tests.support.files import encode, make_zip
from tests.support.stub_service import StubService, running, scores

PICTURES = {f"{i}.png": encode(np.full((8, 8, 3), 60 * i, np.uint8)) for i in (1, 2, 3)}
Predict = Callable[..., Result]


@pytest.fixture
def stub() -> Iterator[StubService]:
    with running() as server:
        yield server


@pytest.fixture
def predict(stub: StubService, tmp_path: Path) -> Predict:
    """Predict three photos, or the given ones, into the folder `out`."""
    app = typer.Typer(pretty_exceptions_enable=False)
    command.add(app, bulk_predict.main)

    def run(*options: str, photos: dict[str, bytes] = PICTURES) -> Result:
        source = make_zip(tmp_path / "photos.zip", photos)
        arguments = ["--images", source, "--url", stub.url, "--out", str(tmp_path / "out"), *options]
        return CliRunner().invoke(app, arguments)

    return run


def labels(tmp_path: Path) -> dict[str, str]:
    lines = (tmp_path / "out" / "predictions.csv").read_text().splitlines()
    assert lines[0] == "id,label"
    return dict(line.split(",") for line in lines[1:])


def test_probabilities_are_clipped_and_the_positive_class_is_named(predict, tmp_path):
    done = predict("--clip", "0.4", "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert (result["form"], result["positive_class"], result["photos"]) == ("probabilities", "dog", 3)
    expected = {str(i): f"{min(max(scores(PICTURES[f'{i}.png'])['dog'], 0.4), 0.6):.6g}" for i in (1, 2, 3)}
    assert labels(tmp_path) == expected
    assert "(kept 0.4 from 0 and 1: the probability of dog)" in predict("--clip", "0.4").stdout


def test_labels_are_those_of_the_first_competition(predict, tmp_path):
    assert "(label 1 is dog)" in predict("--form", "labels").stdout
    assert labels(tmp_path) == {str(i): str(int(scores(PICTURES[f"{i}.png"])["dog"] > 0.5)) for i in (1, 2, 3)}
    assert predict("--form", "labels", "--fill", "0.5").exit_code == 2


def test_a_photo_without_a_prediction_fails_the_command_but_not_its_result(predict, tmp_path):
    done = predict("--json", photos=PICTURES | {"4.png": b"bad"})
    assert done.exit_code == 4
    result = json.loads(done.stdout)
    assert (result["photos"], result["without_prediction"], result["fill"]) == (4, 1, None)
    assert "1 of 4 photos have no prediction" in done.stderr
    assert "--fill 0.5" in done.stderr
    assert sorted(labels(tmp_path)) == ["1", "2", "3"]
    assert (tmp_path / "out" / "errors.csv").read_text() == "id,file,reason\n4,4.png,no photo\n"


def test_a_photo_without_a_prediction_can_be_filled(predict, tmp_path):
    done = predict("--fill", "0.5", photos=PICTURES | {"4.png": b"bad"})
    assert done.exit_code == 0, done.output
    assert "1 without a prediction, see" in done.stdout
    assert labels(tmp_path)["4"] == "0.5"
    assert (tmp_path / "out" / "errors.csv").exists()


def test_what_is_left_out_is_accounted_for(predict, monkeypatch):
    found = [LeftOut("heic", 50, ("a.heic", "b.heic", "c.heic")), LeftOut("link", 1, ("d.jpg",))]
    scan = sources.scan
    monkeypatch.setattr(sources, "scan", lambda path: scan(path)._replace(left_out=found))
    assert "; 51 left out: 50 heic, 1 link" in predict().stdout
    kinds = json.loads(predict("--json").stdout)["left_out"]
    assert kinds == [
        {"kind": "heic", "count": 50, "examples": ["a.heic", "b.heic", "c.heic"]},
        {"kind": "link", "count": 1, "examples": ["d.jpg"]},
    ]
    assert "no prediction; 51 left out: 50 heic, 1 link." in predict(photos=PICTURES | {"4.png": b"bad"}).stderr


@pytest.mark.parametrize("options", [(), ("--images", "a.zip", "--dataset", "pets")])
def test_exactly_one_source_is_named(options):
    app = typer.Typer()
    command.add(app, bulk_predict.main)
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 2
    assert "Name one source of photos" in done.stderr
