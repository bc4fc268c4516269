"""Atari on the host and within compiled programs: the same games, and whose step is what."""

import functools
import re

import jax
import numpy as np
import pytest
from gymnasium import spaces

from jaxdl.core.errors import EnvError
from jaxdl.rl import envs, evaluate
from jaxdl.rl.envs import atari
from jaxdl.rl.types import Actor, EnvSpec, Stack

GAME = "ALE/Breakout-v5"  # of five lives
N = 4

pytest.importorskip("ale_py", reason="jaxdl[atari] is not installed")


@functools.cache
def on_device(**settings):
    """One emulator for all tests, its program and its actions."""
    env = envs.make_device(GAME, envs.Config(**settings), num_envs=N)

    def play(state, actions):
        return jax.lax.scan(lambda s, a: env.step(s, a, jax.random.split(jax.random.key(0), (0, N))), state, actions)

    return env, jax.jit(env.reset, static_argnums=1), jax.jit(play, donate_argnums=0)


def seeds(key):
    """Those that a reset on the device takes."""
    return np.asarray(jax.random.randint(key, (N,), 0, np.iinfo(np.int32).max))


def actions_of(steps, seed=0):
    return np.random.default_rng(seed).integers(0, 4, (steps, N)).astype(np.int32)


def on_host(key, actions, settings=envs.DEFAULTS):
    """First observations, and the steps [T] of the games that begin with the same seeds."""
    host = envs.make_host(GAME, N, settings=settings)
    host.reset(0)
    obs, info = host.venv.reset(seed=seeds(key))
    host._before = atari._earlier(info)
    steps = [host.step(a) for a in actions]
    host.close()
    return obs, jax.tree.map(lambda *x: np.stack(x), *steps)


@pytest.fixture(scope="module")
def played():
    """300 steps of both, in which lives and games are lost."""
    key, actions = jax.random.key(3), actions_of(300)
    _, reset, play = on_device()
    state, first = reset(key, N)
    first = np.array(first)
    _, device = play(state, actions)
    return (first, jax.tree.map(np.asarray, device)), on_host(key, actions)


def test_a_compiled_program_plays_the_games_of_the_host_bit_for_bit(played):
    (first, device), (host_first, host) = played
    np.testing.assert_array_equal(first, host_first)
    for name in ("obs", "reward", "terminated", "truncated", "reset"):
        ours, theirs = getattr(device, name), getattr(host, name)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
    np.testing.assert_array_equal(device.next_obs, device.obs)
    assert host.reward.sum() > 0


def test_a_lost_life_terminates_and_the_game_goes_on_but_after_its_end_a_step_only_resets(played):
    _, (_, host) = played
    terminated, reset = host.terminated, host.reset
    assert not host.truncated.any()
    after = np.concatenate([np.zeros((1, N), bool), terminated[:-1]])
    assert reset.any(axis=0).all()
    assert not (reset & ~after).any()  # only after an end
    np.testing.assert_array_equal(np.cumsum(terminated, 0)[reset] % 5, 0)  # and only after the fifth life
    assert (after & ~reset).sum() > 3 * reset.sum()
    assert (host.reward[reset] == 0).all()
    frames = host.obs
    goes_on = ~reset[1:]
    np.testing.assert_array_equal(frames[1:][goes_on][:, :-1], frames[:-1][goes_on][:, 1:])  # over lost lives too
    assert (frames[reset][:, :3] == 0).all()
    assert (frames[reset][:, 3].reshape(reset.sum(), -1).max(1) > 0).all()


def test_an_episode_begins_with_a_stack_of_zeros_and_its_first_frame(played):
    (first, _), _ = played
    assert first.shape == (N, 4, 84, 84)
    assert (first[:, :3] == 0).all()
    assert (first[:, 3] > 0).any()


def test_a_reset_begins_new_games_and_the_same_ones_from_the_same_key():
    _, reset, play = on_device()
    key, actions = jax.random.key(8), actions_of(20, 1)
    _, one = play(reset(key, N)[0], actions)
    _, two = play(reset(key, N)[0], actions)
    np.testing.assert_array_equal(one.obs, two.obs)
    assert not np.array_equal(one.obs, play(reset(jax.random.key(9), N)[0], actions)[1].obs)


def test_another_number_of_environments_is_refused():
    env, _, _ = on_device()
    with pytest.raises(EnvError, match=f"{GAME} was made with {N} environments and cannot be reset as 3"):
        env.reset(jax.random.key(0), 3)
    with pytest.raises(EnvError, match=f"{GAME} must be told how many environments to make: num_envs"):
        envs.make_device(GAME)


def test_an_action_out_of_range_is_the_nearest_one():
    _, reset, play = on_device()
    key = jax.random.key(1)
    wild = np.array([[99, -1, 4, -(2**31)], [2, 2**31 - 1, 0, 3]], np.int32)
    _, device = play(reset(key, N)[0], wild)
    _, tame = play(reset(key, N)[0], np.clip(wild, 0, 3))
    np.testing.assert_array_equal(device.obs, tame.obs)
    np.testing.assert_array_equal(on_host(key, wild)[1].obs, tame.obs)


def test_the_spec_follows_the_settings():
    pixels = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    assert envs.spec(GAME) == EnvSpec(GAME, pixels, spaces.Discrete(4), 27_000, Stack(4, "zero"), "emulator", True)
    assert on_device()[0].spec == envs.spec(GAME)
    assert (on_device()[0].keys, on_device()[0].outside_jax) == (0, True)
    settings = envs.Config(atari_stack=2, frame_skip=5, full_action_space=True, max_frames=1003, episodic_life=False)
    assert envs.spec(GAME, settings) == EnvSpec(
        GAME, spaces.Box(0, 255, (2, 84, 84), np.uint8), spaces.Discrete(18), 201, Stack(2, "zero"), "emulator", False)
    assert envs.spec(GAME, envs.Config(time_limit=50)).max_episode_steps == 50
    with pytest.raises(EnvError, match=r"frame_stack=3 is not for Atari, .* use atari_stack for ALE/Breakout-v5"):
        envs.spec(GAME, envs.Config(frame_stack=3))


@pytest.mark.parametrize("settings", [envs.Config(time_limit=5), envs.Config(max_frames=13, frame_skip=3)])
def test_a_game_is_truncated_at_its_time_limit_and_reset_after_it(settings):
    limit = envs.spec(GAME, settings).max_episode_steps
    assert limit == 5
    host = envs.make_host(GAME, 2, settings=settings)
    host.reset(0)
    out = [host.step(np.zeros(2, int)) for _ in range(13)]
    host.close()
    at = [t % 6 for t in range(13)]
    np.testing.assert_array_equal([o.truncated for o in out], np.tile(np.equal(at, 4)[:, None], 2))
    np.testing.assert_array_equal([o.reset for o in out], np.tile(np.equal(at, 5)[:, None], 2))
    assert not np.any([o.terminated for o in out])


def test_without_lives_only_a_games_end_terminates():
    actions = actions_of(250)
    _, host = on_host(jax.random.key(3), actions, envs.Config(episodic_life=False))
    assert host.reset.sum() > 2
    np.testing.assert_array_equal(host.terminated[:-1], host.reset[1:])


def test_sticky_actions_and_noops_are_as_set():
    left = np.full((30, N), 3, np.int32)
    never, always, waits = (on_host(jax.random.key(0), left, envs.Config(noop_max=noops, sticky_actions=p))[1].obs
                            for noops, p in ((0, 0.0), (0, 1.0), (30, 0.0)))
    assert (never == never[:, :1]).all()  # no chance is left: all games are one
    assert not np.array_equal(never, always)
    assert not (waits == waits[:, :1]).all()


def test_an_evaluation_plays_whole_games_and_counts_points_that_training_would_clip():
    fire = Actor(lambda n: None, lambda p, c, obs, key, t: (None, jax.random.randint(key, obs.shape[:1], 0, 6), None))
    found = evaluate.evaluate(fire, None, "ALE/SpaceInvaders-v5", episodes=3, seed=0)
    assert found.episodes == 3
    assert (found.returns % 5 == 0).all()
    assert found.returns.max() > found.lengths[found.returns.argmax()] / 10  # aliens are worth 5 to 30 points
    assert (found.lengths > 250).all()  # three lives


def test_an_unknown_game_is_refused_with_the_nearest():
    for ask in (envs.spec, lambda i: envs.make_host(i, 2), lambda i: envs.make_device(i, num_envs=2)):
        with pytest.raises(EnvError, match=re.escape("there is no environment 'ALE/Pogn-v5'; did you mean 'ALE/Pong-v5'?")):
            ask("ALE/Pogn-v5")
    with pytest.raises(EnvError, match=re.escape("there is no environment 'Pong-v5'; did you mean 'ALE/Pong-v5'?")):
        envs.spec("Pong-v5")


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_games_are_vectorized_by_ale_alone(mode):
    with pytest.raises(EnvError, match=f"{GAME} has threads of its own for its games; use vectorization=auto"):
        envs.make_host(GAME, 2, mode)


def test_games_run_on_the_device_of_a_cpu_and_are_listed_so():
    assert envs.resolve_backend(GAME, "auto") == "device"
    assert envs.resolve_backend(GAME, "host") == "host"
    assert dict(envs.listing())[GAME] == ["device", "host"]


def test_without_their_code_for_the_device_games_run_on_the_host(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert envs.resolve_backend(GAME, "auto") == "host"
    assert dict(envs.listing())[GAME] == ["host"]
    with pytest.raises(EnvError, match=f"{GAME} does not run on the device.*backend=host"):
        envs.make_device(GAME, num_envs=2)
