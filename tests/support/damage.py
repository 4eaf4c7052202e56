"""What can happen to a stored object, and a check that whoever reads it notices."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

from pawcast import registry
from pawcast.data import manifest as manifests
from pawcast.data.reader import SplitReader
from pawcast.errors import IntegrityError, PawcastError
from pawcast.store import Store, records
from pawcast.training import checkpoint, lease, runs
from pawcast.training.runs import RunRecord
from tests.support.memory_store import MemoryStore

# Files of a run that no job reads. Its result, written last, proves them.
_FOR_PEOPLE = re.compile(r"runs/[^/]+/(history\.json|timing\.json|summary\.txt|curves\.png|model\.weights\.h5)")
# Nothing tells that such an object has existed: `production` may never have been set, a run without
# a result isn't over, and a folder without a state isn't a checkpoint.
_UNNAMED = re.compile(
    r"models/[^/]+/(refs/(?!latest)|evaluations/).*|runs/[^/]+/(result\.json|checkpoints/.*state\.json)"
)


def flip(store: Store, key: str, other: str, picked: random.Random) -> None:
    """Flip one bit."""
    data = bytearray(store.get(key))
    if data:
        data[picked.randrange(len(data))] ^= 1 << picked.randrange(8)
    store.put(key, bytes(data))


def cut(store: Store, key: str, other: str, picked: random.Random) -> None:
    """Cut off a part of the end."""
    data = store.get(key)
    store.put(key, data[: picked.randrange(len(data))] if data else b"")


def empty(store: Store, key: str, other: str, picked: random.Random) -> None:
    """Leave no byte."""
    store.put(key, b"")


def swap(store: Store, key: str, other: str, picked: random.Random) -> None:
    """Exchange the values of two keys."""
    mine, theirs = store.get(key), store.get(other)
    store.put(key, theirs)
    store.put(other, mine)


def delete(store: Store, key: str, other: str, picked: random.Random) -> None:
    """Remove the object."""
    store.delete(key)


DAMAGES = (flip, cut, empty, swap, delete)


class Unnoticed(NamedTuple):
    """A damage that was not reported as it should be."""

    damage: str
    key: str
    other: str
    problem: str


def try_damages(values: Mapping[str, bytes], trials: int, seed: int) -> list[Unnoticed]:
    """Damage one object of a store at a time, in a copy; return what was not reported."""
    picked = random.Random(seed)
    expected, notes = read_everything(MemoryStore(values))
    assert notes == []
    assert verify_everything(MemoryStore(values)) == set()
    proven = {key for key, _ in _reads(MemoryStore(values))}
    assert not [key for key in values if key not in proven and not _FOR_PEOPLE.fullmatch(key)]
    keys, unnoticed = sorted(values), []
    pairs = list(itertools.product(keys, DAMAGES))
    picked.shuffle(pairs)
    for key, damage in itertools.islice(itertools.cycle(pairs), trials):
        other = picked.choice([name for name in keys if name != key])
        store = MemoryStore(values)
        damage(store, key, other, picked)
        touched = {name for name in (key, other) if store.values.get(name) != values[name]}
        problems = [*_wrong_reads(store, expected, touched), *_wrong_verification(store, touched & proven)]
        unnoticed += [Unnoticed(damage.__name__, key, other, problem) for problem in problems]
    return unnoticed


def read_everything(store: Store) -> tuple[dict[str, object], list[str]]:
    """Read what jobs read of each dataset, run and model: values or errors, and the notes."""
    notes: list[str] = []
    reads: dict[str, Callable[[], object]] = {}
    for dataset in _names(store, "datasets"):
        reads[f"dataset {dataset}"] = partial(_read_dataset, store, dataset)
    for model in _names(store, "models"):
        for ref in ("latest", "production", "1"):
            reads[f"{model}@{ref}"] = partial(_read_version, store, f"{model}@{ref}")
    for run in _names(store, "runs"):
        reads[f"run {run}"] = partial(runs.load, store, run)
        reads[f"dataset of {run}"] = partial(_read_dataset_of, store, run)
        reads[f"lease of {run}"] = partial(lease.holder, store, run)
        reads[f"checkpoint of {run}"] = partial(checkpoint.load_latest, store, run, notes.append)
    results: dict[str, object] = {}
    for name, read in reads.items():
        try:
            results[name] = read()
        except PawcastError as error:
            results[name] = error
    return results, notes


def verify_everything(store: Store) -> set[str]:
    """Return the keys that `pawcast verify` calls damaged."""
    return {found.key for found in records.check(_reads(store)) if found.damage}


def _reads(store: Store) -> Iterator[records.Read]:
    for kind, objects in (("datasets", manifests.objects), ("runs", runs.objects), ("models", registry.objects)):
        for name in _names(store, kind):
            yield from objects(store, name)


def _names(store: Store, kind: str) -> list[str]:
    return sorted({key.split("/")[1] for key in store.list(f"{kind}/")})


def _read_dataset(store: Store, dataset: str) -> object:
    manifest = manifests.load(store, dataset)
    rows = [list(SplitReader(store, split)) for split in manifest.splits.values()]
    return manifest, manifests.read_report(store, manifest), rows


def _read_dataset_of(store: Store, run: str) -> object:
    record = records.read(store, f"runs/{run}/run.json", RunRecord, "")
    return manifests.load(store, f"{record.dataset}@{record.dataset_sha256}")


def _read_version(store: Store, name: str) -> object:
    version = registry.resolve(store, name)
    return version, [registry.read_file(store, version, file) for file in version.files]


def _wrong_reads(store: MemoryStore, expected: Mapping[str, object], touched: set[str]) -> Iterator[str]:
    """Yield the reads that give something else than before and don't name what was touched."""
    found, notes = read_everything(store)
    for name, value in expected.items():
        result = found[name]
        if result == value or repr(result) == repr(value):
            continue
        said = [str(result), *notes] if isinstance(result, IntegrityError) else notes
        if not any(key in line for key in touched for line in said) and not _is_unnamed(store, touched):
            yield f"{name}: {result!r:.300}"


def _is_unnamed(store: MemoryStore, touched: set[str]) -> bool:
    """Return whether an object was deleted that nothing names."""
    return any(_UNNAMED.fullmatch(key) and key not in store.values for key in touched)


def _wrong_verification(store: MemoryStore, touched: set[str]) -> Iterator[str]:
    damaged = verify_everything(store)
    for key in damaged - touched:
        yield f"{key} is whole, and verify calls it damaged"
    # Of two that are swapped one may be named by the other alone.
    if touched and not touched & damaged and not _is_unnamed(store, touched):
        yield f"verify notices nothing of {touched}"
