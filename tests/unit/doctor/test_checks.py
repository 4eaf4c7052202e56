"""The doctor's judgements, each on what it would be given."""

from __future__ import annotations

import subprocess
import sys
from email.utils import formatdate
from pathlib import Path

import pytest
from ray import cloudpickle

from pawcast.doctor import cluster, join, machine, s3, store, versions
from pawcast.doctor.finding import Finding, Notes, exit_code
from pawcast.errors import ClusterError, StoreError
from pawcast.store import open_store
from pawcast.store.folder import FolderStore


def only(notes: Notes) -> Finding:
    (finding,) = notes.findings
    return finding


def test_the_exit_code_is_that_of_the_worst():
    fine, stored, joined = Notes("a"), Notes("b", StoreError), Notes("c", ClusterError)
    fine.ok("x", "well")
    fine.warning("y", "so so", "do this")
    assert exit_code(fine.findings) == 0
    stored.problem("x", "bad", "do that")
    assert exit_code([*fine.findings, *stored.findings]) == 6
    joined.problem("x", "bad", "do that")
    assert exit_code([*joined.findings, *stored.findings]) == 8


def test_an_error_keeps_its_words_its_fix_and_its_code():
    notes = Notes("versions")
    notes.error("x", StoreError("Not there", received=3, fix="make it"))
    assert only(notes) == Finding("versions", "x", "problem", "Not there. Received: 3.", "make it.", 6)


def test_a_broken_check_is_a_problem_of_its_own():
    notes = Notes("store", StoreError)
    with notes.guarded("place"):
        raise ZeroDivisionError("by nought\nand more")
    assert only(notes).seen == "ZeroDivisionError: by nought"


def test_requirements_that_do_not_hold():
    have = {"ray": "2.60.0", "keras": "3.1.0", "odd-one": "1.0rc1"}
    lines = [
        "ray[serve,train]==2.60.0", "keras>=3.15.1", "tensorflow>=2.21", "odd_one>=1.0rc1", "mypy>=2; extra == 'dev'",
        "pywin32; sys_platform == 'nowhere'",
    ]  # fmt: skip
    found = versions.unmet(lines, lambda name: have.get(name.replace("_", "-")))
    assert found == [("keras", "3.1.0", ">=3.15.1"), ("tensorflow", None, ">=2.21")]


def test_this_environment_holds():
    assert {finding.level for finding in versions.check()} == {"ok"}


@pytest.mark.parametrize(
    ("ahead", "level", "words"),
    [
        (0, "ok", "ours"),
        (-30, "ok", "30 s behind"),
        (90, "warning", "90 s ahead"),
        (-1_200, "problem", "15 minutes"),
    ],
)
def test_clocks(ahead, level, words):
    now = 1_900_000_000.0
    found, seen = s3.skew(formatdate(now + ahead, usegmt=True), now)
    assert found == level
    assert words in seen


@pytest.mark.parametrize("date", [None, "", "yesterday"])
def test_a_server_without_a_clock(date):
    assert s3.skew(date, 0.0)[0] == "warning"


class Careless(FolderStore):
    """A store that takes every write, as servers do that don't know conditional requests."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self.put(key, data)
        return True

    def put_if_match(self, key: str, data: bytes, etag: str) -> bool:
        self.put(key, data)
        return True


def test_a_store_that_ignores_conditions(tmp_path):
    notes = Notes("store", StoreError)
    with store.scratch(place := Careless(str(tmp_path))) as prefix:
        store.try_out(place, prefix, notes)
    wrong = {finding.check: finding for finding in notes.findings if finding.level != "ok"}
    assert set(wrong) == {"put if new", "put if unchanged"}
    assert all("WRITES CAN BE LOST" in finding.seen for finding in wrong.values())
    assert all("one job at a time" in finding.fix and finding.exit_code == 6 for finding in wrong.values())


class Broken(FolderStore):
    def get(self, key: str) -> bytes:
        return b"something else"

    def delete(self, key: str) -> None:
        raise StoreError("Never")


def test_wrong_bytes_and_a_refused_delete(tmp_path):
    notes = Notes("store", StoreError)
    with store.scratch(place := Broken(str(tmp_path))) as prefix:
        store.try_out(place, prefix, notes)
    assert {"get", "delete"} <= {finding.check for finding in notes.findings if finding.level == "problem"}
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_behind_even_after_a_failure(tmp_path):
    place = open_store(str(tmp_path / "not" / "there"))

    def interrupted() -> None:
        with store.scratch(place) as prefix:
            place.put(f"{prefix}/a/b", b"x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())
    kept = open_store(str(tmp_path / "kept"))
    kept.put("k", b"x")
    with store.scratch(kept) as prefix:
        kept.put(f"{prefix}/a", b"x")
    assert list(kept.list("")) == ["k"]


def test_tokens(tmp_path):
    file = tmp_path / "auth_token"

    def level(**environment: str) -> str:
        notes = Notes("ray", ClusterError)
        cluster.token(environment, file, notes)
        return only(notes).level

    assert level() == "ok"
    assert level(RAY_AUTH_MODE="token") == "problem"
    assert level(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="x") == "ok"
    file.write_text("x")
    assert level() == "warning"
    assert level(RAY_AUTH_MODE="token") == "ok"
    assert level(RAY_AUTH_MODE="disabled") == "ok"


def test_a_small_shm():
    notes = Notes("ray", ClusterError)
    cluster.shared_memory(64 << 20, 64 << 20, notes)
    assert "--shm-size" in only(notes).fix


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            "fpu avx avx2 avx512f avx512_bf16 amx_bf16",
            "AVX2, AVX-512, AVX512-BF16, AMX-BF16; precision=auto computes in bfloat16",
        ),
        ("fpu avx avx2 avx512f", "AVX2, AVX-512; precision=auto computes in float32"),
        ("fpu", "no AVX2"),
    ],
)
def test_cpus(flags, words):
    notes = Notes("machine")
    machine.cpu({"processor": "0", "flags": flags}, 4, notes)
    assert words in only(notes).seen


def test_what_this_system_does_not_tell():
    notes = Notes("machine")
    machine.cpu({}, 4, notes)
    machine.memory(None, None, notes)
    assert [finding.level for finding in notes.findings] == ["ok", "ok"]
    assert all("unknown" in finding.seen for finding in notes.findings)


@pytest.mark.parametrize(
    ("available", "limit", "level"),
    [
        (8_000_000, None, "ok"),
        (8_000_000, "max\n", "ok"),
        (8_000_000, "2000000000\n", "warning"),
        (10, None, "warning"),
    ],
)
def test_memory(available, limit, level):
    notes = Notes("machine")
    machine.memory(f"MemTotal: 16000000 kB\nMemAvailable: {available} kB\nHugePages_Total: 0\n", limit, notes)
    assert only(notes).level == level


def test_gpus():
    listed = [machine._described("NVIDIA H100 80GB HBM3, 550.54.15, 9.0, 81559 MiB")]
    assert listed == ["NVIDIA H100 80GB HBM3, driver 550.54.15, compute capability 9.0, 81559 MiB"]
    seen = [{"device_name": "NVIDIA H100", "compute_capability": (9, 0)}]
    for arguments, level, words in [
        (([], []), "ok", "none"),
        ((seen, listed), "ok", "driver 550"),
        ((seen, []), "ok", "compute capability 9.0"),
        (([], listed), "warning", "TensorFlow doesn't see it"),
        (([], ["nvidia-smi fails: no driver"]), "warning", "no driver"),
    ]:
        notes = Notes("machine")
        machine.gpus(*arguments, notes)
        assert only(notes).level == level
        assert words in only(notes).seen


def test_nodes():
    mine = {"python": "3.12.1", "ray": "2.60.0"}

    def judged(tried: bool = True, **answer: object) -> list[Finding]:
        notes = Notes("ray", ClusterError)
        join.check_node("node a", {"versions": mine, "import": None, "store": None, **answer}, mine, notes, tried=tried)
        return notes.findings

    assert [finding.level for finding in judged()] == ["ok"]
    assert "not tried" in judged(tried=False)[0].seen
    (other,) = judged(versions={"python": "3.12.1", "ray": None})
    assert (other.seen, other.exit_code) == ("ray None (here 2.60.0)", 8)
    assert "can't be imported" in judged(**{"import": "No module"})[0].seen
    assert "ray start" in judged(store="There are no credentials")[0].fix
    assert judged(store="Refused. Fix: renew them.")[0].fix == "renew them."


def test_a_node_without_pawcast_answers_all_the_same(tmp_path):
    task = tmp_path / "task"
    task.write_bytes(cloudpickle.dumps(join.probe()))
    code = (
        "import sys, pickle, pathlib; sys.modules['pawcast'] = None;"
        "look = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes());"
        "answer = look(('pillow', 'no-such-package'), '/nowhere', 'k', b'x');"
        "assert answer['import'] and answer['versions']['pillow'] and answer['versions']['no-such-package'] is None"
    )
    assert subprocess.run([sys.executable, "-c", code, task], check=False).returncode == 0


def test_a_node_that_sees_another_folder(tmp_path):
    answer = join.probe()((), str(tmp_path / "elsewhere"), "doctor-x/mark", b"x")
    assert "has no doctor-x/mark" in answer["store"]
    assert not Path(tmp_path / "elsewhere").exists()
