"""Several processes train one run: two of two virtual devices each, joined over the loopback, beside one of four."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from tools import assert_near

from jaxdl.agents import dqn, ppo
from jaxdl.core import processes
from jaxdl.core.errors import CheckpointError, UserError
from jaxdl.core.types import DataSpec, Examples
from jaxdl.generative import vae
from jaxdl.rl import envs
from jaxdl.rl.host_driver import make_host_driver
from jaxdl.runtime import checkpoint, fit
from jaxdl.runtime.device_driver import make_device_driver

ROOT = Path(__file__).parents[2]
SPEC = DataSpec("small", 40, (4, 4, 1))
STEPS = {"dqn": 160, "vae": 20, "ppo": 320, "ppo on the host": 320}  # few: what differs in the last bit grows in environments


def driver_of(name):
    if name == "dqn":
        config = dqn.Config(num_envs=4, buffer_size=80, batch_size=8, learning_starts=40, total_steps=2000, hidden_sizes=(4,),
                            prioritized=True)
        return make_device_driver(dqn.make_run, [config], None, [0], quick=True, devices=4)
    if name == "vae":
        images = np.random.default_rng(0).integers(0, 256, (43, 4, 4, 1)).astype(np.uint8)
        config = vae.Config(latent_size=2, hidden_sizes=(4,), batch_size=8, total_steps=50)
        return make_device_driver(lambda c, **axis: vae.make_run(c, SPEC, **axis), [config], Examples(images), [0], quick=True,
                            devices=4)
    config = ppo.Config(num_envs=4, rollout_steps=20, num_minibatches=2, num_epochs=1, total_steps=2000)
    if name == "ppo":
        return make_device_driver(ppo.make_run, [config], None, [0], quick=True, devices=4)
    venv = envs.make_host("CartPole-v1", 4 // processes.count(), "sync")
    spec = envs.spec("CartPole-v1")
    return make_host_driver(lambda c, **axis: ppo.make_host_run(c, spec, **axis), config, venv, 0, quick=True, devices=4)


def train_all(folder, names):
    for name in names:
        config = fit.Config(checkpoint_every=STEPS[name] // 2, keep_checkpoints=5)
        fit.fit(driver_of(name), config, STEPS[name], folder=folder / name)


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def started(argv, process, port, **more):
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"PYTHONPATH": str(ROOT / "tests")} | more
    return subprocess.Popen([sys.executable, *argv, str(port), str(process)], env=env, cwd=ROOT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def both_ways(make, names):
    """Folders of what two processes trained, and of what one did."""
    two, one = make("two"), make("one")
    port = free_port()
    both = [started([__file__, str(two), ",".join(names)], i, port) for i in range(2)]
    train_all(one, names)
    for process in both:
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said
    return two, one


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return both_ways(tmp_path_factory.mktemp, ("dqn", "vae"))


@pytest.fixture(scope="module")
def more_folders(tmp_path_factory):
    return both_ways(tmp_path_factory.mktemp, ("ppo", "ppo on the host"))


@pytest.mark.parametrize("name", [pytest.param("dqn", marks=pytest.mark.slow), "vae"])
def test_two_processes_train_what_one_does(folders, name):
    same(folders, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ppo", "ppo on the host"])
def test_two_processes_train_the_policy_that_one_does(more_folders, name):
    same(more_folders, name)


def same(folders, name):
    like = driver_of(name).like
    (step, two), (same_step, one) = (checkpoint.restore(f / name / "checkpoints", like) for f in folders)
    assert step == same_step == two.t
    assert_near(two.learner, one.learner)
    for a, b in zip(jax.tree.leaves(two.source), jax.tree.leaves(one.source), strict=True):
        if not jax.numpy.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(np.float64(a), np.float64(b), rtol=1e-4, atol=1e-5)


def test_the_checkpoint_is_one_and_each_process_wrote_its_part(folders):
    path = folders[0] / "dqn" / "checkpoints"
    assert sorted(p.name for p in path.iterdir()) == ["160", "160.parts", "80", "80.parts"]
    assert checkpoint.steps(path) == [80, 160]
    assert [p.name for p in (path / "160.parts").iterdir()] == ["1"]
    assert (folders[0] / "dqn" / "metrics.jsonl").read_text().count("\n") == (
        folders[1] / "dqn" / "metrics.jsonl").read_text().count("\n")


def damaged(folder, tmp_path, change):
    copy = tmp_path / "checkpoints"
    shutil.copytree(folder / "vae" / "checkpoints", copy)
    part = next(p for p in (copy / "20.parts" / "1").iterdir() if p.stat().st_size > 128)
    change(part)
    with pytest.raises(CheckpointError) as e:
        checkpoint.restore(copy, driver_of("vae").like)
    return str(e.value)


def test_a_part_with_other_bits_is_refused(folders, tmp_path):
    def flip(part):
        data = bytearray(part.read_bytes())
        data[-1] ^= 1
        part.write_bytes(data)

    said = damaged(folders[0], tmp_path, flip)
    assert "has other bits than were written" in said
    assert "the newest whole one before it, step 10" in said


@pytest.mark.parametrize("change", [Path.unlink, lambda p: p.write_bytes(b"x"),
                                    lambda p: p.write_bytes(p.read_bytes() + 5000 * b"x")], ids=["gone", "cut", "long"])
def test_a_part_that_cannot_be_read_is_refused(folders, tmp_path, change):
    assert "part" in damaged(folders[0], tmp_path, change)


def test_a_run_of_two_processes_goes_on_in_one(folders, tmp_path):
    shutil.copytree(folders[0] / "dqn", tmp_path / "run")
    config = fit.Config(stop_step=240)
    result = fit.fit(driver_of("dqn"), config, 240, folder=tmp_path / "run", resume=True)
    assert result.step == 240
    assert not (tmp_path / "run" / "checkpoints" / "240.parts").exists()


def test_what_names_the_processes_goes_together():
    with pytest.raises(UserError, match="go together"):
        processes.join("localhost:1", None, 0)
    with pytest.raises(UserError, match="process_id must lie between 0 and num_processes - 1, got 2 of 2"):
        processes.join("localhost:1", 2, 2)


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1", "127.0.0.1:", ":123", "127.0.0.1:99999", "127.0.0.1:0",
                                     "127.0.0.1:abc", "127.0.0.1:-1", "::1", "::1:80", "", "127.0.0.1:٣"])
def test_an_address_that_is_none_is_refused_at_once(address):
    with pytest.raises(UserError, match="coordinator must be HOST:PORT"):
        processes.join(address, 2, 0)


def test_the_first_process_listens_on_the_loopback_alone_where_the_address_is_one(monkeypatch):
    port = free_port()
    assert processes._meet(f"127.0.0.1:{port}", True) == f"127.0.0.1:{port}"
    assert processes._meet(f"localhost:{port}", True) in (f"127.0.0.1:{port}", f"[::1]:{port}")
    monkeypatch.setattr(processes, "_answering", lambda *_: "192.0.2.1")
    assert processes._meet(f"node-1:{port}", False) is None


def test_a_port_that_is_taken_is_refused_by_the_process_that_listens_there():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match=r"process 0 cannot listen on port .*Address already in use"):
            processes._meet(address, True)
        assert processes._meet(address, False) == address  # the others find somebody there


@pytest.mark.parametrize(("host", "words"), [
    ("127.0.0.1", "nobody listens there"), ("nobody.invalid", "its host is not known")])
def test_nobody_is_waited_for_longer_than_is_said(monkeypatch, host, words):
    monkeypatch.setattr(processes, "WAIT_S", 0.3)
    began = time.monotonic()
    with pytest.raises(processes.LostError, match=f"{words}.* tried for 0.3 seconds"):
        processes.join(f"{host}:{free_port()}", 2, 1)
    assert time.monotonic() - began < 30


def test_a_run_that_nobody_announces_is_refused(tmp_path):
    words = ["-m", "jaxdl", "train", "ppo", "--distributed", "--out", str(tmp_path / "run")]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 2
    assert "no cluster announces the processes of this run" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_others_end_when_a_process_is_killed(tmp_path):
    out = tmp_path / "run"
    words = ["-m", "jaxdl", "train", "ppo", "--total-steps", "200000000", "--checkpoint-every", "4096",
             "--quick-compile", "--devices", "4", "--out", str(out), "--distributed", "--num-processes", "2", "--coordinator"]
    port = free_port()
    both = []
    for i in range(2):
        env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
        both.append(subprocess.Popen([sys.executable, *words, f"localhost:{port}", "--process-id", str(i)], cwd=ROOT, text=True,
                                     env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True))
    while not checkpoint.steps(out / "checkpoints"):
        assert all(p.poll() is None for p in both)
        time.sleep(0.5)
    os.killpg(both[1].pid, signal.SIGKILL)
    began = time.monotonic()
    said, _ = both[0].communicate(timeout=60)
    assert time.monotonic() - began < 3 * processes.HEARTBEAT_S
    assert both[0].returncode == 1
    assert said.strip().splitlines()[-1].startswith("jaxdl: another process of the run ended")
    assert "Check failure" not in said
    from jaxdl.experiments.tasks import load_run as load

    assert load(out).step == checkpoint.steps(out / "checkpoints")[-1]


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 2)
    processes.join(f"localhost:{sys.argv[3]}", 2, int(sys.argv[4]))
    train_all(Path(sys.argv[1]), sys.argv[2].split(","))
