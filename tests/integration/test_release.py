"""After training ends, fails or is interrupted, its processes are gone and its GPUs are free again.

The head is told that its node has two GPUs, which is enough for Ray to place workers on them and to
release them. `test_gpu.py` looks at the memory of a real GPU.
"""

from __future__ import annotations

import signal

import pytest

from tests.support.ray_head import FOR_EVER, TRAIN, is_training, wait_until_released
from tests.support.services import result_of, started_job, started_process, wait_for


def test_after_the_end(ready):
    done = ready.run("python", "jobs/train.py", *TRAIN, "--set", "epochs=1", "--json")
    assert done.returncode == 0, done.stderr
    assert result_of(done.stdout)["epochs"] == 1
    wait_until_released(ready)


@pytest.mark.long
def test_after_a_failure(ready):
    done = ready.run("python", "jobs/train.py", *TRAIN, "--set", "learning_rate=3e38", "--set", "warmup_epochs=0")
    assert done.returncode == 10, done.stderr
    assert "became NaN or infinite" in done.stderr
    assert "Traceback" not in done.stderr
    wait_until_released(ready)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_after_an_interrupt(ready, number):
    with started_job("train.py", *TRAIN, *FOR_EVER, environment=ready.environment) as process:
        wait_for(lambda: is_training(ready), 120)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    wait_until_released(ready)


@pytest.mark.long
def test_an_interrupted_run_on_a_private_ray_ends_in_order(ready):
    environment = {key: value for key, value in ready.environment.items() if key != "RAY_ADDRESS"}
    arguments = ("--dataset", "pets", "--recipe", "smoke", "--set", "image_size=48", "--workers", "1", *FOR_EVER)
    history = ready.store / "runs" / "ended" / "history.json"
    with started_job("train.py", *arguments, "--run", "ended", environment=environment) as process:
        wait_for(history.exists, 120)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    # Ray's own handler would write a stack trace that names the signal.
    assert "SIGTERM" not in errors


@pytest.mark.long
def test_after_the_driver_is_killed(ready):
    with started_job("train.py", *TRAIN, *FOR_EVER, environment=ready.environment) as process:
        wait_for(lambda: is_training(ready), 120)
        process.kill()
        process.communicate(timeout=60)
    wait_until_released(ready)


def test_a_busy_cluster_is_reported_and_nothing_is_left(ready, monkeypatch):
    monkeypatch.setitem(ready.environment, "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "5")
    code = (
        "import ray, time; ray.init(logging_level='ERROR', log_to_driver=False)\n"
        "@ray.remote(num_gpus=2, num_cpus=0)\nclass Holder:\n    def there(self): return True\n"
        "holder = Holder.remote(); ray.get(holder.there.remote()); print('held', flush=True); time.sleep(600)"
    )
    with started_process("-c", code, environment=ready.environment) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        done = ready.run("python", "jobs/train.py", *TRAIN)
        holder.kill()
    assert done.returncode == 8, done.stderr
    assert "0 GPUs free" in done.stderr
    assert "Traceback" not in done.stderr
    wait_until_released(ready)
