"""Runs whose environments lie outside of JAX: what is restored of them, and what begins anew."""

import itertools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.core.run import compose
from jaxdl.core.types import Learner, Mean, UpdateResult
from jaxdl.rl import replay
from jaxdl.rl.replay import storage
from jaxdl.rl.types import Actor, Env, EnvSpec, TimeStep
from jaxdl.runtime import fit
from jaxdl.runtime.device_driver import make_device_driver

N, LENGTH, GAMMA = 2, 5, 0.5
SPEC = EnvSpec("Outside-v0", gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32), gymnasium.spaces.Discrete(2), None)
SETTINGS = replay.Settings(num_envs=N, buffer_size=400, batch_size=8, train_freq=1, gradient_steps=1, learning_starts=8,
                           n_steps=3, gamma=GAMMA)
PROCESSES = itertools.count(1)


def outside():
    """An environment of five steps and one that only resets; a state of another process makes its rewards nan, for ever."""
    process = next(PROCESSES)

    def reset(key, n):
        begin = jnp.floor(1000 * jax.random.uniform(key, (n, 1)))
        return (jnp.int32(process), jnp.zeros(n, jnp.int32), begin), begin

    def step(state, action, keys):
        handle, t, obs = state
        fresh = t == LENGTH
        obs = jnp.where(fresh[:, None], -obs, obs + 1)  # a new episode is recognized by its sign
        t = jnp.where(fresh, 0, t + 1)
        reward = jnp.where(handle == process, 1.0, jnp.nan)
        out = TimeStep(obs, jnp.where(fresh, 0.0, reward), t == LENGTH, jnp.zeros(N, bool), obs, reset=fresh)
        return (handle, t, obs), out

    return Env(SPEC._replace(lives="emulator"), reset, step, keys=0)


def make_driver():
    """A run that learns nothing, and says the mean of its rewards."""
    learner = Learner(
        init=lambda key: jnp.zeros(()), params=lambda state: state,
        update=lambda state, batch, key: (state, UpdateResult({"loss": Mean.of(batch.reward)})))
    actor = Actor(lambda n: None, lambda params, carry, obs, key, t: (carry, jnp.zeros(N, jnp.int32), {}))
    settings, env = SETTINGS, outside()

    def make_run(config):
        return compose(learner, replay.replay(env, actor, settings), stride=N, first_step=8)

    return make_device_driver(make_run, [()], None, [0])


@pytest.fixture(scope="module")
def driver():
    return make_driver()


def copied(tree):
    return jax.tree.map(jnp.copy, tree)


def test_environments_outside_of_jax_begin_anew_and_all_else_is_restored(driver):
    assert not driver.exact
    state, _ = driver.chunk(driver.start(), 3)
    saved = copied(driver.snapshot(state))
    restored = driver.restore(copied(saved))
    (_, t, obs), (_, t_saved, obs_saved) = restored.source.env, saved.source.env
    assert (t_saved > 0).all()
    np.testing.assert_array_equal(t, 0)
    assert (obs != obs_saved).all()
    np.testing.assert_array_equal(restored.source.obs, obs)
    np.testing.assert_array_equal(restored.source.episodes.sums, 0)
    assert (saved.source.episodes.sums[1] > 0).all()
    assert int(restored.t) == int(saved.t) == 14
    assert not (jax.random.key_data(restored.key) == jax.random.key_data(saved.key)).all()
    again = driver.restore(copied(saved))
    np.testing.assert_array_equal(again.source.obs, restored.source.obs)


def test_no_return_reaches_from_before_the_restart_into_the_new_episodes(driver):
    state, _ = driver.chunk(driver.start(), 3)  # four steps of warm-up, three more: one of them only reset
    newest = np.array(state.source.memory.cursor) - 1 + np.arange(N) * SETTINGS.buffer_size // N
    last = np.array(state.source.obs)
    sizes = {name: getattr(SETTINGS, name) for name in ("num_envs", "buffer_size", "n_steps", "gamma")}
    read = jax.jit(storage.full_transitions(SPEC, **sizes).read)
    before = jax.tree.map(np.array, read(state.source.memory, jnp.array(newest)))
    state = driver.restore(copied(driver.snapshot(state)))
    begun = np.array(state.source.obs)
    state, _ = driver.chunk(state, 4)
    after = jax.tree.map(np.array, read(state.source.memory, jnp.array(newest)))
    np.testing.assert_array_equal(after.next_obs, last)  # bootstraps from what it led to, and so does not terminate
    np.testing.assert_array_equal(after.reward, 1)
    np.testing.assert_array_equal(after.discount, GAMMA)
    jax.tree.map(np.testing.assert_array_equal, after, before)
    first = read(state.source.memory, jnp.array(newest + 1))
    np.testing.assert_array_equal(first.obs, begun)
    np.testing.assert_array_equal(first.reward, 1 + GAMMA + GAMMA**2)


@pytest.mark.parametrize("memory", [True, False])
def test_a_run_goes_on_in_a_process_that_has_environments_of_its_own(driver, memory, tmp_path):
    fit.fit(driver, fit.Config(checkpoint_memory=memory, stop_step=60), 200, folder=tmp_path)
    result = fit.fit(make_driver(), fit.Config(checkpoint_memory=memory), 200, folder=tmp_path, resume=True)
    assert (result.step, result.ended) == (200, "finished")
