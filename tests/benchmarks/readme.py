"""Renew README's tables from results/, or with --check say whether they are up to date."""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results"
IN_PROCESS = "decoding and the network in one process, no HTTP"
TRAIN_ALONE, TRAIN_TOGETHER = "Pawcast, 1 worker with all CPUs", "Pawcast, a worker for each CPU"


def recipes() -> list[str]:
    """What was trained, from the records of `record.py`."""
    lines = [
        "| recipe | validation | held out (95% interval) | minutes | CPU minutes | photos/s over HTTP | weights | "
        "hardware, date |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for path in sorted(RESULTS.glob("*.json")):
        record = json.loads(path.read_text())
        low, high = record["test"]["interval"]
        bulk = f"{record['bulk']['photos_per_second']:,.0f}" if record.get("bulk") else "–"
        cpu = f"{record['cpu_minutes']:,.0f}" if record.get("cpu_minutes") else "–"
        seeds = (record, *record.get("again", ()))
        scores = ", ".join(f"{seed['metrics']['val_acc']:.4f}" for seed in seeds)
        lines.append(
            f"| `{record['recipe']}` | {scores} | **{record['test']['accuracy']:.3f}** "
            f"({low:.3f} to {high:.3f}) | {record['minutes']:,.0f} | {cpu} | {bulk} | "
            f"{record['weights_bytes'] / 1e6:.1f} MB | {record['hardware']}; {record['trained'][:10]} |"
        )
    return lines


def ingest(record: dict[str, Any]) -> list[str]:
    """Ingest beside its peers, from `make bench-ingest`."""
    rates: dict[str, Any] = record["ingest"]
    ours = rates["Pawcast, to S3"]["photos_per_second"]
    lines = [
        f"| {record['photos']:,} photos, {record['bytes'] / 1e6:,.0f} MB | photos/s | beside ours to S3 |",
        "| --- | ---: | ---: |",
    ]
    for name, rate in rates.items():
        version = f" ({rate['version'].rpartition(' ')[2]})" if rate["version"] else ""
        lines.append(f"| {name}{version} | {rate['photos_per_second']:,.0f} | {rate['photos_per_second'] / ours:.2f} |")
    decode = record["decode"]
    lines += ["", "| from shards to pixels in Ray's object store | photos/s |", "| --- | ---: |"]
    lines += [f"| {name} | {rate['photos_per_second']:,.0f} |" for name, rate in decode.items()]
    start = {mark: times["median"] for mark, times in record["start"].items()}
    return [
        *lines, "",
        f"From `train.py --recipe article` to its first step: {start['first step']:.0f} s. Decoding the photos, "
        f"part of it, begins after {start['decoding begins']:.0f} s and ends after {start['decoding ends']:.0f} s. "
        f"{record['hardware']}; {record['measured']}.",
    ]  # fmt: skip


def train(record: dict[str, Any]) -> list[str]:
    """Training beside its peers, from `make bench-train`."""
    contenders: dict[str, Any] = record["contenders"]
    ours = contenders[TRAIN_ALONE]["photos_per_second"]
    lines = ["| | photos/s | beside ours | loss after so many epochs |", "| --- | ---: | ---: | ---: |"]
    for name, found in contenders.items():
        rate = found["photos_per_second"]
        lines.append(f"| {_versioned(name, record)} | {rate:,.0f} | {rate / ours:.2f} | {found['loss']:.3f} |")
    return [
        *lines, "",
        f"{record['epochs']} epochs of {record['photos']:,} photos, the first not timed. {record['hardware']}; "
        f"{record['measured']}.",
    ]  # fmt: skip


def serve(record: dict[str, Any]) -> list[str]:
    """The service beside its peers, from `make bench-serve`."""
    bulk: dict[str, Any] = record["bulk"]
    best = [item["photos_per_second"] for item in bulk[IN_PROCESS]["rounds"]]
    lines = [f"| {record['photos']:,} photos | photos/s | beside no HTTP, by rounds |", "| --- | ---: | ---: |"]
    for name, rate in bulk.items():
        shares = [item["photos_per_second"] / other for item, other in zip(rate["rounds"], best, strict=True)]
        spread = "" if name == IN_PROCESS else f" ({min(shares):.2f} to {max(shares):.2f})"
        lines.append(f"| {name} | {rate['photos_per_second']:,.0f} | {statistics.median(shares):.2f}{spread} |")
    many = record["many"]
    lines += [
        "",
        f"| photos/s (p50, p95, p99 in ms) | {many['photos']} a request, {many['connections']} connections "
        "| one a request, 1 connection | 16 | 64 |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, loads in record["servers"].items():
        cells = " | ".join(_load(loads[key]) for key in ("many", "1", "16", "64"))
        lines.append(f"| {_versioned(name, record)} | {cells} |")
    network = record["network"]
    again = f", {network['again']:.1%} of the photos again in float32" if network["again"] else ""
    ours = f"Pawcast computes in {network['precision']}{again}, those that don't say so in float32"
    return [
        *lines, "",
        f"The network: {network['name']}{', trained' if network['trained'] else ''}. "
        f"{'Pawcast computes in float32' if network['precision'] == 'float32' else ours}. "
        f"{record['hardware']}; {record['measured']}.",
    ]  # fmt: skip


def _versioned(name: str, record: dict[str, Any]) -> str:
    version = record["versions"].get(name)
    return f"{name} ({version})" if version else name


def _load(rate: dict[str, Any]) -> str:
    times = ", ".join(f"{rate[key]:,.0f}" for key in ("p50", "p95", "p99"))
    return f"{rate['photos_per_second']:,.0f} ({times})"


def endurance(record: dict[str, Any]) -> list[str]:
    """The service's bad hours, from `make bench-endurance`."""
    over, kill, roll, soak, bad = (record[name] for name in ("overload", "kill", "roll", "soak", "malformed"))
    statuses = ", ".join(f"{count:,} x {status}" for status, count in sorted(over["statuses"].items()))
    return [
        "| what happens to the service | what comes of it |",
        "| --- | --- |",
        f"| for a minute {over['offered']:,.0f} photos/s, when it can do {over['before']:,.0f} "
        f"| {statuses}, each refusal with `Retry-After`; 99% of answers within {over['p99']:.1f} s; "
        f"memory {over['growth']:+.1%}; afterwards {over['after']:,.0f} photos/s |",
        f"| one of two replicas killed under load | of {kill['requests']:,} requests {kill['lost']} lost within half a "
        f"second, {kill['failed']} later; answers paused for {1000 * kill['pause']:.0f} ms, "
        f"and after {kill['recovery']:.0f} s there were two replicas again |",
        f"| another version promoted under load | {roll['failed']} failed and {roll['mixed']} mixed among "
        f"{sum(roll['models'].values()):,} answers, every score compared bit by bit; it answered after "
        f"{roll['seconds']:.0f} s |",
        f"| {soak['photos']:,} photos | memory {soak['growth']:+.1%} from the first tenth to the end; "
        f"{soak['photos'] / soak['seconds']:,.0f} photos/s |",
        f"| {bad['photos']:,} malformed photos of every format | {bad['odd']} requests without a score or an error for "
        f"each photo within two seconds, the slowest {bad['slowest']:.1f} s; {'a' if bad['crashed'] else 'no'} crash |",
        "",
        f"The client on the same machine. {record['hardware']}; {record['measured']}.",
    ]  # fmt: skip


def gpu(record: dict[str, Any]) -> list[str]:
    """Training and serving on a GPU, and its memory, from `make bench-gpu`."""
    lines = [
        "| on the GPU | photos/s | memory at its peak | a moment after the end | hardware, date |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for part, found in record.items():
        name = {
            "train": f"training `{found['recipe']}` with its augmentation",
            "stop": f"training `{found['recipe']}`, interrupted by Ctrl-C",
            "serve": f"{found.get('photos', 0):,} photos over HTTP, in {found.get('engine', {}).get('precision')}",
        }[part]
        rate = f"{found['photos_per_second']:,.0f}" if "photos_per_second" in found else "–"
        memory = " | ".join(f"{found[key]:,.0f} MiB" if key in found else "–" for key in ("peak_mib", "after_mib"))
        lines.append(f"| {name} | {rate} | {memory} | {found['hardware']}; {found['measured']} |")
    return lines


BENCHMARKS = {"gpu": gpu, "ingest": ingest, "train": train, "serve": serve, "endurance": endurance}


def tables() -> Iterator[tuple[str, list[str]]]:
    """Every table's name and lines."""
    yield "results", recipes()
    for name, lines in BENCHMARKS.items():
        path = RESULTS / "benchmarks" / f"{name}.json"
        yield name, lines(json.loads(path.read_text())) if path.exists() else ["Not measured yet."]


def renewed(text: str) -> str:
    """Return README with its tables made anew, each between its two markers."""
    for name, lines in tables():
        begin, end = f"<!-- {name}: made by `make results` -->", f"<!-- end of {name} -->"
        if begin not in text:
            continue
        table = "\n".join([begin, *lines, end])
        text = re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _, table=table: table, text, flags=re.DOTALL)
    return text


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text()
    if "--check" in sys.argv:
        sys.exit(None if renewed(text) == text else "README's tables are out of date. Fix: make results")
    readme.write_text(renewed(text))


if __name__ == "__main__":
    main()
