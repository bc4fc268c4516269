"""Environments by id: what is made, and the sentences in which the rest is refused."""

import importlib.util
import subprocess
import sys

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from toys import Toy, ToyVector

from jaxdl.core.errors import EnvError, UserError
from jaxdl.rl import envs, evaluate
from jaxdl.rl.envs import functional
from jaxdl.rl.envs.cartpole import CartPolePositions
from jaxdl.rl.types import Actor, EnvSpec, Stack

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning:gymnasium"),  # of Gymnasium's checker, of broken environments
              pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),  # forks of a process with threads
              pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")]


# What is made


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "MountainCarContinuous-v0", "FrozenLake-v1"])
def test_the_spec_is_that_of_gymnasiums_environment(env_id):
    env, spec = gymnasium.make(env_id), envs.spec(env_id)
    assert spec == EnvSpec(env_id, env.observation_space, env.action_space, env.spec.max_episode_steps, lives="host")
    assert isinstance(spec.max_episode_steps, int)


def test_an_environment_without_a_time_limit_has_none_and_is_closed_again(register):
    register("Toy-v0", Toy)
    Toy.closed = 0
    assert envs.spec("Toy-v0") == EnvSpec(
        "Toy-v0", Toy.observation_space, Toy.action_space, None, lives="host")
    assert Toy.closed == 1


@pytest.mark.parametrize("env_id", ["CartPole-v1", "FrozenLake-v1", "Blackjack-v1"])
def test_the_settings_that_change_the_spec(env_id):
    plain, changed = envs.spec(env_id), envs.spec(env_id, envs.Config(frame_stack=3, time_limit=17))
    assert changed.observation_space == batch_space(plain.observation_space, 3)
    assert (changed.max_episode_steps, changed.stack) == (17, Stack(3, "repeat"))
    assert changed.action_space == plain.action_space
    assert plain.stack is None
    if env_id in envs.TWINS:
        assert envs.make_device(env_id, envs.Config(frame_stack=3, time_limit=17)).spec == changed


@pytest.mark.parametrize(("env_id", "auto", "refused"), [
    ("CartPole-v1", "device", None), ("FrozenLake-v1", "host", "device"), ("Breakout-MinAtar", "device", "host"),
    ("some.module:Class", "device", "host")])
def test_an_environment_runs_on_the_device_where_it_can(env_id, auto, refused):
    assert envs.resolve_backend(env_id, "auto") == auto
    for backend in {"device", "host"} - {refused}:
        assert envs.resolve_backend(env_id, backend) == backend


def test_a_backend_that_an_environment_does_not_have_is_refused():
    for refused in (lambda: envs.resolve_backend("FrozenLake-v1", "device"), lambda: envs.make_device("FrozenLake-v1")):
        with pytest.raises(EnvError, match=r"FrozenLake-v1 does not run on the device; these do: .*CartPole-v1.*backend=host"):
            refused()
    for refused in (lambda: envs.resolve_backend("Breakout-MinAtar", "host"), lambda: envs.make_host("Breakout-MinAtar", 2)):
        with pytest.raises(EnvError, match=r"Breakout-MinAtar runs on the device alone; use backend=device"):
            refused()


@pytest.mark.parametrize("env_id", envs.TWINS)
def test_the_device_environment_is_the_twin_with_the_spec_of_gymnasiums(env_id):
    env = gymnasium.make(env_id)
    wanted = EnvSpec(env_id, env.observation_space, env.action_space, env.spec.max_episode_steps, lives="host")
    assert envs.make_device(env_id).spec == envs.spec(env_id) == wanted


@pytest.mark.parametrize(("env_id", "mode", "kind"), [
    ("CartPole-v1", "auto", "CartPoleVectorEnv"), ("CartPole-v1", "native", "CartPoleVectorEnv"),
    ("CartPole-v1", "sync", "SyncVectorEnv"), ("CartPole-v1", "async", "Workers"),
    ("Pendulum-v1", "auto", "SyncVectorEnv"), ("Pendulum-v1", "async", "Workers")])
def test_environments_are_vectorized_as_asked(env_id, mode, kind):
    venv = envs.make_host(env_id, 3, mode)
    assert type(venv.venv).__name__ == kind
    assert venv.num_envs == 3
    venv.close()


def test_an_id_may_name_the_module_that_registers_it(tmp_path, monkeypatch):
    (tmp_path / "registers_ours.py").write_text(
        "import gymnasium\ngymnasium.register('Ours-v3', 'gymnasium.envs.classic_control.cartpole:CartPoleEnv')\n")
    monkeypatch.syspath_prepend(tmp_path)
    venv = envs.make_host("registers_ours:Ours-v3", 2)
    assert venv.reset(0).shape == (2, 4)
    venv.close()
    assert envs.spec("registers_ours:Ours-v3").action_space.n == 2
    del gymnasium.registry["Ours-v3"]
    with pytest.raises(EnvError, match="no_such_module:Ours-v3 cannot be made: No module named 'no_such_module'"):
        envs.spec("no_such_module:Ours-v3")


def test_a_native_vector_environment_is_known_and_its_absence_is_said():
    assert envs.is_vectorized("CartPole-v1")
    assert not envs.is_vectorized("CartPole-v1", envs.Config(frame_stack=2))
    assert not envs.is_vectorized("Pendulum-v1")
    with pytest.raises(EnvError, match="Pendulum-v1 has no vector environment of its own; use vectorization=sync or async"):
        envs.make_host("Pendulum-v1", 2, "native")


def test_an_id_without_its_version_is_the_newest_everywhere_or_nowhere():
    def answer(ask):
        try:
            return bool(ask("CartPole"))
        except EnvError:
            return "refused"

    assert len({answer(envs.spec), answer(envs.is_vectorized)}) == 1


def test_options_reach_the_environment():
    env = envs.make_env("CartPole-v1", render_mode="rgb_array", max_episode_steps=7)
    assert env.render_mode == "rgb_array"
    assert env.spec.max_episode_steps == 7
    env.close()


# What cannot be made


@pytest.mark.parametrize(("env_id", "close"), [
    ("CartPole-v7", "CartPole-v1"), ("cartpole-v1", "CartPole-v1"), ("MountainCarContinous-v0", "MountainCarContinuous-v0"),
    ("Breakout-Minatar", "Breakout-MinAtar"), ("breakout_minatar", "Breakout-MinAtar")])
def test_an_unknown_id_is_refused_with_the_nearest_that_there_is(env_id, close):
    for ask in (envs.spec, envs.is_vectorized, lambda i: envs.make_host(i, 2), lambda i: envs.make_host(i, 2, "native")):
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
    for ask in (envs.spec, lambda i: envs.make_host(i, 2), lambda i: envs.make_device(i, num_envs=2),
                lambda i: envs.resolve_backend(i, "auto")):
        with pytest.raises(EnvError, match=r"ALE/Pong-v5 needs packages that are not installed: pip install 'jaxdl\[atari\]'"):
            ask("ALE/Pong-v5")


def test_minatar_names_its_extra_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnax", None)
    for ask in (envs.spec, envs.make_device):
        with pytest.raises(EnvError, match=r"Freeway-MinAtar needs packages that are not installed.*'jaxdl\[gymnax\]'"):
            ask("Freeway-MinAtar")


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


def test_an_environment_that_cannot_be_had_is_a_mistake_of_the_user():
    assert issubclass(EnvError, UserError)


@pytest.mark.parametrize(("env_id", "close"), [
    ("PongNoFrameskip-v4", "ALE/Pong-v5"), ("SpaceInvadersNoFrameskip-v4", "ALE/SpaceInvaders-v5"), ("Pong-v0", "ALE/Pong-v5"),
    ("PongDeterministic-v4", "ALE/Pong-v5"), ("Pong-ram-v4", "ALE/Pong-v5"), ("MinAtar/Breakout-v1", "Breakout-MinAtar"),
    ("MinAtar/SpaceInvaders-v0", "SpaceInvaders-MinAtar"), ("space_invaders-minatar", "SpaceInvaders-MinAtar")])
def test_ids_of_other_libraries_are_refused_with_ours(env_id, close):
    pytest.importorskip("ale_py", reason="jaxdl[atari] is not installed")  # it registers old names, of raw frames
    pytest.importorskip("gymnax", reason="jaxdl[gymnax] is not installed")
    for ask in (envs.spec, lambda i: envs.make_host(i, 2, "sync"), lambda i: envs.make_env(i)):
        with pytest.raises(EnvError, match=f"there is no environment '{env_id}'; did you mean '{close}'"):
            ask(env_id)


def test_what_comes_with_gymnasium_is_told_from_what_does_not(register):
    assert envs.is_gymnasiums("CartPole-v1")
    assert envs.is_gymnasiums("FrozenLake-v1")
    assert not envs.is_gymnasiums(register("Toy-v0", Toy))
    assert not envs.is_gymnasiums("module:Toy-v0")


# Settings of the environment itself


def test_an_environment_is_made_with_its_settings_wherever_it_is_made(register):
    class Set(Toy):
        def __init__(self, size=1, name="a", render_mode=None):
            self.observation_space = spaces.Box(0, 9, (size,), np.float32)
            self.size, self.name = size, name

        def observe(self):
            return np.full(self.size, len(self.name), np.float32)

    class Form(ToyVector):
        def __init__(self, num_envs, size=1, name="a"):
            super().__init__(num_envs, np.full(size, len(name), np.float32))
            self.single_observation_space = spaces.Box(0, 9, (size,), np.float32)
            self.observation_space = batch_space(self.single_observation_space, num_envs)

        def reset(self, **options):
            return np.stack([self.obs] * self.num_envs), {}

    register("Set-v0", Set, vector_entry_point=Form)
    settings = envs.Config(env_kwargs=("size=3", "name=8x8"))
    assert envs.spec("Set-v0", settings).observation_space.shape == (3,)
    assert envs.make_env("Set-v0", settings).reset()[0].tolist() == [3, 3, 3]
    for mode in ("sync", "native", "auto"):
        venv = envs.make_host("Set-v0", 2, mode, settings)
        np.testing.assert_array_equal(venv.reset(0), np.full((2, 3), 3))
        venv.close()
    with pytest.raises(EnvError, match=r"Set-v0 cannot be made: .*unexpected keyword argument 'sise'"):
        envs.spec("Set-v0", envs.Config(env_kwargs=("sise=3",)))


def test_settings_are_read_as_python_writes_them_or_as_words():
    given = ("a=3", "b=-1e-3", "c=False", "d=true", "e=None", "f=[1, 2]", "g=4x4", "h=a=b", "i=", "j='3'")
    assert envs.Config(env_kwargs=given).kwargs == {
        "a": 3, "b": -1e-3, "c": False, "d": True, "e": None, "f": [1, 2], "g": "4x4", "h": "a=b", "i": "", "j": "3"}


@pytest.mark.parametrize(("given", "said"), [
    (("slippery",), "env_kwargs must be name=value ..., as in is_slippery=False, got 'slippery'"),
    (("=3",), "env_kwargs must be name=value"), (("a b=3",), "env_kwargs must be name=value"),
    (("a=1", "a=2"), "env_kwargs cannot set a: it is given twice"),
    (("render_mode=human",), "env_kwargs cannot set render_mode: it is the film's"),
    (("max_episode_steps=3",), "env_kwargs cannot set max_episode_steps: use time_limit")])
def test_settings_that_are_none_are_refused(given, said):
    with pytest.raises(UserError, match=said):
        envs.config.validate(envs.Config(env_kwargs=given))


def test_a_twin_has_no_settings_and_leaves_them_to_the_original():
    settings = envs.Config(env_kwargs=("g=1.5",))
    assert envs.resolve_backend("Pendulum-v1", "auto", settings) == "host"
    for refused in (lambda: envs.resolve_backend("Pendulum-v1", "device", settings),
                    lambda: envs.make_device("Pendulum-v1", settings)):
        with pytest.raises(EnvError, match=r"the twin of Pendulum-v1 on the device takes no env_kwargs; use backend=host"):
            refused()
    assert envs.make_env("Pendulum-v1", settings).unwrapped.g == 1.5


def test_what_is_made_to_be_looked_at_is_closed_whatever_it_is(register, monkeypatch):
    monkeypatch.setattr(Toy, "closed", 0)
    monkeypatch.setattr(Toy, "observation_space", spaces.Dict({"words": spaces.Text(5)}))
    with pytest.raises(EnvError, match="cannot be flattened"):
        envs.spec(register("Toy-v0", Toy))
    assert Toy.closed == 1


# What an algorithm cannot serve


BOX, DISCRETE = spaces.Box(-1, 1, (3,)), spaces.Discrete(4)


def checked(observation, action, actions=(spaces.Discrete,), **options):
    envs.check_spaces(EnvSpec("Some-v0", observation, action, None), "dqn", actions=actions,
                      observations=(spaces.Box, spaces.Discrete), **options)


@pytest.mark.parametrize(("observation", "action", "said"), [
    (BOX, BOX, r"dqn needs actions of Discrete, and Some-v0 has Box"),
    (BOX, spaces.MultiDiscrete([2, 2]), r"dqn needs actions of Discrete, and Some-v0 has MultiDiscrete\(\[2 2\]\)"),
    (spaces.Dict({"a": BOX}), DISCRETE, r"dqn needs observations of Box or Discrete, and Some-v0 has Dict"),
    (spaces.Tuple([BOX]), DISCRETE, r"dqn needs observations of Box or Discrete, and Some-v0 has Tuple"),
    (BOX, spaces.Discrete(3, start=2**40), r"Some-v0 has actions beyond int32, Discrete\(3, start=1099511627776\)"),
    (spaces.Discrete(3, start=2**31 - 2), DISCRETE, r"Some-v0 has observations beyond int32, Discrete\(3, start=2147483646\)"),
    (spaces.Box(-1, 1, (2, 0)), DISCRETE, r"dqn needs observations that are not empty, and Some-v0 has Box")])
def test_spaces_that_cannot_be_served_are_refused_by_name(observation, action, said):
    with pytest.raises(EnvError, match=said):
        checked(observation, action)


@pytest.mark.parametrize("observation", [BOX, DISCRETE, spaces.Box(-1, 1, ()), spaces.Box(0, 255, (2, 2, 1), np.uint8),
                                         spaces.Discrete(3, start=2**31 - 3)])
def test_spaces_that_can_be_served_are_let_through(observation):
    checked(observation, DISCRETE)


# What there is


@pytest.mark.parametrize(("env_id", "lives"), [
    ("CartPole-v1", "host"), ("FrozenLake-v1", "host"), ("Breakout-MinAtar", "jax"), ("ALE/Pong-v5", "emulator"),
    ("jaxdl.rl.envs.cartpole:CartPolePositions", "jax")])
def test_where_an_environment_runs_is_known_before_it_is_made_and_of_its_spec(env_id, lives):
    assert envs.lives(env_id) == envs.spec(env_id).lives == lives


def test_a_new_family_is_one_entry_of_the_table(monkeypatch):
    ours = functional.family(lambda env_id, settings: CartPolePositions(), lambda env_id: env_id.startswith("Ours/"),
                             lambda: ["Ours/Pole"])
    monkeypatch.setattr(envs, "FAMILIES", (ours, *envs.FAMILIES))
    assert envs.make_device("Ours/Pole").spec == envs.spec("Ours/Pole")
    assert dict(envs.listing())["Ours/Pole"] == ["device"]
    with pytest.raises(EnvError, match=r"Ours/Pole .*backend=device"):
        envs.resolve_backend("Ours/Pole", "host")
    push = Actor(lambda n: None, lambda params, carry, obs, key, t: (None, jnp.ones(len(obs), jnp.int32), None))
    assert evaluate.evaluate(push, None, "Ours/Pole", episodes=3, seed=0).lengths.max() < 20


def test_the_list_holds_what_can_be_made_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo leaves a log where it is
    listed = dict(envs.listing())
    assert listed["CartPole-v1"] == ["device", "host"]
    assert {*envs.TWINS, "FrozenLake-v1"} <= set(listed)
    assert list(listed) == sorted(listed)
    games = [i for i in listed if envs.lives(i) == "emulator"]
    for env_id, backends in listed.items():
        assert backends == [b for b in ("device", "host") if (b == "device" and envs.resolve_backend(env_id, "auto") == b) or
                            (b == "host" and envs.lives(env_id) != "jax")]
        if env_id not in games[3:]:
            assert envs.spec(env_id).id == env_id
    newest = {}
    for entry in gymnasium.registry.values():
        if entry.namespace is None and not str(entry.entry_point).startswith("ale_py"):
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


@pytest.mark.parametrize(("package", "env_id"), [("mujoco", "Ant-v5"), ("Box2D", "LunarLander-v3"),
                                                   ("gymnax", "Asterix-MinAtar")])
@pytest.mark.parametrize("there", [True, False])
def test_an_environment_is_listed_where_its_package_is_there(package, env_id, there, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda name, *a: (find("math") if there else None) if name == package else find(name, *a))
    envs.gymnasium_envs._importable.cache_clear()
    listed = dict(envs.listing())
    envs.gymnasium_envs._importable.cache_clear()
    assert (env_id in listed) == there
    assert "CartPole-v1" in listed


def test_importing_the_environments_imports_no_package_of_an_extra():
    code = "import sys, jaxdl.rl.envs; print(sorted({'ale_py', 'gymnax', 'mujoco', 'Box2D', 'pygame'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
