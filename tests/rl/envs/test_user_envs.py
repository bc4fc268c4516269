"""Environments that are named by their class, and what can be wrong with one."""

import sys

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.experimental.functional import FuncEnv

from jaxdl.core import imports
from jaxdl.core.errors import EnvError
from jaxdl.rl import envs
from jaxdl.rl.envs import user_envs
from jaxdl.rl.types import EnvSpec, Stack

MODULE = '''
import jax.numpy as jnp
from gymnasium import spaces, Env
from gymnasium.experimental.functional import FuncEnv


class Line(FuncEnv):
    """Walk to the right; the fourth place is the last."""

    observation_space, action_space = spaces.Box(0, 9, (1,)), spaces.Discrete(2)

    def initial(self, rng, params=None):
        return jnp.zeros(1)

    def transition(self, state, action, rng, params=None):
        return state + action

    def observation(self, state, rng, params=None):
        return state

    def reward(self, state, action, next_state, rng, params=None):
        return action

    def terminal(self, state, rng, params=None):
        return state[0] >= 4


class Limited(Line):
    max_episode_steps = 3


class BadLimit(Line):
    max_episode_steps = "3"


class NoSpace(Line):
    action_space = None


class Broken(Line):
    def __init__(self):
        raise RuntimeError("no wheels\\nat all")


class Leaves(Line):
    def __init__(self):
        raise SystemExit


class LeavesLater(Line):
    def reward(self, state, action, next_state, rng, params=None):
        raise KeyboardInterrupt


class Sized(Line):
    def __init__(self, size=1):
        self.observation_space, self.size = spaces.Box(0, 9, (size,)), size

    def initial(self, rng, params=None):
        return jnp.zeros(self.size)


class Untraceable(Line):
    def transition(self, state, action, rng, params=None):
        return state + 1 if action else state


class OtherShape(Line):
    def observation(self, state, rng, params=None):
        return jnp.zeros(2)


class OtherDtype(Line):
    def observation(self, state, rng, params=None):
        return state.astype(int)


class TwoRewards(Line):
    def reward(self, state, action, next_state, rng, params=None):
        return jnp.zeros(2)


class TwoEnds(Line):
    def terminal(self, state, rng, params=None):
        return state >= jnp.zeros(2)


class Changes(Line):
    def initial(self, rng, params=None):
        return jnp.zeros(1, int)

    def transition(self, state, action, rng, params=None):
        return state + 1.0 * action

    def observation(self, state, rng, params=None):
        return state.astype(jnp.float32)


class Usual(Env):
    pass


number = 3
'''


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with modules, the current one."""
    (tmp_path / "our_envs.py").write_text(MODULE)
    (tmp_path / "half_done.py").write_text("import no_such_package\n")
    (tmp_path / "wrong.py").write_text("x = 1 +\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    yield tmp_path
    sys.path[:] = before
    for name in ("our_envs", "half_done", "wrong"):
        sys.modules.pop(name, None)


def test_a_class_of_the_current_folder_is_an_environment_on_the_device(here):
    env = envs.make_device("our_envs:Line")
    assert env.spec == envs.spec("our_envs:Line") == EnvSpec("our_envs:Line", spaces.Box(0, 9, (1,)), spaces.Discrete(2), None)
    state, obs = env.reset(jax.random.key(0), 2)
    rewards, places = [], [obs]
    for _ in range(5):
        state, out = env.step(state, np.array([1, 0]), env.sample_noise(jax.random.split(jax.random.key(0), (env.keys, 2))))
        rewards.append(out.reward)
        places.append(out.obs)
    np.testing.assert_array_equal(np.array(rewards), [[1, 0]] * 5)
    np.testing.assert_array_equal(np.array(places)[:, :, 0], np.array([[0, 1, 2, 3, 0, 1], [0] * 6]).T)


@pytest.mark.parametrize(("cls", "settings", "limit"), [
    ("Line", envs.Config(), None), ("Limited", envs.Config(), 3), ("Limited", envs.Config(time_limit=5), 5)])
def test_its_time_limit_is_its_own_or_that_of_the_settings(here, cls, settings, limit):
    assert envs.spec(f"our_envs:{cls}", settings).max_episode_steps == limit
    assert envs.make_device(f"our_envs:{cls}", settings).spec.max_episode_steps == limit


def test_its_frames_can_be_stacked(here):
    env = envs.make_device("our_envs:Line", envs.Config(frame_stack=4))
    assert env.spec.stack == Stack(4, "repeat")
    assert env.spec.observation_space.shape == (4, 1)
    assert env.reset(jax.random.key(0), 2)[1].shape == (2, 4, 1)


@pytest.mark.parametrize(("env_id", "said"), [
    ("no_such_module:Env", r"there is no environment 'no_such_module:Env': no module 'no_such_module' here or in"),
    ("our_envs.sub:Env", r"there is no environment 'our_envs.sub:Env': no module 'our_envs.sub' here"),
    ("half_done:Env", r"half_done:Env cannot be made: importing half_done failed with ModuleNotFoundError: No module"),
    ("wrong:Env", r"wrong:Env cannot be made: importing wrong failed with SyntaxError: invalid syntax"),
    ("our_envs:Lines", r"there is no environment 'our_envs:Lines': the module our_envs has no 'Lines'"),
    ("our_envs:number", r"there is no environment 'our_envs:number': it is no class but int"),
    ("our_envs:Usual", r"our_envs:Usual is no environment for the device: its class must be a subclass of gymnasium.*FuncEnv"),
    ("our_envs:Usual", r"gymnasium.register\('Mine-v0', Usual\), and use the module with the id: our_envs:Mine-v0"),
    ("our_envs:Leaves", r"our_envs:Leaves failed in make: SystemExit"),
    ("our_envs:Broken", r"our_envs:Broken cannot be made: RuntimeError: no wheels$"),
    ("our_envs:NoSpace", r"our_envs:NoSpace needs an attribute action_space that is a gymnasium.Space, got NoneType"),
    ("our_envs:BadLimit", r"our_envs:BadLimit needs max_episode_steps above 0 or None, got '3'")])
def test_what_is_no_environment_is_refused_with_what_it_is(here, env_id, said):
    for ask in (envs.spec, envs.make_device):
        with pytest.raises(EnvError, match=said):
            ask(env_id)


@pytest.mark.parametrize(("cls", "said"), [
    ("Untraceable", r"cannot be traced by JAX: TracerBoolConversionError: Attempted boolean conversion"),
    ("OtherShape", r"gives observations float32\[2\], its space has float32\[1\]"),
    ("OtherDtype", r"gives observations int32\[1\], its space has float32\[1\]"),
    ("TwoRewards", r"gives a reward of shape \[2\], expected one number"),
    ("TwoEnds", r"gives a terminated of shape \[2\], expected one number"),
    ("Changes", r"changes the form of its state in a step, from .*int32.* to .*float32")])
def test_a_class_that_breaks_its_promises_is_refused_where_it_is_made(here, cls, said):
    with pytest.raises(EnvError, match=f"our_envs:{cls} {said}"):
        envs.make_device(f"our_envs:{cls}")


@pytest.mark.parametrize(("env_id", "yes"), [
    ("module:Class", True), ("package.module:Class_2", True), ("module:Env-v0", False), ("CartPole-v1", False),
    ("ALE/Pong-v5", False), (":Class", False), ("module:", False), ("a b:C", False), ("", False), ("a:b:c", False)])
def test_which_ids_name_a_class(env_id, yes):
    assert imports.is_name(env_id) == yes


def test_ids_of_an_earlier_version_resolve_and_their_new_name_is_printed_once(capsys):
    user_envs._moved.cache_clear()
    for _ in range(2):
        spec = envs.spec("jaxdl.envs.cartpole:CartPolePositions")
    assert spec._replace(id="") == envs.spec("jaxdl.rl.envs.cartpole:CartPolePositions")._replace(id="")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "jaxdl.rl.envs.cartpole" in lines[0]


def test_the_twins_break_none_of_the_promises():
    for env_id in envs.TWINS:
        user_envs.check(envs.make_device(env_id))
    assert issubclass(envs.TWINS["CartPole-v1"], FuncEnv)
    assert "our_envs:Line" not in gymnasium.registry


def test_an_environment_that_leaves_while_it_is_traced_is_named(here):
    with pytest.raises(EnvError, match=r"our_envs:LeavesLater failed in step: KeyboardInterrupt"):
        envs.make_device("our_envs:LeavesLater")


def test_an_environment_of_ones_own_is_made_with_its_settings(here):
    env = envs.make_device("our_envs:Sized", envs.Config(env_kwargs=("size=4",)))
    assert env.reset(jax.random.key(0), 2)[1].shape == (2, 4)
    with pytest.raises(EnvError, match=r"our_envs:Sized cannot be made: TypeError: .*unexpected keyword argument 'sise'"):
        envs.make_device("our_envs:Sized", envs.Config(env_kwargs=("sise=4",)))
