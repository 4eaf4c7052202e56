"""Wrong use of the commands: one clear line, the documented exit code, nothing half done."""

from __future__ import annotations

import socket
import threading
import zipfile
from contextlib import closing

import pytest

from tests.support.services import ROOT, free_port, job

JOBS = sorted(path.name for path in (ROOT / "jobs").glob("*.py") if path.stem not in ("__init__", "cli"))


def refused(code: int, *command: str) -> str:
    """Run a job that must fail with an exit code; return its error, one line."""
    got, output, errors = job(*command)
    assert got == code, errors
    assert output == ""
    assert "Traceback" not in errors
    line = errors.strip().splitlines()[-1]
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("name", JOBS)
def test_a_job_file_has_the_help_of_its_command(name):
    code, output, _ = job(name, "--help")
    assert code == 0
    assert "Exit codes" in output
    assert "--json" in output


def test_a_missing_source(tmp_path):
    line = refused(3, "ingest.py", "--labelled", "nowhere.zip", "--dataset", "x", "--store", str(tmp_path))
    assert "nowhere.zip" in line
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("members", [{}, {"train/readme.txt": b"x"}, {"train/1.jpg": b"x"}])
def test_an_archive_without_photos_or_labels(tmp_path, members):
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    line = refused(4, "ingest.py", "--labelled", str(archive), "--dataset", "x", "--store", str(tmp_path / "s"))
    assert "Expected: " in line


def test_unknown_names_are_answered_with_suggestions(tmp_path):
    store = ("--store", str(tmp_path))
    assert "did you mean 'article'" in refused(2, "train.py", "--dataset", "x", "--recipe", "artikle", *store)
    assert "did you mean 'epochs'" in refused(2, "train.py", "--dataset", "x", "--set", "epoch=3", *store)
    assert "pawcast ingest" in refused(3, "train.py", "--dataset", "nothing", *store)
    assert "pawcast train" in refused(3, "evaluate.py", "--model", "nobody", *store)
    assert "pawcast train" in refused(3, "promote.py", "nobody", "latest", "production", *store)


def test_an_unknown_option():
    code, output, errors = job("train.py", "--dataset", "x", "--epochs", "3")
    assert code == 2
    assert output == ""
    assert "--epochs" in errors
    assert "Traceback" not in errors


def test_no_server(tmp_path, photos):
    url = f"http://127.0.0.1:{free_port()}"
    out = tmp_path / "predictions"
    assert url in refused(9, "bulk_predict.py", "--images", str(photos.unlabelled), "--url", url, "--out", str(out))
    assert not out.exists()
    photo = photos.unlabelled_folder / "1.jpg"
    assert url in refused(9, "predict.py", str(photo), "--url", url)


def test_a_server_of_another_kind(photos, tmp_path):
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def respond() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")

        threading.Thread(target=respond, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        options = ("--images", str(photos.unlabelled), "--url", url, "--out", str(tmp_path / "p"))
        line = refused(9, "bulk_predict.py", *options)
    assert "No Pawcast service" in line


def test_a_taken_port(photos, tmp_path):
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        options = ("--port", str(port), "--store", str(tmp_path / "s"), "--out", str(tmp_path / "o"))
        sources = ("--labelled", str(photos.labelled), "--unlabelled", str(photos.unlabelled))
        assert str(port) in refused(7, "run.py", *sources, *options)
        assert str(port) in refused(7, "demo.py", *options)
    assert not list(tmp_path.iterdir())


def test_a_missing_photo_and_a_missing_model(tmp_path):
    picture = tmp_path / "x.jpg"
    assert "x.jpg" in refused(3, "predict.py", str(picture))
    picture.write_bytes(b"hello")
    assert "catdog" in refused(3, "predict.py", str(picture), "--store", str(tmp_path / "empty"))


def test_an_unreachable_s3_server(monkeypatch, tmp_path, photos):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    line = refused(6, "promote.py", "catdog", "latest", "production", "--store", "s3://nowhere/x")
    assert "AWS_ENDPOINT_URL" in line
