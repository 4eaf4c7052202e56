"""`pawcast verify`: what it reads, and what it says about damage."""

from __future__ import annotations

import pytest
from pawcast_jobs.verify import main

from pawcast.core.command import CommandError
from pawcast.errors import NotFoundError
from pawcast.store import Store, open_store
from tests.support.whole_job import write_jobs


@pytest.fixture
def store(tmp_path) -> Store:
    store = open_store(str(tmp_path))
    write_jobs(store)
    return store


def test_without_an_option_all_of_the_store_is_verified(store):
    result, text = main(store_uri=store.uri)
    assert result["datasets"] == ["others", "pets"]
    assert (result["runs"], result["models"], result["damaged"]) == (["over", "stopped"], ["catdog"], [])
    # Not the plots and histories of the run that isn't over: nothing proves them yet.
    unproven = [key for key in store.list("runs/stopped/") if key.count("/") == 2 and "run.json" not in key]
    assert result["objects"] == len(list(store.list(""))) - len(unproven) + 1
    assert text == f"{result['objects']} objects in {store.uri} are complete and unchanged"


@pytest.mark.parametrize(
    ("options", "damaged"),
    [
        ({}, ["datasets/pets/refs/latest", "models/catdog/versions/2.json", "runs/over/history.json"]),
        ({"dataset": ["pets"]}, ["datasets/pets/refs/latest"]),
        ({"run": ["over", "stopped"]}, ["runs/over/history.json"]),
        ({"model": ["catdog"], "dataset": ["others"]}, ["models/catdog/versions/2.json"]),
        ({"dataset": ["others"], "run": ["stopped"]}, []),
    ],
)
def test_each_damaged_object_is_named(store, capsys, options, damaged):
    store.put("datasets/pets/refs/latest", b"")
    store.delete("models/catdog/versions/2.json")
    store.put("runs/over/history.json", b"{}")
    if not damaged:
        assert main(**options, store_uri=store.uri)[0]["damaged"] == []
        return
    with pytest.raises(CommandError) as caught:
        main(**options, store_uri=store.uri)
    assert caught.value.exit_code == 5
    assert caught.value.result["damaged"] == damaged
    printed = capsys.readouterr().err
    assert all(key in printed and key in str(caught.value) for key in damaged)


def test_a_name_that_is_not_there_is_not_found(store):
    for option in ("dataset", "run", "model"):
        with pytest.raises(NotFoundError, match="nothing"):
            main(**{option: ["nothing"]}, store_uri=store.uri)


def test_what_an_earlier_pawcast_wrote_is_named(store):
    store.put("models/catdog/refs/latest", b"2")
    with pytest.raises(CommandError, match="models/catdog/refs/latest"):
        main(model=["catdog"], store_uri=store.uri)
