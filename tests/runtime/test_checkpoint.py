"""Checkpoints: what is read is what was written, bit by bit, and a whole one is there at every moment."""

import errno
import itertools
import multiprocessing
import os
import random
import resource
import subprocess
import sys
import time
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoints import META, files_of, fill, small
from tools import same_bits

from jaxdl.core.config import config
from jaxdl.core.errors import CheckpointError
from jaxdl.runtime import checkpoint


class Pair(NamedTuple):
    first: jax.Array
    second: object


def state_of(seed=0):
    """Every kind of leaf that a run has, NaNs, infinities and negative zeros among them."""
    k = jax.random.split(jax.random.key(seed), 8)
    return Pair(
        {"w": jax.random.normal(k[0], (17, 5)).at[0].set(jnp.array([jnp.nan, jnp.inf, -jnp.inf, -0.0, 1e-45])),
         "half": jax.random.normal(k[1], (3,), jnp.bfloat16), "a.b/['c']": jax.random.normal(k[2], ())},
        [jax.random.randint(k[3], (4, 3), 0, 256).astype(jnp.uint8), jnp.array([True, False, True]), None,
         jnp.int32(seed - 2**31), Pair(k[4], {"more": jax.random.split(k[5], (2, 3)),
                                              "rbg": jax.random.key(seed, impl="rbg")}),
         jnp.zeros((0, 3)), (), np.arange(seed, seed + 6, dtype=np.uint32).reshape(2, 3)[:, ::2],
         jax.random.split(k[6], (0,))])


def shapes_of(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


# What was written


def test_every_leaf_comes_back_with_its_bits(tmp_path):
    state = state_of(3)
    checkpoint.save(tmp_path, 12, state, meta=META, keep=1)
    for like in (state_of(0), shapes_of(state)):
        step, restored = checkpoint.restore(tmp_path, like, meta=META)
        assert step == 12
        same_bits(restored, state)
        assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(restored))


def test_restored_random_keys_draw_the_same_numbers(tmp_path):
    state = {impl: jax.random.key(7, impl=impl) for impl in ("threefry2x32", "rbg", "unsafe_rbg")}
    checkpoint.save(tmp_path, 0, state, meta={}, keep=1)
    _, restored = checkpoint.restore(tmp_path, shapes_of(state))
    for impl, key in state.items():
        assert jax.random.key_impl(restored[impl]) == impl
        assert jnp.array_equal(jax.random.bits(restored[impl], (9,)), jax.random.bits(key, (9,)))


def test_numbers_that_jax_would_round_are_not_rounded(tmp_path):
    state = {"int": 2**53 + 1, "float": 0.1, "array": np.array([np.pi, 2**-1074])}
    checkpoint.save(tmp_path, 0, state, meta={}, keep=1)
    _, restored = checkpoint.restore(tmp_path, state)
    assert restored["int"] == state["int"]
    assert restored["float"] == state["float"]
    assert restored["array"].tobytes() == state["array"].tobytes()


@pytest.mark.parametrize("state", [{"empty": jnp.zeros((0, 2))}, {}])
def test_a_state_without_elements(tmp_path, state):
    checkpoint.save(tmp_path, 5, state, meta=META, keep=1)
    step, restored = checkpoint.restore(tmp_path, state)
    assert step == 5
    same_bits(restored, state)


def test_what_is_no_array_is_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match=r"\['b'\]\[1\] is a str"):
        checkpoint.save(tmp_path, 0, {"a": jnp.ones(2), "b": [1, "x"]}, meta={}, keep=1)
    assert checkpoint.steps(tmp_path) == []


def test_the_estimate_counts_every_element():
    state = {"f": jnp.zeros((3, 5)), "h": jnp.zeros(7, jnp.bfloat16), "u": jnp.zeros(9, jnp.uint8),
             "k": jax.random.split(jax.random.key(0), 2), "e": jnp.zeros((0, 4)), "n": None}
    assert checkpoint.estimate_bytes(state) == 60 + 14 + 9 + 16
    assert checkpoint.estimate_bytes(shapes_of(state)) == 60 + 14 + 9 + 16


def test_a_restored_state_needs_no_new_program(tmp_path):
    @jax.jit
    def init(key):
        return {"w": jax.random.normal(key, (3,)), "k": key, "n": jnp.int32(0), "e": jnp.zeros((0,))}

    @jax.jit
    def step(s):
        return {"w": s["w"] * 2, "k": jax.random.fold_in(s["k"], 1), "n": s["n"] + 1, "e": s["e"]}

    fresh = init(jax.random.key(0))
    compiled = step.lower(shapes_of(fresh)).compile()
    wanted = step(fresh)
    programs = step._cache_size()
    checkpoint.save(tmp_path, 1, fresh, meta={}, keep=1)
    _, restored = checkpoint.restore(tmp_path, shapes_of(fresh))
    same_bits(step(restored), wanted)
    assert step._cache_size() == programs
    same_bits(compiled(restored), wanted)


def test_a_state_can_be_donated_as_soon_as_it_is_saved(tmp_path):
    overwrite = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 - 1, s), donate_argnums=0)
    state = {"big": jax.random.normal(jax.random.key(0), (300_000,)), "small": jnp.arange(5)}
    wanted = jax.tree.map(lambda x: np.array(x, copy=True), state)
    places = {name: x.unsafe_buffer_pointer() for name, x in state.items()}
    checkpoint.save(tmp_path, 1, state, meta={}, keep=1)
    after = overwrite(state)
    assert all(x.is_deleted() for x in state.values())
    assert {name: x.unsafe_buffer_pointer() for name, x in after.items()} == places  # in place: no host view was left
    _, restored = checkpoint.restore(tmp_path, wanted)
    same_bits(restored, wanted)
    places = {name: x.unsafe_buffer_pointer() for name, x in restored.items()}
    assert {name: x.unsafe_buffer_pointer() for name, x in overwrite(restored).items()} == places


def test_a_small_save_and_restore_are_quick(tmp_path):
    fill(tmp_path, 0)  # imports Orbax
    spent = []
    for step in range(1, 6):
        began = time.perf_counter()
        fill(tmp_path, step)
        checkpoint.restore(tmp_path, small(0))
        spent.append(time.perf_counter() - began)
    assert min(spent) < 0.3


# Many steps


def test_the_newest_are_kept(tmp_path):
    fill(tmp_path, 2, 10, 1, keep=3)
    assert checkpoint.steps(tmp_path) == [1, 2, 10]
    fill(tmp_path, 11, keep=3)
    assert checkpoint.steps(tmp_path) == [2, 10, 11]
    fill(tmp_path, 12, keep=1)
    assert checkpoint.steps(tmp_path) == [12]
    assert os.listdir(tmp_path) == ["12"]


def test_one_just_written_is_kept_even_if_later_ones_are_there(tmp_path):
    fill(tmp_path, 20, 30, keep=2)
    fill(tmp_path, 10, keep=2)
    assert checkpoint.steps(tmp_path) == [10, 30]


def test_each_step_can_be_read(tmp_path):
    fill(tmp_path, 1, 2)
    for step in (1, 2):
        found, restored = checkpoint.restore(tmp_path, small(0), step=step)
        assert found == step
        same_bits(restored, jax.tree.map(jnp.asarray, small(step)))
    assert checkpoint.restore(tmp_path, small(0))[0] == 2


def test_saving_a_step_again_replaces_it_and_never_leaves_none(tmp_path, monkeypatch):
    whole_at = []
    write, remove = checkpoint.write, checkpoint._remove
    monkeypatch.setattr(checkpoint, "write", lambda *a: (whole_at.append(checkpoint.steps(tmp_path)), write(*a)))
    monkeypatch.setattr(checkpoint, "_remove", lambda p: (remove(p), whole_at.append(checkpoint.steps(tmp_path))))
    like = small(0)
    for k in range(4):
        path = checkpoint.save(tmp_path, 7, small(k), meta={"k": k}, keep=1)
        assert checkpoint.steps(tmp_path) == [7]
        assert os.listdir(tmp_path) == [path.name]
        same_bits(checkpoint.restore(tmp_path, like)[1], jax.tree.map(jnp.asarray, small(k)))
        assert checkpoint.read_meta(tmp_path, 7) == {"k": k}
    assert whole_at == [[]] + 6 * [[7]]


def test_leftovers_are_removed_and_what_is_not_ours_stays(tmp_path):
    fill(tmp_path, 1)
    for name in ("2.orbax-checkpoint-tmp", "3.1.orbax-checkpoint-tmp-17", "4.old"):
        (tmp_path / name / "arrays").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    (tmp_path / "5").mkdir()  # named like a checkpoint, but without a manifest
    assert checkpoint.steps(tmp_path) == [1]
    fill(tmp_path, 6, keep=1)
    assert sorted(os.listdir(tmp_path)) == ["5", "6", "notes"]
    fill(tmp_path, 5, keep=1)
    assert checkpoint.restore(tmp_path, small(0))[0] == 5


def test_a_removal_that_is_interrupted_leaves_no_half_checkpoint(tmp_path, monkeypatch):
    fill(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "rmtree", lambda path, **_: (path / "arrays" / "_METADATA").unlink())
        fill(tmp_path, 2, keep=1)
    assert checkpoint.steps(tmp_path) == [2]
    fill(tmp_path, 3, keep=1)
    assert os.listdir(tmp_path) == ["3"]


# What cannot be read


def test_where_there_is_nothing(tmp_path):
    assert checkpoint.steps(tmp_path / "none") == []
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(CheckpointError, match="there is no checkpoint in"):
            checkpoint.restore(folder, small(0))
    fill(tmp_path, 1, 3)
    for read in (lambda: checkpoint.restore(tmp_path, small(0), step=2), lambda: checkpoint.read_meta(tmp_path, 2)):
        with pytest.raises(CheckpointError, match=r"no checkpoint of step 2 in .*there are: 1, 3"):
            read()


LIKE = {"w": jnp.zeros((2, 3)), "n": jnp.int32(0), "k": jax.random.key(0)}


@pytest.mark.parametrize(("like", "message"), [
    (LIKE | {"w": jnp.zeros((3, 2))}, r"leaf \['w'\] is float32\[2,3\] there, float32\[3,2\] here"),
    (LIKE | {"w": jnp.zeros((2, 3), jnp.bfloat16)}, r"leaf \['w'\] is float32\[2,3\] there, bfloat16\[2,3\] here"),
    (LIKE | {"n": jnp.uint32(0)}, r"leaf \['n'\] is int32\[\] there, uint32\[\] here"),
    (LIKE | {"n": 0}, r"leaf \['n'\] is int32\[\] there, int64\[\] here"),
    (LIKE | {"more": jnp.zeros(1)}, r"leaf \['more'\] is absent there, float32\[1\] here"),
    ({"w": LIKE["w"], "k": LIKE["k"]}, r"leaf \['n'\] is int32\[\] there, absent here"),
    (LIKE | {"k": jax.random.key(0, impl="rbg")}, r"leaf \['k'\] is key<fry>\[\] there, key<rbg>\[\] here"),
    (LIKE | {"k": jax.random.key_data(jax.random.key(0))}, r"leaf \['k'\] is key<fry>\[\] there, uint32\[2\] here"),
    (Pair(LIKE["w"], LIKE["n"]), r"leaf \.first is absent there"),
])
def test_another_structure_is_refused_before_arrays_are_read(tmp_path, monkeypatch, like, message):
    checkpoint.save(tmp_path, 1, LIKE, meta={}, keep=1)
    monkeypatch.setattr(checkpoint, "read_arrays", lambda *a: pytest.fail("arrays were read"))
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoint.restore(tmp_path, like)
    assert not isinstance(caught.value, checkpoint.DamagedError)


def test_other_settings_are_named_with_both_values(tmp_path):
    fill(tmp_path, 1)
    checkpoint.restore(tmp_path, small(0), meta={"config": {"gamma": 0.99, "sizes": (64, 64)}})  # "digest" is not asked
    other = {"config": {"gamma": 0.9, "sizes": [64, 64], "tau": 1}, "env": "x"}
    with pytest.raises(CheckpointError, match=r"another run: config.gamma is 0.99 there, 0.9 here; "
                                              r"config.tau is absent there, 1 here; env is absent there, x here"):
        checkpoint.restore(tmp_path, small(0), meta=other)
    with pytest.raises(CheckpointError, match=r"config.gamma is 0.99 there, absent here"):
        checkpoint.restore(tmp_path, small(0), meta={"config": {"sizes": [64, 64]}})
    assert checkpoint.read_meta(tmp_path, 1) == META


@config
class Settings:
    renamed: ClassVar[dict[str, str]] = {"rate": "learning_rate"}

    learning_rate: float = 0.5
    added: int = 3


def test_settings_of_an_earlier_version_are_those_of_the_fields_they_became(tmp_path):
    checkpoint.save(tmp_path, 1, small(1), meta={"config": {"rate": 0.25}}, keep=1)
    checkpoint.restore(tmp_path, small(0), meta={"config": Settings(learning_rate=0.25)})
    with pytest.raises(CheckpointError, match=r"config.added is 3 there, 4 here; config.learning_rate is 0.25 there, 0.5 here"):
        checkpoint.restore(tmp_path, small(0), meta={"config": Settings(added=4)})
    checkpoint.save(tmp_path, 2, small(2), meta={"config": Settings()}, keep=1)
    assert checkpoint.read_meta(tmp_path, 2) == {"config": {"learning_rate": 0.5, "added": 3}}


# What cannot be written


@pytest.mark.parametrize("limit", [0, 300, 50_000])
def test_a_write_that_the_system_refuses_leaves_what_was_there(tmp_path, limit):
    fill(tmp_path, 1, 2, keep=2)
    many = {str(i): np.random.default_rng(i).normal(size=4000) for i in range(20)}
    before = {f: f.read_bytes() for f in files_of(tmp_path)}
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))  # files may not grow beyond this: a real failing write
    try:
        with pytest.raises(CheckpointError) as caught:
            checkpoint.save(tmp_path, 3, many, meta=META, keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert str(caught.value) == f"the checkpoint of step 3 cannot be written into {tmp_path}: File too large"
    assert {f: f.read_bytes() for f in files_of(tmp_path)} == before
    assert checkpoint.steps(tmp_path) == [1, 2]
    same_bits(checkpoint.restore(tmp_path, small(0))[1], jax.tree.map(jnp.asarray, small(2)))
    fill(tmp_path, 3, keep=1)
    assert os.listdir(tmp_path) == ["3"]


@pytest.mark.parametrize("error", [
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    ValueError('RESOURCE_EXHAUSTED: Error writing "0/0" at local file\n "d": Failed [os_error_code=\'28\']'),
])
def test_a_full_disk(tmp_path, monkeypatch, error):
    fill(tmp_path, 1)

    def write_half(path, *rest):
        half = path.with_name(path.name + ".orbax-checkpoint-tmp")
        half.mkdir()
        (half / "d").write_bytes(b"half")
        raise error

    monkeypatch.setattr(checkpoint, "write", write_half)
    with pytest.raises(CheckpointError, match=r"step 2 cannot be written into .*: No space left on device$"):
        fill(tmp_path, 2, keep=1)
    assert os.listdir(tmp_path) == ["1"]
    assert checkpoint.restore(tmp_path, small(0))[0] == 1


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"step 1 cannot be written into .*file/checkpoints: Not a directory$"):
        fill(tmp_path / "file" / "checkpoints", 1)

    def read_only(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "mkdir", read_only)
    with pytest.raises(CheckpointError, match=r"step 1 cannot be written into .*: Read-only file system$"):
        fill(tmp_path / "new", 1)


# Interruptions


def save_for_ever(folder, first, done):
    for step in itertools.count(first):
        for _ in range(2):  # each step also replaces itself
            fill(folder, step, keep=2)
            done.value = step


def test_killed_at_any_moment_a_whole_checkpoint_is_there(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["jaxdl.runtime.checkpoint", "orbax.checkpoint"])
    rng, step, leftovers = random.Random(0), 1, 0
    fill(tmp_path, step)
    for _ in range(12):
        done = context.Value("q", step, lock=False)
        child = context.Process(target=save_for_ever, args=(tmp_path, step, done))
        child.start()
        deadline = time.monotonic() + 20
        while done.value <= step and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.1))
        child.kill()
        child.join()
        assert done.value > step, "the child never saved"
        whole = checkpoint.steps(tmp_path)
        assert whole[-1] in (done.value, done.value + 1)
        for step in whole:
            same_bits(checkpoint.restore(tmp_path, small(0), step=step)[1], jax.tree.map(jnp.asarray, small(step)))
        leftovers += len(os.listdir(tmp_path)) > len(whole)
    assert leftovers, "no kill fell into a save"
    fill(tmp_path, step + 1, keep=2)
    assert checkpoint.steps(tmp_path) == [step, step + 1]
    assert len(os.listdir(tmp_path)) == 2


def test_nothing_is_printed_and_orbax_is_imported_only_when_it_is_needed(tmp_path):
    program = """
import resource, sys
from jaxdl.runtime import checkpoint
from jaxdl.core.errors import CheckpointError
assert not any(name.startswith(("orbax", "tensorstore")) for name in sys.modules)
assert checkpoint.steps(sys.argv[1]) == []
import numpy as np
state = {str(i): np.ones(400 + i) for i in range(30)}
for step in (1, 2):
    path = checkpoint.save(sys.argv[1], step, state, meta={}, keep=1)
assert "orbax" in sys.modules
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, -1))
for step in range(10, 15):
    try:
        checkpoint.save(sys.argv[1], step, {k: np.random.normal(size=4000) for k in state}, meta={}, keep=1)
    except CheckpointError:
        assert checkpoint.steps(sys.argv[1]) == [2]
    else:
        sys.exit(8)
for file in path.rglob("d/*"):
    file.write_bytes(b"")
try:
    checkpoint.restore(sys.argv[1], state)
except checkpoint.DamagedError:
    sys.exit(7)
"""
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (7, "", "")
