"""A peer of `ingest.py` writes the photos of a zip as its shards; prints the seconds as JSON.

Runs in the peers' own environment (peers_ingest.lock): `python peers_ingest.py mds train.zip out/`.
Imports are not timed. Each peer is used as its documentation shows, with shards of 32 MB as
Pawcast's, and the zip is read by `zipfile`.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import time
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

SHARD = 32 * 2**20
Photo = tuple[str, bytes, int]


def photos(path: str) -> Iterator[Photo]:
    """Yield name, bytes and label."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".jpg"):
                yield name, archive.read(name), int("dog." in name)


def mds(source: str, out: Path, image: str = "bytes", *, check: bool = False) -> None:
    """https://docs.mosaicml.com/projects/streaming/en/stable/preparing_datasets/basic_dataset_conversion.html"""
    from PIL import Image
    from streaming import MDSWriter

    columns = {"image": image, "label": "int", "id": "str"}
    with MDSWriter(out=str(out), columns=columns, hashes=["sha256"], size_limit=SHARD) as writer:
        for name, data, label in photos(source):
            if check:
                hashlib.sha256(data).digest()
                Image.open(io.BytesIO(data)).convert("RGB")
            writer.write(
                {"image": data if image == "bytes" else Image.open(io.BytesIO(data)), "label": label, "id": name}
            )


def webdataset(source: str, out: Path) -> None:
    """https://github.com/webdataset/webdataset#creating-a-webdataset"""
    from webdataset import ShardWriter

    with ShardWriter(str(out / "%06d.tar"), maxsize=SHARD, verbose=0) as writer:
        for name, data, label in photos(source):
            key = Path(name).stem.replace(".", "_")
            writer.write({"__key__": key, "jpg": data, "cls": label})


def huggingface(source: str, out: Path) -> None:
    """https://huggingface.co/docs/datasets/en/create_dataset"""
    import datasets

    datasets.disable_progress_bars()
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})

    def rows() -> Iterator[dict[str, Any]]:
        for name, data, label in photos(source):
            yield {"image": {"bytes": data, "path": name}, "label": label}

    dataset = datasets.Dataset.from_generator(rows, features=features, cache_dir=str(out / "cache"))
    shards = 4
    for i in range(shards):
        dataset.shard(shards, i).to_parquet(str(out / f"{i}.parquet"))


PEERS = {
    "mds_bytes": ("mosaicml-streaming", mds),
    "mds_jpeg": ("mosaicml-streaming", lambda source, out: mds(source, out, "jpeg")),
    "mds_decoded": ("mosaicml-streaming", lambda source, out: mds(source, out, check=True)),
    "webdataset": ("webdataset", webdataset),
    "datasets": ("datasets", huggingface),
}


def main() -> None:
    name, source, out = sys.argv[1:]
    package, write = PEERS[name]
    __import__({"mosaicml-streaming": "streaming"}.get(package, package))
    started = time.perf_counter()
    write(source, Path(out))
    seconds = time.perf_counter() - started
    sys.stdout.write(json.dumps({"seconds": seconds, "version": f"{package} {version(package)}"}) + "\n")


if __name__ == "__main__":
    main()
