"""The explain queue: one photo at a time, few waiting, a new `Explainer` for a new version."""

from __future__ import annotations

import asyncio
import threading
import types

import numpy as np
import pytest

from pawcast.errors import BusyError, ImageError
from pawcast.inference.explain import Explanation
from pawcast.inference.predictor import Prediction
from pawcast_serve.routes import explain
from pawcast_serve.routes.explain import ExplainQueue


class SlowExplainer:
    """Replaces `Explainer`: records each instance, and explains once `go` is set."""

    engines: list[object]
    go: threading.Event

    def __init__(self, engine: object) -> None:
        self.engines.append(engine)

    def explain(self, data: bytes) -> Explanation:
        self.go.wait(10)
        if data == b"bad":
            raise ImageError("empty file")
        return Explanation(Prediction("cat", 1.0, {"cat": 1.0, "dog": 0.0}), np.zeros((4, 6), np.float32))


@pytest.fixture
def slow(monkeypatch):
    slow_class = type("Slow", (SlowExplainer,), {"engines": [], "go": threading.Event()})
    monkeypatch.setattr(explain, "Explainer", slow_class)
    return slow_class


class Manager:
    """Replaces `ModelManager`."""

    def __init__(self) -> None:
        self.load("pets@1")

    def load(self, name: str) -> None:
        engine = types.SimpleNamespace(version=types.SimpleNamespace(name=name))
        self.loaded = types.SimpleNamespace(engine=engine)


def test_few_photos_may_wait_and_the_accepted_are_answered(slow):
    async def scenario():
        queue = ExplainQueue(Manager(), max_waiting=2)
        accepted = [asyncio.create_task(queue.explain(data)) for data in (b"good", b"bad")]
        await asyncio.sleep(0.05)
        with pytest.raises(BusyError, match="2 photos waiting"):
            await queue.explain(b"third")
        slow.go.set()
        answers = await asyncio.gather(*accepted, return_exceptions=True)
        # There is room again, also after a failure.
        assert (await queue.explain(b"good"))[0] == "pets@1"
        return answers

    good, bad = asyncio.run(scenario())
    assert good[:2] == ("pets@1", Prediction("cat", 1.0, {"cat": 1.0, "dog": 0.0}))
    assert good[2].startswith(b"\x89PNG")
    assert isinstance(bad, ImageError)


def test_a_new_version_gets_a_new_explainer(slow):
    slow.go.set()

    async def scenario():
        manager = Manager()
        queue = ExplainQueue(manager)
        await queue.explain(b"a")
        await queue.explain(b"b")
        manager.load("pets@2")
        return (await queue.explain(b"c"))[0]

    assert asyncio.run(scenario()) == "pets@2"
    assert len(slow.engines) == 2
