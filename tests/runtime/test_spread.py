"""Runs that several devices share: the driver on a mesh, and what becomes of a run that goes on with another number of them."""

import functools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import arrays, jit

from jaxdl.agents import dqn, ppo
from jaxdl.core import axis
from jaxdl.core.errors import UserError
from jaxdl.core.types import DataSpec, Examples
from jaxdl.generative import vae
from jaxdl.rl.host_driver import make_host_driver
from jaxdl.rl.replay import sampling, storage, sum_tree
from jaxdl.rl.types import EnvSpec, Stack, TimeStep
from jaxdl.runtime import checkpoint, fit, mesh
from jaxdl.runtime.device_driver import make_device_driver

DATA = Examples(jnp.asarray(np.random.default_rng(0).integers(0, 256, (43, 4, 4, 1)), jnp.uint8))
SPEC = DataSpec("small", 43, (4, 4, 1))
SMALL = {"hidden_sizes": (4,)}


def dqn_config(**changed):
    return dqn.Config(**{"num_envs": 4, "buffer_size": 80, "batch_size": 8, "learning_starts": 16, "total_steps": 2000} | SMALL
                      | changed)


RUNS = {
    "dqn": (dqn.make_run, dqn_config(), None),
    "prioritized": (dqn.make_run, dqn_config(prioritized=True, n_steps=2, gradient_steps=2), None),
    "ppo": (ppo.make_run, ppo.Config(num_envs=4, rollout_steps=8, num_minibatches=2, total_steps=2000, normalize_reward=True),
            None),
    "vae": (lambda c, **axis: vae.make_run(c, SPEC, **axis),
            vae.Config(latent_size=2, hidden_sizes=(4,), batch_size=8, total_steps=50), DATA),
}


def driver_of(name, devices, seeds=(0,), **settings):
    make_run, config, data = RUNS[name]
    return make_device_driver(make_run, [config], data, seeds, quick=True, devices=devices, **settings)


def on_host(tree):
    return jax.tree.map(lambda x: jax.random.wrap_key_data(np.asarray(jax.random.key_data(x)))
                        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else jnp.asarray(np.asarray(x)), tree)


@pytest.mark.parametrize("name", ["prioritized", "vae", *(pytest.param(n, marks=pytest.mark.slow) for n in ("dqn", "ppo"))])
def test_a_driver_on_a_mesh_runs_what_vmap_does(name):
    make_run, config, data = RUNS[name]
    driver = driver_of(name, 2)
    state, report = driver.chunk(driver.start(), 3)

    def shard(data):
        run = make_run(config, axis_name=axis.AXIS, shards=2)
        return jax.lax.fori_loop(0, 3, lambda _, s: run.step(s, data)[0], run.init(jax.random.key(0), data))

    parts = jax.tree.map(lambda x: x[:42].reshape(2, 21, *x.shape[1:]), data)
    expected = jit(jax.vmap(shard, in_axes=0 if data else None, axis_name=axis.AXIS, axis_size=2))(parts)
    expected = jax.tree.map(lambda x: x[0], expected)._replace(source=expected.source)
    for a, b in zip(arrays(state), arrays(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert driver.first_step + 3 * driver.stride == state.t
    assert (driver.first_step, driver.stride) == (driver_of(name, 1).first_step, driver_of(name, 1).stride)
    assert np.isfinite(report.totals).all()
    assert jax.tree.all(jax.tree.map(lambda x: len(x.sharding.device_set) == 1, driver.params(state)))


def test_the_learner_lies_on_all_devices_and_the_source_is_split():
    state = driver_of("dqn", 4).start()
    assert all(x.is_fully_replicated and len(x.sharding.device_set) == 4 for x in jax.tree.leaves(state.learner))
    assert state.source.memory.rows.shape[:2] == (4, 20)
    assert {s.data.shape[:2] for s in state.source.memory.rows.addressable_shards} == {(1, 20)}


@pytest.mark.slow
def test_a_population_over_devices_is_that_of_one():
    one, two = (driver_of("ppo", n, seeds=(3, 4, 5, 6)) for n in (1, 2))
    for a, b in zip(*(arrays(d.chunk(d.start(), 2)[0]) for d in (one, two)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert len(jax.tree.leaves(two.params(two.start()))[0]) == 4


@pytest.mark.parametrize(("name", "field"), [("dqn", "num_envs=4"), ("vae", "batch_size=8")])
def test_what_does_not_divide_is_refused(name, field):
    with pytest.raises(UserError, match=f"{field} does not divide over 3 devices; (3 or 6|6 or 9) would"):
        driver_of(name, 3)


def test_members_that_do_not_divide_are_refused():
    with pytest.raises(UserError, match="number of members=3 does not divide over 2 devices; 2 or 4 would"):
        driver_of("ppo", 2, seeds=(0, 1, 2))


def test_more_devices_than_there_are_are_refused():
    with pytest.raises(UserError, match="devices=64, but JAX sees 8 of cpu"):
        mesh.make_mesh(64)


@pytest.mark.parametrize(("name", "before", "after"), [
    ("dqn", 1, 4), ("vae", 4, 2),
    *(pytest.param(*how, marks=pytest.mark.slow)
      for how in (("dqn", 4, 1), ("prioritized", 4, 2), ("ppo", 2, 1), ("vae", 1, 2)))])
def test_a_run_goes_on_with_another_number_of_devices(name, before, after):
    first = driver_of(name, before)
    state = on_host(first.chunk(first.start(), 3)[0])
    second = driver_of(name, after, written_by=before)
    jax.tree.map(lambda x, like: (x.shape, x.dtype) == (like.shape, like.dtype) or pytest.fail("like"), state, second.like)
    gone_on = second.restore(jax.tree.map(jnp.copy, state))
    for a, b in zip(arrays(gone_on.learner), arrays(state.learner), strict=True):
        np.testing.assert_array_equal(a, b)
    if name != "vae":
        assert np.array_equal(np.ravel(gone_on.source.obs), np.ravel(state.source.obs))
    if name == "dqn":
        memory = state.source.memory
        assert np.array_equal(np.ravel(gone_on.source.memory.rows), np.ravel(memory.rows))
        assert np.array_equal(np.ravel(gone_on.source.memory.size), np.ravel(memory.size))
    if name == "vae":
        assert np.unique(gone_on.source.batch) == np.unique(state.source.batch) == [3]
    t = int(state.t)
    state, report = second.chunk(gone_on, 2)
    assert state.t == t + 2 * second.stride
    assert np.isfinite(report.totals).all()


@pytest.mark.slow
def test_environments_stay_in_order_when_they_are_dealt_out_anew():
    first, second = driver_of("ppo", 4), driver_of("ppo", 2, written_by=4)
    state = on_host(first.chunk(first.start(), 1)[0])
    moved = second.restore(jax.tree.map(jnp.copy, state)).source
    old, new = state.source.episodes.sums, moved.episodes.sums  # [D, 2, E / D]
    np.testing.assert_array_equal(np.concatenate(list(old), -1), np.concatenate(list(new), -1))
    assert np.unique(moved.scale.moments.count) == np.unique(state.source.scale.moments.count)


def prioritized_memory(shards):
    """One of as many shards' memory of 5 steps of each of 8 environments."""
    spec = EnvSpec("x", gymnasium.spaces.Box(-1, 1, (1,), np.float32), gymnasium.spaces.Discrete(2), None)
    envs = 8 // shards
    store = storage.full_transitions(spec, num_envs=envs, buffer_size=5 * envs, n_steps=1, gamma=0.9)
    return sampling.prioritized(store, 40 // shards, alpha=1.0, beta=lambda t: 0.4)


@functools.cache
def filled(shards):
    """The memories of all shards, each transition with a priority of its own."""
    envs, memory = 8 // shards, prioritized_memory(shards)

    def fill(first):
        obs = first + jnp.arange(envs, dtype=jnp.float32)[:, None]
        state = memory.init(obs)
        no = jnp.zeros(envs, bool)
        for t in range(3):
            item = memory.item(obs, jnp.zeros(envs, jnp.int32), TimeStep(obs, obs[:, 0] + 10 * t, no, no, obs))
            state = memory.add(state, jax.tree.map(lambda x: x[None], item))
        index = jnp.arange(40 // shards, dtype=jnp.int32)
        priority = jnp.where(index % 5 < 3, 1.0 + (first + index // 5) + 10 * (index % 5), 0.0)
        return state._replace(waiting=index, priority=priority, highest=1 + priority.max())

    return jit(jax.vmap(fill))(jnp.arange(shards) * envs)


@pytest.mark.parametrize(("before", "after"), [(4, 2), *(pytest.param(*n, marks=pytest.mark.slow) for n in ((2, 4), (8, 1)))])
def test_priorities_go_with_their_transitions(before, after):
    """Those that wait are written first; of 8 rings of 5 rows, none is a multiple of the tree's fan-out."""
    old, new = filled(before), filled(after)
    got = jit(functools.partial(axis.reshard, env_axis=prioritized_memory(after).env_axis, devices=after))(old)
    assert [x.shape for x in jax.tree.leaves(got)] == [x.shape for x in jax.tree.leaves(new)]
    size = 40 // after
    expected = new.tree[0].reshape(after, -1)[:, :size] * 0 + new.priority
    np.testing.assert_array_equal(got.tree[0].reshape(after, -1)[:, :size], expected)
    tree = sum_tree.make(size)
    for state in (jax.tree.map(lambda x, i=i: x[i], got) for i in range(after)):
        assert tree.total(state.tree) == state.tree[0].sum() > 0
        index, probability = jit(tree.sample, static_argnums=2)(state.tree, jax.random.key(0), 200)
        np.testing.assert_allclose(probability, state.tree[0].reshape(-1)[index] / state.tree[0].sum(), rtol=1e-6)
        assert (state.waiting == tree.dropped).all()
    assert np.unique(got.highest) == old.highest.max()
    np.testing.assert_array_equal(got.stored.rows.reshape(40, -1), old.stored.rows.reshape(40, -1))


@pytest.mark.slow
def test_schedules_are_those_of_the_whole_run():
    """Exploration ends after as many steps of all environments, on however many devices."""
    config = dqn_config(exploration_fraction=0.5, train_freq=2)
    said = []
    for devices in (1, 2, 4):
        driver = make_device_driver(dqn.make_run, [config], None, [0], quick=True, devices=devices)
        state, report = driver.chunk(driver.start(), 20)
        said.append(report.metrics["epsilon"].total / report.metrics["epsilon"].count)
        assert state.t == 16 + 20 * 8
    # on more devices a device's environments are stepped at the same `t` as the others'
    np.testing.assert_allclose(said, said[0], rtol=1e-5)


@pytest.mark.parametrize("members", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_no_copy_of_the_memory_on_a_mesh(members):
    """Where devices share a run, and where each has a member, the memory is written in place."""
    def temporary(capacity):
        driver = make_device_driver(dqn.make_run, [dqn_config(buffer_size=capacity)], None, list(range(members)), devices=2)
        return driver.program.memory_analysis().temp_size_in_bytes

    assert temporary(400_000) < temporary(4_000) + 100_000


@pytest.mark.slow
def test_training_says_what_devices_learned(tmp_path):
    driver = driver_of("ppo", 2)
    config = fit.Config(checkpoint_every=320, eval_episodes=1)
    result = fit.fit(driver, config, 960, folder=tmp_path)
    assert result.ended == "finished"
    assert checkpoint.read_meta(tmp_path / "checkpoints", result.step)["devices"] == 2
    again = fit.fit(driver_of("ppo", 4, written_by=2), config, 1920, folder=tmp_path, resume=True)
    assert again.step == 1920
    assert checkpoint.read_meta(tmp_path / "checkpoints", 1920)["devices"] == 4


FRAME = (4, 8, 8)
PIXELS = EnvSpec("pixels", gymnasium.spaces.Box(0, 255, FRAME, np.uint8), gymnasium.spaces.Discrete(2), None, Stack(4, "zero"))


class Silent:
    """Environments that are only looked at."""

    num_envs = 2

    def reset(self, seed):
        return np.zeros((self.num_envs, *FRAME), np.uint8)

    def close(self):
        pass


@pytest.mark.slow
def test_no_copy_of_frames_where_each_device_has_one_environment():
    """A scatter of a single row would become a slice that is fused into the reads, and the frames be copied every step."""
    def temporary(capacity):
        config = dqn_config(num_envs=2, buffer_size=capacity, hidden_sizes=(8,))
        driver = make_host_driver(lambda c, **axis: dqn.make_host_run(c, PIXELS, **axis), config, Silent(), 0, devices=2)
        return driver.program.memory_analysis().temp_size_in_bytes

    assert temporary(40_960) < temporary(4_096) + 10_000
