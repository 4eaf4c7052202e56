"""Explaining: one photo at a time, few waiting, the network's map made once and made anew for another model."""

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


class Slow:
    """Stands for `Saliency`: waits to be let go, and counts itself and how many work at once."""

    made: list[object]
    go: threading.Event

    def __init__(self, engine: object) -> None:
        self.made.append(engine)

    def explain(self, data: bytes) -> Explanation:
        self.go.wait(10)
        if data == b"bad":
            raise ImageError("empty file")
        return Explanation(Prediction("cat", 1.0, {"cat": 1.0, "dog": 0.0}), np.zeros((4, 6), np.float32))


@pytest.fixture
def slow(monkeypatch):
    kind = type("Slow", (Slow,), {"made": [], "go": threading.Event()})
    monkeypatch.setattr(explain, "Explainer", kind)
    return kind


class Engines:
    """Stands for `Service`: whose engine may be replaced by another."""

    def __init__(self) -> None:
        self.now = types.SimpleNamespace(version=types.SimpleNamespace(name="pets@1"))

    async def engine(self):
        return self.now


def test_few_may_wait_and_the_accepted_are_answered(slow):
    async def scenario():
        explainer = ExplainQueue(Engines(), max_waiting=2)
        accepted = [asyncio.create_task(explainer.explain(data)) for data in (b"good", b"bad")]
        await asyncio.sleep(0.05)
        with pytest.raises(BusyError, match="2 photos waiting"):
            await explainer.explain(b"third")
        slow.go.set()
        answers = await asyncio.gather(*accepted, return_exceptions=True)
        # Also after a failure there is room again.
        assert (await explainer.explain(b"good"))[0] == "pets@1"
        return answers

    good, bad = asyncio.run(scenario())
    assert good[:2] == ("pets@1", Prediction("cat", 1.0, {"cat": 1.0, "dog": 0.0}))
    assert good[2].startswith(b"\x89PNG")
    assert isinstance(bad, ImageError)


def test_another_model_gets_a_map_of_its_own(slow):
    slow.go.set()

    async def scenario():
        engines = Engines()
        explainer = ExplainQueue(engines)
        await explainer.explain(b"a")
        await explainer.explain(b"b")
        engines.now = types.SimpleNamespace(version=types.SimpleNamespace(name="pets@2"))
        return (await explainer.explain(b"c"))[0]

    assert asyncio.run(scenario()) == "pets@2"
    assert len(slow.made) == 2
