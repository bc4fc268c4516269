"""Environments by id: what is made, what its steps say, and the sentences in which the rest is refused."""

import importlib.util
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from jaxdl import envs
from jaxdl.envs import CartPole
from jaxdl.errors import EnvError, UserError
from jaxdl.types import EnvSpec

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning:gymnasium"),  # of Gymnasium's checker, of broken environments
              pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),  # forks of a process with threads
              pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")]


FINE = np.ones(2, np.float32)


class Toy(gymnasium.Env):
    """Three steps an episode; the observation counts them."""

    observation_space = spaces.Box(0, 9, (2,), np.float32)
    action_space = spaces.Discrete(2)
    closed = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observe(), {}

    def step(self, action):
        self.t += 1
        return self.observe(), float(10 * self.t + action), self.t == 3, False, {}

    def observe(self):
        return np.array([self.t, 7], np.float32)

    def close(self):
        type(self).closed += 1


class ToyVector(VectorEnv):
    """A vector environment of Toy's own: what it gives is what it was made to give."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012
    single_observation_space, single_action_space = Toy.observation_space, Toy.action_space

    def __init__(self, num_envs=1, obs=FINE, reward=0.0, max_episode_steps=None):
        self.num_envs, self.obs, self.reward = num_envs, obs, reward
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed=None, options=None):
        return np.ones((self.num_envs, 2), np.float32), {}

    def step(self, action):
        n, no = self.num_envs, np.zeros(self.num_envs, bool)
        obs = np.stack([self.obs] * n) if isinstance(self.obs, np.ndarray) else self.obs
        return obs, np.full(n, self.reward), no, no, {}


@pytest.fixture
def register():
    """Register an environment for one test."""

    def add(env_id, entry_point, **options):
        gymnasium.register(env_id, entry_point, **options)
        return env_id

    before = dict(gymnasium.registry)
    yield add
    gymnasium.registry.clear()
    gymnasium.registry.update(before)


def stepped(env_id, mode, num_envs=2):
    """Reset an environment and step it once."""
    venv = envs.make_host(env_id, num_envs, mode)
    try:
        envs.host_reset(venv, 0)
        return envs.host_step(venv, np.zeros(num_envs, np.int32))
    finally:
        venv.close()


# What is made


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "MountainCarContinuous-v0", "FrozenLake-v1"])
def test_the_spec_is_that_of_gymnasiums_environment(env_id):
    env, spec = gymnasium.make(env_id), envs.spec(env_id)
    assert spec == EnvSpec(env_id, env.observation_space, env.action_space, env.spec.max_episode_steps)
    assert isinstance(spec.max_episode_steps, int)


def test_an_environment_without_a_time_limit_has_none_and_is_closed_again(register):
    register("Toy-v0", Toy)
    Toy.closed = 0
    assert envs.spec("Toy-v0") == EnvSpec("Toy-v0", Toy.observation_space, Toy.action_space, None)
    assert Toy.closed == 1


def test_a_twin_is_preferred_and_the_device_is_refused_without_one():
    assert envs.resolve_backend("CartPole-v1", "auto") == "device"
    assert envs.resolve_backend("CartPole-v1", "device") == "device"
    assert envs.resolve_backend("CartPole-v1", "host") == "host"
    assert envs.resolve_backend("Pendulum-v1", "auto") == "host"
    assert envs.resolve_backend("Pendulum-v1", "host") == "host"
    for refused in (lambda: envs.resolve_backend("Pendulum-v1", "device"), lambda: envs.make_device("Pendulum-v1")):
        with pytest.raises(EnvError, match=r"Pendulum-v1 does not run on the device; these do: CartPole-v1.*backend=host"):
            refused()


def test_the_device_environment_is_the_twin_with_the_spec_of_gymnasiums():
    assert envs.make_device("CartPole-v1").spec == envs.spec("CartPole-v1")
    assert envs.TWINS["CartPole-v1"] is CartPole


@pytest.mark.parametrize(("env_id", "mode", "kind"), [
    ("CartPole-v1", "auto", "CartPoleVectorEnv"), ("CartPole-v1", "native", "CartPoleVectorEnv"),
    ("CartPole-v1", "sync", "SyncVectorEnv"), ("CartPole-v1", "async", "AsyncVectorEnv"),
    ("Pendulum-v1", "auto", "SyncVectorEnv"), ("Pendulum-v1", "async", "AsyncVectorEnv")])
def test_environments_are_vectorized_as_asked(env_id, mode, kind):
    venv = envs.make_host(env_id, 3, mode)
    try:
        assert type(venv).__name__ == kind
        assert venv.num_envs == 3
        assert venv.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    finally:
        venv.close()


def test_a_native_vector_environment_is_known_and_its_absence_is_said():
    assert envs.has_native("CartPole-v1")
    assert not envs.has_native("Pendulum-v1")
    with pytest.raises(EnvError, match="Pendulum-v1 has no vector environment of its own; use vectorization=sync or async"):
        envs.make_host("Pendulum-v1", 2, "native")


def test_an_id_without_its_version_is_the_newest_everywhere_or_nowhere():
    def answer(ask):
        try:
            return bool(ask("CartPole"))
        except EnvError:
            return "refused"

    assert len({answer(envs.spec), answer(envs.has_native)}) == 1


def test_options_reach_the_environment():
    env = envs.make_single("CartPole-v1", render_mode="rgb_array", max_episode_steps=7)
    assert env.render_mode == "rgb_array"
    assert env.spec.max_episode_steps == 7
    env.close()


# What its steps say


def episodes(mode, action_of_resets, steps=30, env_id="CartPole-v1"):
    """Three copies under constant actions; at steps that only reset, another action may be given."""
    venv, found = envs.make_host(env_id, 3, mode), []
    try:
        obs, resets = envs.host_reset(venv, 5), np.zeros(3, bool)
        found.append((obs, np.zeros(3, np.float32), resets, resets))
        for _ in range(steps):
            action = np.where(resets, action_of_resets, [0, 1, 0])
            found.append(envs.host_step(venv, action))
            resets = ~resets & (found[-1][2] | found[-1][3])
    finally:
        venv.close()
    return [np.stack(x) for x in zip(*found, strict=True)]


@pytest.mark.parametrize("mode", ["sync", "async", "native"])
def test_an_ended_episode_shows_its_last_observation_and_the_step_after_it_only_resets(mode):
    obs, reward, terminated, truncated = episodes(mode, 0)
    assert (obs.dtype, reward.dtype, terminated.dtype, truncated.dtype) == (np.float32, np.float32, bool, bool)
    assert obs.shape == (31, 3, 4)
    assert not truncated.any()
    assert (terminated.sum(axis=0) >= 2).all()
    fallen = (np.abs(obs[..., 0]) > 2.4) | (np.abs(obs[..., 2]) > 12 * 2 * np.pi / 360)
    np.testing.assert_array_equal(terminated, fallen)
    resets = np.concatenate([np.ones((1, 3), bool), terminated[:-1]])
    np.testing.assert_array_equal(reward, ~resets)
    assert (np.abs(obs[resets]) < 0.05).all()
    follows = ~resets[1:]
    np.testing.assert_allclose(obs[1:, :, 0][follows], (obs[:-1, :, 0] + 0.02 * obs[:-1, :, 1])[follows], atol=1e-6)
    np.testing.assert_allclose(obs[1:, :, 2][follows], (obs[:-1, :, 2] + 0.02 * obs[:-1, :, 3])[follows], atol=1e-6)
    assert len(np.unique(obs[resets], axis=0)) == resets.sum()

    for x, y in zip(episodes(mode, 1), (obs, reward, terminated, truncated), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_time_limit_truncates_and_is_counted_anew_in_every_episode(register):
    register("Toy-v0", Toy, max_episode_steps=2)
    obs, reward, terminated, truncated = episodes("sync", 1, steps=6, env_id="Toy-v0")
    np.testing.assert_array_equal(obs[:, 1], [[0, 7], [1, 7], [2, 7], [0, 7], [1, 7], [2, 7], [0, 7]])
    np.testing.assert_array_equal(reward[:, 1], [0, 11, 21, 0, 11, 21, 0])
    assert not terminated.any()
    np.testing.assert_array_equal(truncated[:, 1], [0, 0, 1, 0, 0, 1, 0])


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_copies_begin_with_consecutive_seeds(mode):
    venv, env = envs.make_host("CartPole-v1", 3, mode), gymnasium.make("CartPole-v1")
    np.testing.assert_array_equal(envs.host_reset(venv, 11), [env.reset(seed=11 + i)[0] for i in range(3)])
    venv.close()


@pytest.mark.parametrize("seed", [-1, 2**31, 2**40 + 5, np.int64(3)])
def test_any_integer_is_a_seed(seed):
    venv = envs.make_host("CartPole-v1", 2)
    first = envs.host_reset(venv, seed)
    envs.host_step(venv, np.array([0, 1]))
    np.testing.assert_array_equal(envs.host_reset(venv, seed), first)
    assert not np.array_equal(envs.host_reset(venv, int(seed) + 1), first)


# What cannot be made


@pytest.mark.parametrize(("env_id", "close"), [("CartPole-v7", "CartPole-v1"), ("cartpole-v1", "CartPole-v1"),
                                               ("MountainCarContinous-v0", "MountainCarContinuous-v0")])
def test_an_unknown_id_is_refused_with_the_nearest_that_there_is(env_id, close):
    for ask in (envs.spec, envs.has_native, lambda i: envs.make_host(i, 2), lambda i: envs.make_host(i, 2, "native")):
        with pytest.raises(EnvError, match=f"there is no environment '{env_id}'; did you mean '{close}'"):
            ask(env_id)


@pytest.mark.parametrize("env_id", ["Xyzzy-v0", "", "x y", "-v0", "/", "no good"])
def test_an_id_that_is_like_no_other_is_refused_with_where_to_look(env_id):
    with pytest.raises(EnvError, match=f"there is no environment '{env_id}'; 'jaxdl list' names"):
        envs.spec(env_id)


def missing(name):
    def make(*args, **kwargs):
        raise gymnasium.error.DependencyNotInstalled(f"{name} is not installed, run pip install gymnasium[{name}]")

    return make


@pytest.mark.parametrize(("env_id", "extra"), [("Ant-v5", "mujoco"), ("LunarLander-v3", "box2d")])
def test_packages_that_are_missing_are_named_by_their_extra(env_id, extra, monkeypatch):
    monkeypatch.setattr(gymnasium, "make", missing(extra))
    monkeypatch.setattr(gymnasium, "make_vec", missing(extra))
    for ask in (envs.spec, lambda i: envs.make_host(i, 2, "sync")):
        with pytest.raises(EnvError, match=rf"{env_id} needs packages that are not installed: pip install 'jaxdl\[{extra}\]'"):
            ask(env_id)


def test_an_atari_game_names_its_extra_where_it_is_missing(monkeypatch):
    for env_id in [i for i in gymnasium.registry if i.startswith("ALE/")]:
        monkeypatch.delitem(gymnasium.registry, env_id)
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(EnvError, match=r"ALE/Pong-v5 needs packages that are not installed: pip install 'jaxdl\[atari\]'"):
        envs.spec("ALE/Pong-v5")


def test_a_missing_package_of_another_environment_is_named_as_it_named_itself(register):
    def make():
        raise ImportError("No module named 'sonar'")

    with pytest.raises(EnvError, match=r"Whale-v0 cannot be made: No module named 'sonar'"):  # there is an extra "ale"
        envs.spec(register("Whale-v0", make))


def test_an_environment_that_mujoco_dropped_is_not_promised_for_an_extra():
    with pytest.raises(EnvError, match=r"Ant-v2 cannot be made: .*mujoco"):
        envs.spec("Ant-v2")


@pytest.mark.parametrize(("error", "said"), [
    (ValueError("the motor\nis of no known make"), "Broken-v0 cannot be made: the motor"),
    (RuntimeError(), "Broken-v0 cannot be made: RuntimeError")])
def test_an_environment_that_fails_to_be_made_says_why_in_one_line(register, error, said):
    def make():
        raise error

    register("Broken-v0", make)
    for ask in (envs.spec, lambda i: envs.make_host(i, 2, "sync")):
        with pytest.raises(EnvError) as caught:
            ask("Broken-v0")
        assert str(caught.value) == said
        assert caught.value.__cause__ is error


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED, None])
def test_another_way_of_resetting_is_refused_and_closed(register, monkeypatch, mode):
    closed = []
    monkeypatch.setattr(ToyVector, "metadata", {"autoreset_mode": mode} if mode else {})
    monkeypatch.setattr(ToyVector, "close", lambda self, **_: closed.append(self))
    register("Toy-v0", Toy, vector_entry_point=ToyVector)
    with pytest.raises(EnvError, match=f"Toy-v0 resets its episodes in the mode {mode}.*expected Gymnasium's NEXT_STEP"):
        envs.make_host("Toy-v0", 2)
    assert len(closed) == 1


def test_an_environment_that_cannot_be_had_is_a_mistake_of_the_user():
    assert issubclass(EnvError, UserError)


# What an environment must not do


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("where", ["reset", "step"])
def test_an_environment_that_raises_is_named_with_what_it_said(register, where, mode):
    class Raises(Toy):
        def observe(self):
            if where == "reset" or self.t > 0:
                raise RuntimeError("the motor broke")
            return super().observe()

    with pytest.raises(EnvError, match=r"Raises-v0 failed: RuntimeError: the motor broke"):
        stepped(register("Raises-v0", Raises), mode)


def bad(observation, reward=0.0):
    class Bad(Toy):
        def step(self, action):
            return observation, reward, False, False, {}

    return Bad


@pytest.mark.parametrize("mode", ["sync", "native"])
@pytest.mark.parametrize(("obs", "reward", "said"), [
    (np.array([np.nan, 1], np.float32), 0.0, "gave an observation that is not finite"),
    (np.array([np.inf, 1], np.float32), 0.0, "gave an observation that is not finite"),
    (FINE, np.nan, "gave a reward that is not finite"),
    (FINE, -np.inf, "gave a reward that is not finite")])
def test_numbers_that_are_not_finite_are_refused(register, obs, reward, said, mode):
    def vector(num_envs, **kwargs):
        return ToyVector(num_envs, obs, reward)

    register("Bad-v0", bad(obs, reward), vector_entry_point=vector)
    with pytest.raises(EnvError, match=f"Bad-v0 {said}"):
        stepped("Bad-v0", mode)


@pytest.mark.parametrize(("obs", "found"), [
    (np.ones(3, np.float32), r"float32\[2, 3\]"), (np.ones(2, np.float64), r"float64\[2, 2\]"),
    (np.ones((), np.float32), r"float32\[2\]"), (np.ones(2, np.int32), r"int32\[2, 2\]"), ("rubbish", "str"),
    (None, "NoneType")])
def test_observations_of_another_shape_or_dtype_are_refused(register, obs, found):
    register("Bad-v0", Toy, vector_entry_point=lambda num_envs, **_: ToyVector(num_envs, obs))
    with pytest.raises(EnvError, match=rf"Bad-v0 gave observations {found}, its space has float32\[2, 2\]"):
        stepped("Bad-v0", "native")


def test_first_observations_are_checked_too(register, monkeypatch):
    monkeypatch.setattr(ToyVector, "reset", lambda self, **_: (np.full((2, 2), np.nan, np.float32), {}))
    register("Bad-v0", Toy, vector_entry_point=ToyVector)
    with pytest.raises(EnvError, match="Bad-v0 gave an observation that is not finite"):
        stepped("Bad-v0", "native")


@pytest.mark.parametrize("obs", [np.ones(3, np.float32), np.array(["a", "b"]), None])
def test_what_gymnasium_cannot_put_side_by_side_is_refused(register, obs):
    with pytest.raises(EnvError, match="Bad-v0 failed: "):
        stepped(register("Bad-v0", bad(obs)), "sync")


def test_a_sound_environment_is_let_through(register):
    register("Toy-v0", Toy, vector_entry_point=lambda num_envs, **_: ToyVector(num_envs, FINE, 0.5))
    obs, reward, terminated, truncated = stepped("Toy-v0", "native")
    np.testing.assert_array_equal(obs, 1)
    np.testing.assert_array_equal(reward, np.float32([0.5, 0.5]))
    assert reward.dtype == np.float32
    assert not (terminated | truncated).any()


# What an algorithm cannot serve


BOX, DISCRETE = spaces.Box(-1, 1, (3,)), spaces.Discrete(4)


def checked(observation, action):
    envs.check_spaces(EnvSpec("Some-v0", observation, action, None), "dqn", actions=(spaces.Discrete,),
                      observations=(spaces.Box, spaces.Discrete))


@pytest.mark.parametrize(("observation", "action", "said"), [
    (BOX, BOX, r"dqn needs actions of Discrete, and Some-v0 has Box"),
    (BOX, spaces.MultiDiscrete([2, 2]), r"dqn needs actions of Discrete, and Some-v0 has MultiDiscrete\(\[2 2\]\)"),
    (spaces.Dict({"a": BOX}), DISCRETE, r"dqn needs observations of Box or Discrete, and Some-v0 has Dict"),
    (spaces.Tuple([BOX]), DISCRETE, r"dqn needs observations of Box or Discrete, and Some-v0 has Tuple"),
    (BOX, spaces.Discrete(3, start=1), r"dqn needs actions that count from 0, and Some-v0 has Discrete\(3, start=1\)"),
    (spaces.Discrete(3, start=-1), DISCRETE, r"observations that count from 0, and Some-v0 has Discrete\(3, start=-1\)"),
    (spaces.Box(-1, 1, (2, 0)), DISCRETE, r"dqn needs observations that are not empty, and Some-v0 has Box")])
def test_spaces_that_cannot_be_served_are_refused_by_name(observation, action, said):
    with pytest.raises(EnvError, match=said):
        checked(observation, action)


@pytest.mark.parametrize("observation", [BOX, DISCRETE, spaces.Box(-1, 1, ()), spaces.Box(0, 255, (2, 2, 1), np.uint8)])
def test_spaces_that_can_be_served_are_let_through(observation):
    checked(observation, DISCRETE)


# What there is


def test_the_list_holds_what_can_be_made_and_nothing_else():
    listed = dict(envs.listing())
    assert listed["CartPole-v1"] == ["device", "host"]
    assert {"Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"} <= set(listed)
    assert [i for i, backends in listed.items() if "device" in backends] == list(envs.TWINS)
    assert all(backends == ["host"] for i, backends in listed.items() if i not in envs.TWINS)
    assert list(listed) == sorted(listed)
    for env_id in listed:
        envs.spec(env_id)
    newest = {}
    for entry in gymnasium.registry.values():
        if entry.namespace is None:
            newest[entry.name] = max(newest.get(entry.name, 0), entry.version or 0)
    for name, version in newest.items():
        if f"{name}-v{version}" not in listed:
            with pytest.raises(EnvError):
                envs.spec(f"{name}-v{version}")


def test_the_list_has_the_newest_version_of_each(register):
    real = "gymnasium.envs.classic_control.cartpole:CartPoleEnv"
    for version in (2, 10, 9):
        register(f"Ours-v{version}", real)
    register("Gone-v0", "no_such_package.envs:Env")
    listed = [env_id for env_id, _ in envs.listing()]
    assert [i for i in listed if i.startswith("Ours")] == ["Ours-v10"]
    assert "Gone-v0" not in listed
    assert "CartPole-v0" not in listed


@pytest.mark.parametrize(("package", "env_id"), [("mujoco", "Ant-v5"), ("Box2D", "LunarLander-v3")])
@pytest.mark.parametrize("there", [True, False])
def test_an_environment_is_listed_where_its_package_is_there(package, env_id, there, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda name, *a: (find("math") if there else None) if name == package else find(name, *a))
    envs._importable.cache_clear()
    listed = dict(envs.listing())
    envs._importable.cache_clear()
    assert (env_id in listed) == there
    assert "CartPole-v1" in listed
