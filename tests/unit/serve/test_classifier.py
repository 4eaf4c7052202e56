"""The classifier: failures of one request, and starting beside other replicas."""

from __future__ import annotations

import asyncio

import pytest

from pawcast.errors import NotFoundError
from pawcast.store import open_store
from pawcast_serve.classifier import Classifier
from tests.support.served import MODEL


def test_a_decoder_that_breaks_fails_its_request_alone(model_store, photo, monkeypatch):
    async def scenario() -> None:
        classifier = Classifier(model_store, MODEL)
        await classifier.start()
        with monkeypatch.context() as broken:
            broken.setattr(classifier.manager.loaded.batcher, "_decode", lambda photo: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                await classifier.classify([photo, photo])
        assert classifier.waiting_photos == 0
        assert len((await classifier.classify([photo])).predictions) == 1
        await classifier.stop()

    asyncio.run(scenario())


def test_beside_other_replicas_one_without_a_model_does_not_start(tmp_path):
    classifier = Classifier(open_store(str(tmp_path)), MODEL)
    with pytest.raises(NotFoundError, match="Unknown model"):
        asyncio.run(classifier.start(is_only_replica=lambda: False))
