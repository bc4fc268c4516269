"""Environments on the host: what their steps say, and the sentences for what they must not do."""

import contextlib
import multiprocessing
import os
import signal

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import WrapperSpec
from gymnasium.vector import AutoresetMode
from toys import FINE, Toy, ToyVector

from jaxdl.core.errors import EnvError, EnvFailure
from jaxdl.rl import envs
from jaxdl.rl.envs import gymnasium_envs
from jaxdl.rl.envs.calls import Calls
from jaxdl.rl.envs.host_envs import HostEnvs
from jaxdl.rl.types import TimeStep

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning:gymnasium"),  # of Gymnasium, of broken environments
              pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),  # forks of a process with threads
              pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")]


def stepped(env_id, mode, num_envs=2, steps=1):
    """Reset an environment and step it."""
    venv = envs.make_host(env_id, num_envs, mode)
    try:
        venv.reset(0)
        for _ in range(steps):
            out = venv.step(np.zeros(num_envs, np.int32))
        return out
    finally:
        venv.close()


def episodes(mode, action_of_resets, steps=30, env_id="CartPole-v1", settings=envs.DEFAULTS):
    """Three copies under constant actions; at steps that only reset, another action may be given."""
    venv, found = envs.make_host(env_id, 3, mode, settings), []
    try:
        obs, no, resets = venv.reset(5), np.zeros(3, bool), np.zeros(3, bool)
        found.append(TimeStep(obs, np.zeros(3, np.float32), no, no, reset=no))
        for _ in range(steps):
            found.append(venv.step(np.where(resets, action_of_resets, [0, 1, 0])))
            resets = ~resets & (found[-1].terminated | found[-1].truncated)
    finally:
        venv.close()
    return [np.stack(x) for x in zip(*((s.obs, s.reward, s.terminated, s.truncated, s.reset) for s in found), strict=True)]


# What its steps say


@pytest.mark.parametrize("mode", ["sync", "async", "native"])
def test_an_ended_episode_shows_its_last_observation_and_the_step_after_it_only_resets(mode):
    obs, reward, terminated, truncated, reset = episodes(mode, 0)
    assert [x.dtype for x in (obs, reward, terminated, truncated, reset)] == [np.float32, np.float32, bool, bool, bool]
    assert obs.shape == (31, 3, 4)
    assert not truncated.any()
    assert (terminated.sum(axis=0) >= 2).all()
    fallen = (np.abs(obs[..., 0]) > 2.4) | (np.abs(obs[..., 2]) > 12 * 2 * np.pi / 360)
    np.testing.assert_array_equal(terminated, fallen)
    np.testing.assert_array_equal(reset[1:], terminated[:-1])
    assert not reset[0].any()
    np.testing.assert_array_equal(reward[1:], ~reset[1:])
    begins = reset | (np.arange(31) == 0)[:, None]
    assert (np.abs(obs[begins]) < 0.05).all()
    follows = ~reset[1:]
    np.testing.assert_allclose(obs[1:, :, 0][follows], (obs[:-1, :, 0] + 0.02 * obs[:-1, :, 1])[follows], atol=1e-6)
    np.testing.assert_allclose(obs[1:, :, 2][follows], (obs[:-1, :, 2] + 0.02 * obs[:-1, :, 3])[follows], atol=1e-6)
    assert len(np.unique(obs[begins], axis=0)) == begins.sum()

    for x, y in zip(episodes(mode, 1), (obs, reward, terminated, truncated, reset), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("settings", [envs.DEFAULTS, envs.Config(time_limit=2)])
def test_a_time_limit_truncates_and_is_counted_anew_in_every_episode(register, settings):
    register("Toy-v0", Toy, max_episode_steps=2 if settings.time_limit is None else 100)
    obs, reward, terminated, truncated, reset = episodes("sync", 1, steps=6, env_id="Toy-v0", settings=settings)
    np.testing.assert_array_equal(obs[:, 1], [[0, 7], [1, 7], [2, 7], [0, 7], [1, 7], [2, 7], [0, 7]])
    np.testing.assert_array_equal(reward[:, 1], [0, 11, 21, 0, 11, 21, 0])
    assert not terminated.any()
    np.testing.assert_array_equal(truncated[:, 1], [0, 0, 1, 0, 0, 1, 0])
    np.testing.assert_array_equal(reset[:, 1], [0, 0, 0, 1, 0, 0, 1])


def test_a_time_limit_may_be_longer_than_the_environments_own(register):
    register("Toy-v0", Toy, max_episode_steps=1)
    *_, terminated, truncated, _ = episodes("sync", 1, steps=3, env_id="Toy-v0", settings=envs.Config(time_limit=9))
    np.testing.assert_array_equal(terminated[:, 0], [0, 0, 0, 1])
    assert not truncated.any()


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_stacked_frames_are_the_last_of_the_episode_the_oldest_first(register, mode):
    register("Toy-v0", Toy)
    obs = episodes(mode, 1, steps=5, env_id="Toy-v0", settings=envs.Config(frame_stack=3))[0]
    assert obs.dtype == np.float32
    np.testing.assert_array_equal(obs[:, 2, :, 0], [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [0, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(obs[..., 1], 7)


def test_a_native_time_limit_and_no_native_stack():
    venv = envs.make_host("CartPole-v1", 2, "native", envs.Config(time_limit=3))
    assert venv.reset(0).shape == (2, 4)
    assert [venv.step(np.array([0, 1])).truncated.all() for _ in range(4)] == [False, False, True, False]
    venv.close()
    with pytest.raises(EnvError, match=r"CartPole-v1's own vector environment does not stack frames; use frame_stack=1, or "):
        envs.make_host("CartPole-v1", 2, "native", envs.Config(frame_stack=2))
    venv = envs.make_host("CartPole-v1", 2, "auto", envs.Config(frame_stack=2))
    assert type(venv.venv).__name__ == "SyncVectorEnv"
    assert venv.reset(0).shape == (2, 2, 4)
    venv.close()


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_copies_begin_with_consecutive_seeds(mode):
    venv, env = envs.make_host("CartPole-v1", 3, mode), gymnasium.make("CartPole-v1")
    np.testing.assert_array_equal(venv.reset(11), [env.reset(seed=11 + i)[0] for i in range(3)])
    venv.close()


@pytest.mark.parametrize("seed", [-1, 2**31, 2**40 + 5, np.int64(3)])
def test_any_integer_is_a_seed(seed):
    venv = envs.make_host("CartPole-v1", 2)
    first = venv.reset(seed)
    venv.step(np.array([0, 1]))
    np.testing.assert_array_equal(venv.reset(seed), first)
    assert not np.array_equal(venv.reset(int(seed) + 1), first)
    venv.close()


@pytest.mark.parametrize("mode", ["sync", "async", "native"])
def test_observations_keep_their_values_when_the_environments_go_on(mode):
    venv = envs.make_host("CartPole-v1", 2, mode)
    obs = [venv.reset(0)] + [venv.step(np.array([0, 1])).obs for _ in range(2)]
    kept = [o.copy() for o in obs]
    venv.step(np.array([0, 1]))
    venv.reset(1)
    np.testing.assert_array_equal(obs, kept)
    venv.close()


def test_a_reset_in_the_middle_of_an_episode_is_followed_by_no_other(register):
    venv = envs.make_host(register("Toy-v0", Toy), 2, "sync")
    venv.reset(0)
    for _ in range(3):
        out = venv.step(np.zeros(2, int))
    assert out.terminated.all()
    venv.reset(0)
    out = venv.step(np.zeros(2, int))
    assert not out.reset.any()
    np.testing.assert_array_equal(out.reward, 10)
    venv.close()


# Actions of every kind


def exact(space, kind=Toy):
    """A toy that takes what its action space holds and nothing else; its reward is the sum of the numbers in the action."""
    class Exact(kind):
        action_space = single_action_space = space

        def step(self, action):
            assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
            obs, _, terminated, truncated, info = super().step(np.zeros(len(action)) if kind is ToyVector else 0)
            axes = tuple(range(1, np.ndim(action))) if kind is ToyVector else None
            return obs, np.sum(action, axes, dtype=np.float64), terminated, truncated, info

    return Exact


ACTIONS = [
    (spaces.Discrete(3, start=-1), np.int32([-1, 1])), (spaces.Discrete(3, dtype=np.int8), np.int32([1, 2])),
    (spaces.MultiDiscrete([2, 3], start=[0, 5]), np.int32([[0, 5], [1, 7]])),
    (spaces.MultiDiscrete([2, 3], dtype=np.int32), np.int64([[0, 2], [1, 0]])),
    (spaces.MultiBinary(3), np.int32([[0, 1, 1], [1, 0, 0]])),
    (spaces.Box(-2, 2, (1,)), np.float32([[-2], [1.5]])), (spaces.Box(-2, 2, (2,), np.float16), np.float32([[-2, 1], [0, 2]])),
    (spaces.Box(-0.1, 0.1, (1,), np.float64), np.float32([[-0.1], [0.1]]))]  # float32's 0.1 is above 0.1


@pytest.mark.parametrize("mode", ["sync", "async", "native"])
def test_an_environment_is_given_the_actions_of_its_space_in_the_dtype_of_its_space(register, mode):
    for space, action in ACTIONS[2 if mode == "async" else 0 :: 3 if mode == "async" else 1]:
        register("Exact-v0", exact(space), vector_entry_point=exact(space, ToyVector))
        venv, given = envs.make_host("Exact-v0", 2, mode), action.copy()
        venv.reset(0)
        try:
            out = venv.step(action)
        finally:
            venv.close()
        np.testing.assert_allclose(out.reward, action.reshape(2, -1).sum(1), rtol=1e-6)
        np.testing.assert_array_equal(action, given)


@pytest.mark.parametrize(("env_id", "mode"), [
    ("Pendulum-v1", "sync"), ("MountainCarContinuous-v0", "sync"), ("MountainCarContinuous-v0", "async")])
def test_continuous_actions_move_each_copy_as_gymnasiums_environment(env_id, mode):
    venv, pair = envs.make_host(env_id, 2, mode), [gymnasium.make(env_id) for _ in range(2)]
    obs, rng = [venv.reset(3)], np.random.default_rng(0)
    wanted = [[env.reset(seed=3 + i)[0] for i, env in enumerate(pair)]]
    for _ in range(5):
        action = rng.uniform(-1, 1, (2, 1)).astype(np.float32)
        obs.append(venv.step(action).obs)
        wanted.append([env.step(a)[0] for env, a in zip(pair, action, strict=True)])
    venv.close()
    np.testing.assert_array_equal(obs, wanted)


# What an environment must not do


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED, None])
def test_another_way_of_resetting_is_refused_and_closed(register, monkeypatch, mode):
    closed = []
    monkeypatch.setattr(ToyVector, "metadata", {"autoreset_mode": mode} if mode else {})
    monkeypatch.setattr(ToyVector, "close", lambda self, **_: closed.append(self))
    register("Toy-v0", Toy, vector_entry_point=ToyVector)
    how = f"in the mode {mode}" if mode else "in a mode that its metadata do not name"
    with pytest.raises(EnvError, match=f"Toy-v0 resets its episodes {how}.*expected Gymnasium's NEXT_STEP; use vectorization="):
        envs.make_host("Toy-v0", 2, "native")
    assert len(closed) == 1


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("where", ["reset", "third step"])
def test_an_environment_that_raises_is_named_with_what_it_said_in_one_line(register, where, mode):
    class Raises(Toy):
        def observe(self):
            if self.t == (0 if where == "reset" else 3):
                raise RuntimeError("the motor broke\nand more")
            return super().observe()

    with pytest.raises(EnvError) as caught:
        stepped(register("Raises-v0", Raises), mode, steps=3)
    assert str(caught.value) == f"Raises-v0 failed in {where.split()[-1]}: RuntimeError: the motor broke"


def test_an_error_without_words_is_named_by_its_kind(register):
    class Raises(Toy):
        def step(self, action):
            raise ZeroDivisionError

    with pytest.raises(EnvError, match=r"^Raises-v0 failed in step: ZeroDivisionError$"):
        stepped(register("Raises-v0", Raises), "sync")


def bad(observation=FINE, reward=0.0, terminated=False, truncated=False):
    class Bad(Toy):
        def step(self, action):
            return observation, reward, terminated, truncated, {}

    return Bad


@pytest.mark.parametrize("mode", ["sync", "native"])
@pytest.mark.parametrize(("obs", "reward", "said"), [
    (np.array([np.nan, 1], np.float32), 0.0, "gave an observation that is not finite: nan in environment 0 of 2"),
    (np.array([1, np.inf], np.float32), 0.0, "gave an observation that is not finite: inf in environment 0 of 2"),
    (FINE, np.nan, "gave a reward that is not finite: nan in environment 0 of 2"),
    (FINE, -np.inf, "gave a reward that is not finite: -inf in environment 0 of 2")])
def test_numbers_that_are_not_finite_are_refused(register, obs, reward, said, mode):
    register("Bad-v0", bad(obs, reward), vector_entry_point=lambda num_envs, **_: ToyVector(num_envs, obs, reward))
    with pytest.raises(EnvError, match=f"^Bad-v0 {said}$"):
        stepped("Bad-v0", mode)


def test_the_environment_whose_number_is_not_finite_is_named(register):
    reward = np.array([0, 1, np.nan, np.nan])
    register("Bad-v0", Toy, vector_entry_point=lambda num_envs, **_: ToyVector(num_envs, FINE, reward))
    with pytest.raises(EnvError, match="not finite: nan in environment 2 of 4"):
        stepped("Bad-v0", "native", num_envs=4)


@pytest.mark.parametrize(("obs", "found"), [
    (np.ones(3, np.float32), r"float32\[2, 3\]"), (np.ones(2, np.float64), r"float64\[2, 2\]"),
    (np.ones((), np.float32), r"float32\[2\]"), (np.ones(2, np.int32), r"int32\[2, 2\]"), ("rubbish", "str"),
    (None, "NoneType")])
def test_vectors_of_observations_of_another_shape_or_dtype_are_refused(register, obs, found):
    register("Bad-v0", Toy, vector_entry_point=lambda num_envs, **_: ToyVector(num_envs, obs))
    with pytest.raises(EnvError, match=rf"Bad-v0 gave observations {found}, its space has float32\[2, 2\]"):
        stepped("Bad-v0", "native")


@pytest.mark.parametrize(("given", "said"), [
    ({"reward": np.zeros((2, 1))}, r"gave rewards float64\[2, 1\], expected float\[2\]"),
    ({"reward": np.zeros(2, complex)}, r"gave rewards complex128\[2\], expected float\[2\]"),
    ({"reward": [0.0, 0.0]}, r"gave rewards list, expected float\[2\]"),
    ({"terminated": np.zeros(2, int)}, r"gave terminated = int64\[2\], expected bool\[2\]"),
    ({"terminated": np.zeros(3, bool)}, r"gave terminated = bool\[3\], expected bool\[2\]"),
    ({"terminated": [False, False]}, r"gave terminated = list, expected bool\[2\]")])
def test_vectors_of_rewards_and_flags_of_another_shape_or_dtype_are_refused(register, given, said):
    register("Bad-v0", Toy, vector_entry_point=lambda num_envs, **_: ToyVector(num_envs, **given))
    with pytest.raises(EnvError, match=f"^Bad-v0 {said}$"):
        stepped("Bad-v0", "native")


def test_first_observations_are_checked_too(register, monkeypatch):
    monkeypatch.setattr(ToyVector, "reset", lambda self, **_: (np.full((2, 2), np.nan, np.float32), {}))
    register("Bad-v0", Toy, vector_entry_point=ToyVector)
    with pytest.raises(EnvError, match="Bad-v0 gave an observation that is not finite"):
        stepped("Bad-v0", "native")


@pytest.mark.parametrize(("given", "said"), [
    ({"observation": np.ones(3, np.float32)}, r"an observation float32\[3\], its space has float32\[2\]"),
    ({"observation": np.float32(1)}, r"an observation np.float32\(1.0\), its space has float32\[2\]"),
    ({"observation": np.array(["a", "b"])}, r"an observation <U1\[2\], its space has float32\[2\]"),
    ({"observation": np.ones(2, complex)}, r"an observation complex128\[2\], its space has float32\[2\]"),
    ({"observation": None}, r"an observation NoneType, its space has float32\[2\]"),
    ({"observation": [[1.0], [1.0, 2.0]]}, r"an observation list, its space has float32\[2\]"),
    ({"observation": {"a": FINE}}, r"an observation dict, its space has float32\[2\]"),
    ({"reward": np.zeros(2)}, r"a reward float64\[2\], expected a number"),
    ({"reward": None}, r"a reward NoneType, expected a number"),
    ({"reward": "1"}, r"a reward str, expected a number"),
    ({"terminated": np.zeros(2, bool)}, r"terminated = bool\[2\], expected a bool"),
    ({"terminated": 1.0}, r"terminated = 1.0, expected a bool"),
    ({"truncated": None}, r"truncated = NoneType, expected a bool")])
def test_one_environment_of_several_is_refused_with_what_it_gave(register, given, said):
    with pytest.raises(EnvError, match=f"^Bad-v0 gave {said}$"):
        stepped(register("Bad-v0", bad(**given)), "sync")


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_step_of_the_old_kind_is_refused(register, mode):
    class Old(Toy):
        def step(self, action):
            return FINE, 0.0, False, {}

    with pytest.raises(EnvError, match=r"^Old-v0 gave 4 values from step, expected observation, reward, terminated, trunc"):
        stepped(register("Old-v0", Old), mode)

    class Older(Toy):
        def reset(self, **options):
            return FINE

    with pytest.raises(EnvError, match=r"^Older-v0 gave float32\[2\] from reset, expected an observation and a dict"):
        stepped(register("Older-v0", Older), mode)


@pytest.mark.parametrize(("obs", "reward", "terminated"), [
    (np.ones(2, np.float64), np.float32(1), np.bool_(False)), ([1, 1], 1, np.array(False)),
    (np.ones(2, int), np.array(1.0), False)])
def test_what_converts_without_loss_is_let_through(register, obs, reward, terminated):
    out = stepped(register("Lax-v0", bad(obs, reward, terminated)), "sync")
    np.testing.assert_array_equal(out.obs, np.ones((2, 2)))
    assert out.obs.dtype == out.reward.dtype == np.float32
    np.testing.assert_array_equal(out.reward, 1)
    assert not out.terminated.any()


def test_a_fraction_for_a_whole_number_is_refused(register):
    class Count(Toy):
        observation_space = gymnasium.spaces.Box(0, 255, (2,), np.uint8)

        def observe(self):
            return np.zeros(2, np.uint8)

        def step(self, action):
            return np.full(2, 0.5), 0.0, False, False, {}

    with pytest.raises(EnvError, match=r"^Count-v0 gave an observation float64\[2\], its space has uint8\[2\]$"):
        stepped(register("Count-v0", Count), "sync")


def test_a_sound_environment_is_let_through(register):
    register("Toy-v0", Toy, vector_entry_point=lambda num_envs, **_: ToyVector(num_envs, FINE, 0.5))
    out = stepped("Toy-v0", "native")
    np.testing.assert_array_equal(out.obs, 1)
    np.testing.assert_array_equal(out.reward, np.float32([0.5, 0.5]))
    assert out.reward.dtype == np.float32
    assert not (out.terminated | out.truncated | out.reset).any()


def test_resets_may_be_told_by_a_number_that_changes_with_them(monkeypatch):
    games = iter([[0, 0], [0, 0], [0, 5], [0, 5], [3, 5]])
    venv = ToyVector(2, terminated=np.array([True, False]))
    step, reset = venv.step, venv.reset
    monkeypatch.setattr(venv, "step", lambda action: (*step(action)[:4], {"game": np.array(next(games))}))
    monkeypatch.setattr(venv, "reset", lambda **options: (reset()[0], {"game": np.array(next(games))}))
    host = HostEnvs(venv, Calls("Toy-v0", 0), episodes=lambda info: info["game"])
    host.reset(0)
    found = [host.step(np.zeros(2, int)).reset.tolist() for _ in range(4)]
    assert found == [[False, False], [False, True], [False, False], [True, False]]


# What it may do


INFOS = {"kinds": lambda t: {"distance": 3 if t % 2 else "unknown"}, "shapes": lambda t: {"legal": np.arange(t % 3 + 1)},
         "nested": lambda t: {"crash": {"speed": 1.0} if t % 2 else None}, "none": lambda t: None,
         "objects": lambda t: {"f": lambda: t}}


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_what_info_says_is_free(register, mode):
    class Says(Toy):
        def reset(self, **options):
            return super().reset(**options)[0], INFOS[self.kind](0)

        def step(self, action):
            return *super().step(action)[:4], INFOS[self.kind](self.t)

    for kind in list(INFOS)[:: 1 if mode == "sync" else 2]:
        out = stepped(register("Says-v0", type("Says", (Says,), {"kind": kind})), mode, steps=5)
        np.testing.assert_array_equal(out.obs[:, 0], 1)


def vector_form(**changes):
    return lambda num_envs, **_: type("Form", (ToyVector,), changes)(num_envs)


NO_FORM = {
    "arrays of JAX": ({"reset": lambda self, **_: (jnp.ones((self.num_envs, 2)), {})}, r"float32\[2, 2\] of JAX, its space"),
    "rewards of JAX": ({"step": lambda self, a: (np.ones((self.num_envs, 2), np.float32), jnp.zeros(self.num_envs), *2 * [
        np.zeros(self.num_envs, bool)], {})}, r"gave rewards float32\[2\] of JAX, expected"),
    "no mode": ({"metadata": {}}, "in a mode that its metadata do not name"),
    "same step": ({"metadata": {"autoreset_mode": AutoresetMode.SAME_STEP}}, "in the mode AutoresetMode.SAME_STEP, expected"),
    "raises": ({"__init__": lambda self, n: 1 / 0}, "cannot be made: division by zero"),
    "no step": ({"step": lambda self, a: 1 / 0}, "failed in step: ZeroDivisionError")}


@pytest.mark.parametrize("kind", NO_FORM)
def test_a_vector_form_that_cannot_be_used_is_not_taken_and_says_why_where_it_is_asked_for(register, kind):
    changes, said = NO_FORM[kind]
    register("Toy-v0", Toy, vector_entry_point=vector_form(**changes))
    venv = envs.make_host("Toy-v0", 2)
    assert type(venv.venv).__name__ == "SyncVectorEnv"
    venv.close()
    assert not envs.is_vectorized("Toy-v0")
    with pytest.raises(EnvError, match=said):
        stepped("Toy-v0", "native")


def test_wrappers_that_were_registered_are_worn_outside_of_the_time_limit(register):
    worn = WrapperSpec("Time", "gymnasium.wrappers:TimeAwareObservation", {})
    register("Toy-v0", Toy, max_episode_steps=2, additional_wrappers=(worn,))
    obs, _, _, truncated, reset = episodes("sync", 0, steps=3, env_id="Toy-v0")
    np.testing.assert_array_equal(obs[:, 0], [[0, 7, 0], [1, 7, 1], [2, 7, 2], [0, 7, 0]])
    np.testing.assert_array_equal(truncated[:, 0], [0, 0, 1, 0])
    np.testing.assert_array_equal(reset[:, 0], [0, 0, 0, 1])
    assert episodes("sync", 0, steps=3, env_id="Toy-v0", settings=envs.Config(time_limit=1))[3][1].all()


@pytest.mark.parametrize(("dtype", "given", "said"), [
    (np.float64, 1e39, r"not finite: 1e\+39 in environment 0 of 2, which float32 does not hold"),
    (np.int64, 2**40, "gave the observation 1099511627776, which int32 does not hold")])
def test_numbers_that_programs_cannot_hold_are_refused(register, dtype, given, said):
    class Huge(Toy):
        observation_space = spaces.Box(-np.inf, np.inf, (2,), dtype)

        def observe(self):
            return np.array([given if self.t else 0, 1], dtype)

    with pytest.raises(EnvError, match=said):
        stepped(register("Huge-v0", Huge), "sync")


@pytest.mark.parametrize(("space", "fine", "bad"), [
    (spaces.Discrete(3, start=-1), np.int64(-1), np.int64(2)),
    (spaces.MultiDiscrete([2, 3]), np.int64([1, 2]), np.int64([2, 0]))])
def test_a_class_that_its_space_does_not_have_is_refused(register, space, fine, bad):
    class Counts(Toy):
        observation_space = space

        def observe(self):
            return bad if self.t == 2 else fine

    stepped(register("Counts-v0", Counts), "sync")
    with pytest.raises(EnvError, match=r"Counts-v0 gave observations .*, its space is (Multi)?Discrete"):
        stepped("Counts-v0", "sync", steps=2)


# How it may end


class Words(BaseException):
    def __str__(self):
        raise ValueError


def leave(how):
    if isinstance(how, int):
        os._exit(how)
    raise how


def filmed(env_id):
    """Every call once."""
    with contextlib.closing(gymnasium_envs.make_vector_env(env_id, 1, "sync", envs.DEFAULTS, render=True)) as venv:
        venv.reset(0)
        venv.step(np.zeros(1, int))
        venv.render()


ENDS = [(SystemExit(0), "SystemExit: 0"), (KeyboardInterrupt(), "KeyboardInterrupt"), (Words(), "Words"),
        (StopIteration(), "Stop"), (7, r"SystemExit: os._exit\(7\)")]


class Told(Toy):
    """Tells `go` which of its calls it is in."""

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        self.go("make")

    def reset(self, **options):
        self.go("reset")
        return super().reset(**options)

    def step(self, action):
        self.go("step")
        return super().step(action)

    def render(self):
        self.go("render")

    def close(self):
        self.go("close")


@pytest.mark.parametrize("call", ["make", "reset", "step", "render", "close"])
def test_however_an_environment_leaves_a_call_both_are_named(register, call):
    for how, said in ENDS:
        class Leaves(Told):
            def go(self, name, how=how):
                if name == call:
                    leave(how)

        register("Leaves-v0", Leaves)
        with pytest.raises(EnvError, match=f"Leaves-v0 (failed in {call}: {said}|cannot be made: StopIteration)") as caught:
            filmed("Leaves-v0")
        assert isinstance(caught.value, EnvFailure) or "cannot be made" in str(caught.value)


def test_a_ctrl_c_in_an_environment_is_the_users(register):
    class Slow(Toy):
        def step(self, action):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        stepped(register("Slow-v0", Slow), "sync")


def test_of_what_failed_and_then_fails_to_close_the_first_is_told(register):
    class Twice(Toy):
        def step(self, action):
            raise RuntimeError("the first")

        def close(self):
            raise RuntimeError("the second")

    with pytest.raises(EnvFailure, match="Twice-v0 failed in step: RuntimeError: the first"):
        stepped(register("Twice-v0", Twice), "sync")


DEATHS = {"make": ("was killed by SIGTERM", lambda: os.kill(os.getpid(), 15)),
          "reset": ("was killed by SIGKILL", lambda: os.kill(os.getpid(), 9)),
          "step": (r"SystemExit: os._exit\(0\)", lambda: os._exit(0)), "close": ("RuntimeError: the lid is stuck", None)}


@pytest.mark.parametrize("call", DEATHS)
def test_a_process_that_dies_is_named_with_how_and_nothing_else_is_said(register, call, capfd):
    said, die = DEATHS[call]
    parent = os.getpid()

    class Dies(Told):
        def go(self, name):
            if name == call and os.getpid() != parent:
                if die is None:
                    raise RuntimeError("the lid is stuck")
                die()

    with pytest.raises(EnvFailure, match=f"^Dies-v0 failed in {call}: (the process of environment . of 2 )?{said}$"):
        stepped(register("Dies-v0", Dies), "async")
    assert multiprocessing.active_children() == []
    assert capfd.readouterr().err == ""
