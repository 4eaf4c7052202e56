"""Record a trained model in results/: recipe, history, accuracy, size, and speed.

    python tests/benchmarks/record.py catdog@3 --store var/store --bulk var/run/bulk.json
    python tests/benchmarks/record.py catdog@4 --store var/store --repeat

The record is made of the files that the jobs left in the store (run, history, evaluation, version)
and, with --bulk, of the object that `pawcast bulk-predict --json` printed. With --repeat it adds
another training of the same recipe to the recipe's record, with its validation accuracy only: each
recipe is evaluated on the test split once. `make results` then renews the tables from results/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from pawcast import registry
from pawcast.core.settings import store_uri
from pawcast.data import manifest as manifests
from pawcast.doctor.machine import nvidia_smi
from pawcast.runtime.devices import cpu_info
from pawcast.store import open_store

# Flags of /proc/cpuinfo, the fastest instructions first.
INSTRUCTIONS = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16", "avx512f": "AVX-512", "avx2": "AVX2"}
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--store")
    parser.add_argument("--bulk", type=Path)
    parser.add_argument("--repeat", action="store_true")
    options = parser.parse_args()
    store = open_store(store_uri(options.store))
    version = registry.resolve(store, options.model)
    run = json.loads(store.get(f"runs/{version.run}/run.json"))
    history = json.loads(store.get(f"runs/{version.run}/history.json"))
    trained: dict[str, Any] = {
        "trained": version.created,
        "hardware": hardware(),
        "workers": run["workers"],
        "minutes": round(sum(history["seconds"]) / 60, 1),
        "cpu_minutes": round(sum(history["cpu_seconds"]) / 60, 1),
        "metrics": version.metrics,
    }
    path = RESULTS / f"{version.recipe.name}.json"
    if options.repeat:
        record = json.loads(path.read_text())
        record.setdefault("repeats", []).append({"seed": version.recipe.seed, **trained, "history": history})
    else:
        labels = manifests.load(store, f"{version.dataset}@{version.dataset_sha256}").pseudo_labels
        key = f"models/{version.model}/evaluations/{version.version}-test.json"
        record = {
            "recipe": version.recipe.name,
            **trained,
            "dataset_sha256": version.dataset_sha256,
            "pseudo_labels": labels.model_dump() if labels else None,
            "weights_bytes": sum(file.bytes for file in version.files.values()),
            "test": json.loads(store.get(key)),
            "timing": json.loads(store.get(f"runs/{version.run}/timing.json")),
            "bulk": bulk(options.bulk) if options.bulk else None,
            "config": version.recipe.model_dump(),
            "history": history,
        }
        (RESULTS / f"{version.recipe.name}-curves.png").write_bytes(store.get(f"runs/{version.run}/curves.png"))
    path.write_text(json.dumps(record, indent=1) + "\n")


def bulk(output: Path) -> dict[str, Any]:
    """The result of a bulk prediction, without the paths of its files."""
    result = json.loads(output.read_text().splitlines()[-1])
    return {key: result[key] for key in ("model", "photos", "seconds", "photos_per_second")}


def hardware() -> str:
    """Describe this machine: cores, CPU, its fastest instructions for a network, and GPU."""
    facts = cpu_info()
    name, flags = facts.get("model name", platform.machine()), facts.get("flags", "").split()
    best = next((shown for flag, shown in INSTRUCTIONS.items() if flag in flags), None)
    gpu = ", ".join(listed.split(",")[0] for listed in nvidia_smi()) or "no GPU"
    return f"{os.cpu_count()} cores of {name}{f' with {best}' if best else ''}, {gpu}"


def installed(python: str, packages: dict[str, str]) -> dict[str, str]:
    """Return the versions of packages in another environment, by the names given to them."""
    code = (
        f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(p) for n, p in {packages}.items()}}))"
    )
    done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    versions: dict[str, str] = json.loads(done.stdout)
    return versions


if __name__ == "__main__":
    main()
