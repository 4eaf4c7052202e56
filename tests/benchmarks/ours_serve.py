"""Pawcast's part of `serve.py`, each command in a process of its own.

    python -m tests.benchmarks.ours_serve COMMAND ARGUMENTS

network STORE FILE FROM NAME     publish a trained version of the store FROM, and save its network
                                 as FILE for the peers, in the precision in which Pawcast serves it
any-network STORE FILE FROM NAME the same; random weights where there is no such version
serve STORE PORT FOLDER          run the service as `make run` deploys it, until standard input ends
bulk ZIP PORT FOLDER             time the bulk client
in-process STORE ZIP             time decoding and the network alone, without HTTP
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from pawcast.client import bulk
from pawcast.client.photos import PhotoSequence, SourcePhotos
from pawcast.errors import ImageError, PawcastError, UsageError
from pawcast.registry import ModelVersion
from pawcast.store import Store

ROOT = Path(__file__).resolve().parents[2]
MODEL = "catdog"


def any_network(store_uri: str, file: str, origin: str, name: str) -> None:
    from pawcast.store import open_store
    from tests.support import served

    try:
        network(store_uri, file, origin, name)
    except PawcastError as error:
        sys.stderr.write(f"random weights, because there is no {name} to serve: {error}\n")
        version = served.publish(open_store(store_uri), model=MODEL, recipe=served.resolve("article"))
        _save(open_store(store_uri), version, file, "random weights")


def network(store_uri: str, file: str, origin: str, name: str) -> None:
    from pawcast import registry
    from pawcast.store import open_store

    store = open_store(store_uri)
    version = _copied(open_store(origin), name, store)
    registry.move_ref(store, MODEL, "production", version.version)
    _save(store, version, file, "trained")


def _save(store: Store, version: ModelVersion, file: str, weights: str) -> None:
    """Save a version's network for the peers, and print what it is."""
    from pawcast.inference.engine import Engine
    from pawcast.models.layers.batch_norm import SyncBatchNorm
    from pawcast.models.layers.dropout import Dropout
    from pawcast.runtime.tensorflow import keras

    engine = Engine.from_version(store, version)
    # The peers have Keras's layers only.
    plain = {Dropout: keras.layers.Dropout, SyncBatchNorm: keras.layers.BatchNormalization}

    def known(layer: keras.Layer) -> keras.Layer:
        dtype = "float32" if layer is engine.network.layers[-1] else engine.precision
        return plain.get(type(layer), type(layer)).from_config({**layer.get_config(), "dtype": dtype})

    theirs = keras.models.clone_model(engine.network, clone_function=known)
    theirs.set_weights(engine.network.get_weights())
    theirs.save(file)
    facts = engine.info
    print_json(
        {
            "name": f"{version.recipe.name}, {engine.size}x{engine.size}",
            "weights": weights,
            "precision": facts["precision"],
            "fallback_share": facts["fallback_share"],
        }
    )


def _copied(origin: Store, name: str, store: Store) -> ModelVersion:
    """Register a version of one store in another. Its preprocessing must be the peers' as well."""
    from pawcast import registry

    version = registry.resolve(origin, name)
    if version.preprocessing.mirror or version.preprocessing.eval_downscale:
        raise UsageError(
            f"{name} predicts mirrored or downscaled photos, which the peers don't", fix="choose another --model"
        )
    files = {file: registry.read_file(origin, version, file) for file in version.files}
    facts = {key: getattr(version, key) for key in ModelVersion.model_fields}
    for own in ("schema_version", "model", "version", "files"):
        del facts[own]
    return registry.register(store, MODEL, files, **facts)


def serve(store_uri: str, port: str, folder: str) -> None:
    from pawcast_infra.local.private_ray import deploy, private_ray

    with private_ray(store_uri, cpus=1) as environment:
        deploy(ROOT / "serve" / "config.yaml", environment, int(port), Path(folder) / "serve.yaml")
        print_json({"ready": True})
        sys.stdin.read()


def bulk_client(source: str, port: str, folder: str) -> None:
    photos = SourcePhotos(source)
    started = time.perf_counter()
    with bulk.bulk_predict(photos, f"http://127.0.0.1:{port}", Path(folder), fresh=True) as result:
        seconds = time.perf_counter() - started
    print_json({"seconds": seconds, "scores": [row.score for row in result.rows]})


def in_process(store_uri: str, source: str) -> None:
    from pawcast.inference.engine import Engine
    from pawcast.inference.predictor import predict_scores
    from pawcast.store import open_store

    engine = Engine.load(open_store(store_uri), f"{MODEL}@production")
    photos: PhotoSequence = SourcePhotos(source)
    started = time.perf_counter()
    scores = list(predict_scores(engine, (data for _, data in photos.read(0, len(photos)))))
    seconds = time.perf_counter() - started
    print_json({"seconds": seconds, "scores": [None if isinstance(item, ImageError) else item for item in scores]})


def print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


COMMANDS = {
    "network": network,
    "any-network": any_network,
    "serve": serve,
    "bulk": bulk_client,
    "in-process": in_process,
}

if __name__ == "__main__":
    try:
        COMMANDS[sys.argv[1]](*sys.argv[2:])
    except PawcastError as error:
        sys.exit(f"error: {error}")
