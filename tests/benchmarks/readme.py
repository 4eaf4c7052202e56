"""Renew the benchmark tables of README.md and tests/benchmarks/README.md from results/.

    python tests/benchmarks/readme.py            write the tables
    python tests/benchmarks/readme.py --check    end with an error if a table is out of date

A table stands between two markers, `<!-- NAME: made by `make results` -->` and `<!-- end of NAME
-->`. A file gets the tables whose markers it has.
"""

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
FILES = (ROOT / "README.md", Path(__file__).parent / "README.md")
# What the tables call the contenders, by benchmark.
NAMES = {
    "ingest": {
        "pawcast_s3": "Pawcast, to S3",
        "pawcast_folder": "Pawcast, to a folder",
        "read_hash_decode": "read, hash and decode alone, on all cores",
        "mds_bytes": "MDSWriter, bytes",
        "mds_jpeg": "MDSWriter, jpeg",
        "mds_decoded": "MDSWriter, bytes, each photo decoded",
        "webdataset": "WebDataset ShardWriter",
        "datasets": "Hugging Face datasets",
    },
    "decode": {
        "pawcast": "Pawcast, every shard's sha256 checked",
        "ray_data": "Ray Data, read_parquet and map_batches",
    },
    "train": {
        "pawcast_one_worker": "Pawcast, 1 worker with all CPUs",
        "pawcast_worker_per_cpu": "Pawcast, a worker for each CPU",
        "pawcast_float32": "Pawcast, 1 worker in float32",
        "image_data_generator": "ImageDataGenerator and fit, the article's",
        "tf_data": "tf.data, Keras layers and fit",
        "pytorch": "PyTorch, DataLoader and torchvision",
    },
    "bulk": {
        "bulk_client": "the bulk client over HTTP",
        "in_process": "decoding and the network in one process, no HTTP",
    },
    "serve": {
        "pawcast": "Pawcast",
        "ray_serve": "Ray Serve by hand",
        "litserve": "LitServe",
        "bentoml": "BentoML",
        "fastapi": "plain FastAPI, Pillow, model.predict",
    },
}
NOTES = {
    "article": "the convolutional network of Deep Learning with Python, section 5.2",
    "fast": "trained from scratch, a small residual network",
    "best": "trained from scratch, also on pseudo-labels made by `fast`; add the minutes of `fast`",
    "transfer": "pretrained EfficientNet-Lite2, weights from ImageNet",
}


def records() -> list[dict[str, Any]]:
    """The records that `record.py` wrote, by recipe."""
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]


def results() -> list[str]:
    """The accuracy of each recipe in short, for the top README."""
    lines = [
        "| recipe | minutes on 2 cores | validation accuracy | test accuracy | |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for record in records():
        lines.append(
            f"| `{record['recipe']}` | {record['minutes']:,.0f} | {record['metrics']['val_acc']:.4f} | "
            f"**{record['test']['accuracy']:.3f}** | {NOTES.get(record['recipe'], '')} |"
        )
    return lines


def recipes() -> list[str]:
    """All that was measured of each recipe."""
    lines = [
        "| recipe | validation accuracy | test accuracy (95% interval) | minutes | CPU minutes | photos/s over HTTP | "
        "weights | hardware, date |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for record in records():
        low, high = record["test"]["interval"]
        bulk = f"{record['bulk']['photos_per_second']:,.0f}" if record.get("bulk") else "–"
        cpu = f"{record['cpu_minutes']:,.0f}" if record.get("cpu_minutes") else "–"
        trainings = (record, *record.get("repeats", ()))
        accuracies = ", ".join(f"{training['metrics']['val_acc']:.4f}" for training in trainings)
        lines.append(
            f"| `{record['recipe']}` | {accuracies} | **{record['test']['accuracy']:.3f}** "
            f"({low:.3f} to {high:.3f}) | {record['minutes']:,.0f} | {cpu} | {bulk} | "
            f"{record['weights_bytes'] / 1e6:.1f} MB | {record['hardware']}; {record['trained'][:10]} |"
        )
    return lines


def ingest(record: dict[str, Any]) -> list[str]:
    """Ingest compared with other tools, from `make bench-ingest`."""
    rates: dict[str, Any] = record["ingest"]
    ours = rates["pawcast_s3"]["photos_per_second"]
    lines = [
        f"| {record['photos']:,} photos, {record['bytes'] / 1e6:,.0f} MB | photos/s | relative to Pawcast, to S3 |",
        "| --- | ---: | ---: |",
    ]
    for name, rate in rates.items():
        version = f" ({rate['version'].rpartition(' ')[2]})" if rate["version"] else ""
        title = NAMES["ingest"][name]
        lines.append(
            f"| {title}{version} | {rate['photos_per_second']:,.0f} | {rate['photos_per_second'] / ours:.2f} |"
        )
    decode = record["decode"]
    lines += ["", "| from shards to pixels in Ray's object store | photos/s |", "| --- | ---: |"]
    lines += [f"| {NAMES['decode'][name]} | {rate['photos_per_second']:,.0f} |" for name, rate in decode.items()]
    start = {mark: times["median"] for mark, times in record["start"].items()}
    return [
        *lines,
        "",
        f"Seconds from the command `train.py --recipe article`: decoding begins after "
        f"{start['decoding_begins']:.0f} s and ends after {start['decoding_ends']:.0f} s; the first step ends after "
        f"{start['first_step']:.0f} s. {record['hardware']}; {record['measured']}.",
    ]


def train(record: dict[str, Any]) -> list[str]:
    """Training compared with other tools, from `make bench-train`."""
    contenders: dict[str, Any] = record["contenders"]
    ours = contenders["pawcast_one_worker"]["photos_per_second"]
    lines = [
        "| | photos/s | relative to the first row | training loss of the last epoch |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, contender in contenders.items():
        rate = contender["photos_per_second"]
        title = NAMES["train"][name] + _version(name, record)
        lines.append(f"| {title} | {rate:,.0f} | {rate / ours:.2f} | {contender['loss']:.3f} |")
    return [
        *lines,
        "",
        f"{record['epochs']} epochs of {record['photos']:,} photos, the first not timed. {record['hardware']}; "
        f"{record['measured']}.",
    ]


def serve(record: dict[str, Any]) -> list[str]:
    """The service compared with other servers, from `make bench-serve`."""
    bulk: dict[str, Any] = record["bulk"]
    best = [item["photos_per_second"] for item in bulk["in_process"]["rounds"]]
    lines = [
        f"| {record['photos']:,} photos | photos/s | relative to no HTTP (lowest and highest round) |",
        "| --- | ---: | ---: |",
    ]
    for name, rate in bulk.items():
        shares = [item["photos_per_second"] / other for item, other in zip(rate["rounds"], best, strict=True)]
        spread = "" if name == "in_process" else f" ({min(shares):.2f} to {max(shares):.2f})"
        title = NAMES["bulk"][name]
        lines.append(f"| {title} | {rate['photos_per_second']:,.0f} | {statistics.median(shares):.2f}{spread} |")
    many, network = record["many"], record["network"]
    lines += [
        "",
        f"| photos/s (p50, p95, p99 in ms) | {many['photos']} a request, {many['connections']} connections "
        "| one a request, 1 connection | 16 | 64 |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, loads in record["servers"].items():
        cells = " | ".join(_load(loads[key]) for key in ("many", "1", "16", "64"))
        precision = f" in {loads['precision']}" if loads["precision"] != network["precision"] else ""
        lines.append(f"| {NAMES['serve'][name]}{_version(name, record)}{precision} | {cells} |")
    share = network["fallback_share"]
    fallback = f"; {share:.1%} of Pawcast's photos fell back to float32" if share else ""
    return [
        *lines,
        "",
        f"The network: {network['name']}, {network['weights']}. All compute in {network['precision']} unless their "
        f"row says otherwise{fallback}. "
        f"{record['hardware']}; {record['measured']}.",
    ]


def _version(name: str, record: dict[str, Any]) -> str:
    version = record["versions"].get(name)
    return f" ({version})" if version else ""


def _load(rate: dict[str, Any]) -> str:
    times = ", ".join(f"{rate[key]:,.0f}" for key in ("p50", "p95", "p99"))
    return f"{rate['photos_per_second']:,.0f} ({times})"


def endurance(record: dict[str, Any]) -> list[str]:
    """The service under overload, failures and roll-outs, from `make bench-endurance`."""
    over, kill, roll, soak, bad = (record[name] for name in ("overload", "kill", "roll", "soak", "malformed"))
    statuses = ", ".join(f"{count:,} x {status}" for status, count in sorted(over["statuses"].items()))
    return [
        "| event | result |",
        "| --- | --- |",
        f"| overload: for a minute {over['offered']:,.0f} photos/s, of which it can answer {over['before']:,.0f} "
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
        f"each photo within two seconds; the slowest {bad['slowest']:.1f} s; {'a' if bad['crashed'] else 'no'} crash |",
        "",
        f"The client runs on the same machine. {record['hardware']}; {record['measured']}.",
    ]


def gpu(record: dict[str, Any]) -> list[str]:
    """Speed and GPU memory of training and serving, from `make bench-gpu`."""
    lines = [
        "| on the GPU | photos/s | peak GPU memory | GPU memory after the end | hardware, date |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for part, measured in record.items():
        precision = measured.get("engine", {}).get("precision")
        name = {
            "train": f"training `{measured['recipe']}` with its augmentation",
            "stop": f"training `{measured['recipe']}`, interrupted by Ctrl-C",
            "serve": f"{measured.get('photos', 0):,} photos over HTTP, in {precision}",
        }[part]
        rate = f"{measured['photos_per_second']:,.0f}" if "photos_per_second" in measured else "–"
        memory = " | ".join(
            f"{measured[key]:,.0f} MiB" if key in measured else "–" for key in ("peak_mib", "after_mib")
        )
        lines.append(f"| {name} | {rate} | {memory} | {measured['hardware']}; {measured['measured']} |")
    return lines


BENCHMARKS = {"gpu": gpu, "ingest": ingest, "train": train, "serve": serve, "endurance": endurance}


def tables() -> Iterator[tuple[str, list[str]]]:
    """Every table's name and lines."""
    yield "results", results()
    yield "recipes", recipes()
    for name, lines in BENCHMARKS.items():
        path = RESULTS / "benchmarks" / f"{name}.json"
        yield name, lines(json.loads(path.read_text())) if path.exists() else ["Not measured yet."]


def renewed(text: str) -> str:
    """Return a file's text with its tables made anew, each between its two markers."""
    for name, lines in tables():
        begin, end = f"<!-- {name}: made by `make results` -->", f"<!-- end of {name} -->"
        if begin not in text:
            continue
        table = "\n".join([begin, *lines, end])
        text = re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _, table=table: table, text, flags=re.DOTALL)
    return text


def main() -> None:
    texts = {path: path.read_text() for path in FILES}
    if "--check" in sys.argv:
        outdated = [str(path.relative_to(ROOT)) for path, text in texts.items() if renewed(text) != text]
        sys.exit(f"Out of date: the tables in {', '.join(outdated)}. Fix: make results" if outdated else None)
    for path, text in texts.items():
        path.write_text(renewed(text))


if __name__ == "__main__":
    main()
