"""Observations of several parts as one vector: Gymnasium's, on the host and the device, and what is no part of one."""

import sys
import types

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.experimental.functional import FuncEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array
from toys import Toy, ToyVector

from jaxdl.core.errors import EnvError
from jaxdl.rl import envs
from jaxdl.rl.envs import composite_spaces
from jaxdl.rl.types import EnvSpec

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning:gymnasium"),  # of Gymnasium, of broken environments
              pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),  # forks of a process with threads
              pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")]

ROOM = spaces.Dict({"place": spaces.Box(-1, 1, (2,)), "card": spaces.Discrete(3, start=-1)})  # sorted: card, place
EVERY = spaces.Dict({
    "z": spaces.Tuple([spaces.Box(-1, 1, (2, 3)), spaces.Dict({"b": spaces.Discrete(4, start=7), "a": spaces.Box(0, 1, ())})]),
    "many": spaces.MultiDiscrete([[2, 3], [1, 4]], start=[[0, -5], [2, 1]]), "bits": spaces.MultiBinary((2, 2)),
    "bytes": spaces.Box(0, 255, (3,), np.uint8), "last": spaces.Box(0, 1, (1,), np.bool_)})


def batched(space, observations):
    """Observations side by side."""
    return concatenate(space, observations, create_empty_array(space, len(observations)))


@pytest.mark.parametrize("space", [
    EVERY, ROOM, spaces.Tuple([spaces.Discrete(5), spaces.Discrete(2)]), spaces.Dict({"a": spaces.Box(0, 1, (2,), np.bool_)}),
    spaces.Tuple([spaces.MultiBinary(2), spaces.Box(0, 9, (2,), np.uint8)])])
def test_a_traced_vector_is_that_of_gymnasium(space):
    space.seed(0)
    samples = [space.sample() for _ in range(30)]
    found = jax.jit(jax.vmap(lambda obs: composite_spaces.flatten(space, obs)))(batched(space, samples))
    np.testing.assert_array_equal(found, [spaces.flatten(space, s) for s in samples])
    flat = composite_spaces.flat_space("Some-v0", space)
    assert (found.shape[1:], found.dtype) == (flat.shape, jax.dtypes.canonicalize_dtype(flat.dtype))
    assert flat == spaces.flatten_space(space)
    for sample in samples:
        composite_spaces.check("Some-v0", space, sample)


# On the host


GOOD = {"place": np.float32([0.5, -0.5]), "card": 0}


def room(obs=GOOD, space=ROOM):
    """A toy that counts its steps in its place, or answers `obs` to every step after its first observation."""
    class Room(Toy):
        observation_space = space

        def observe(self):
            if self.t > 0 and obs is not GOOD:
                return obs
            return {"place": np.float32([self.t / 4, -1]), "card": np.int64(self.t - 1 if self.t < 3 else 1)}

    return Room


class Rooms(ToyVector):
    """The same as a vector environment of its own."""

    single_observation_space = ROOM

    def __init__(self, num_envs=1, obs=GOOD):
        super().__init__(num_envs, obs)
        self.t = 0

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return self.observe(), {}

    def step(self, action):
        self.t += 1
        return self.observe(), *super().step(action)[1:]

    def observe(self):
        single = room(self.obs)()
        single.t = self.t
        return batched(ROOM, [single.observe()] * self.num_envs)


WANTED = np.array([[1, 0, 0, 0, -1], [0, 1, 0, 0.25, -1], [0, 0, 1, 0.5, -1], [0, 0, 1, 0.75, -1]])


@pytest.mark.parametrize("mode", ["sync", "async", "native"])
def test_a_host_environment_of_several_parts_gives_vectors(register, mode):
    register("Room-v0", room(), vector_entry_point=Rooms)
    assert envs.spec("Room-v0") == EnvSpec(
        "Room-v0", spaces.flatten_space(ROOM), Toy.action_space, None, lives="host")
    venv = envs.make_host("Room-v0", 2, mode)
    assert (type(venv.venv).__name__ == "FlattenObservation") == (mode == "native")
    obs = [venv.reset(0)] + [venv.step(np.zeros(2, np.int32)).obs for _ in range(3)]
    venv.close()
    np.testing.assert_array_equal(obs, np.stack([WANTED, WANTED], axis=1))


def test_vectors_of_several_parts_are_stacked(register):
    register("Room-v0", room())
    settings = envs.Config(frame_stack=2)
    assert envs.spec("Room-v0", settings).observation_space == batch_space(spaces.flatten_space(ROOM), 2)
    venv = envs.make_host("Room-v0", 2, settings=settings)
    obs = [venv.reset(0)[1], venv.step(np.zeros(2, np.int32)).obs[1]]
    venv.close()
    np.testing.assert_array_equal(obs, [WANTED[[0, 0]], WANTED[[0, 1]]])


def test_gymnasiums_blackjack_gives_one_hot_vectors():
    venv, env = envs.make_host("Blackjack-v1", 2), gymnasium.make("Blackjack-v1")
    obs = venv.reset(4)
    venv.close()
    np.testing.assert_array_equal(obs, [spaces.flatten(env.observation_space, env.reset(seed=4 + i)[0]) for i in range(2)])
    assert envs.spec("Blackjack-v1").observation_space.shape == obs.shape[1:] == (32 + 11 + 2,)


@pytest.mark.parametrize(("obs", "said"), [
    ({"place": GOOD["place"]}, r"an observation of the parts place, its space has the parts card, place"),
    (GOOD | {"wind": 1}, r"an observation of the parts card, place, wind, its space has the parts card, place"),
    (GOOD["place"], r"an observation float32\[2\], its space has the parts card, place"),
    (GOOD | {"place": np.ones(3, np.float32)}, r"an observation whose part 'place' is float32\[3\], its space has float32"),
    (GOOD | {"card": 0.5}, r"an observation whose part 'card' is 0.5, its space has int64\[\]"),
    (GOOD | {"card": 2}, r"an observation whose part 'card' is 2, its space has Discrete\(3, start=-1\)"),
    (GOOD | {"card": -2}, r"an observation whose part 'card' is -2, its space has Discrete\(3, start=-1\)"),
    (GOOD | {"place": np.float32([1, np.nan])}, r"an observation that is not finite: nan in environment 0 of 2")])
def test_an_observation_without_its_parts_is_refused_by_name(register, obs, said):
    venv = envs.make_host(register("Room-v0", room(obs)), 2)
    venv.reset(0)
    with pytest.raises(EnvError, match=f"^Room-v0 gave {said}"):
        venv.step(np.zeros(2, np.int32))
    venv.close()


@pytest.mark.parametrize(("space", "obs", "said"), [
    (spaces.Tuple([ROOM]), ({"card": 1},), r"whose part '0' is of the parts card, its space has the parts card, place"),
    (spaces.Tuple([ROOM]), (GOOD, GOOD), r"2 values, its space has 1 parts"),
    (spaces.Tuple([ROOM]), {0: GOOD}, r"dict, its space has 1 parts"),
    (spaces.Tuple([ROOM]), ({"card": 1, "place": None},), r"whose part '0/place' is NoneType, its space has float32\[2\]"),
    (spaces.Dict({"a": spaces.Tuple([ROOM, spaces.Discrete(2)])}), {"a": [GOOD, 2]}, r"whose part 'a/1' is 2, its space has"),
    (spaces.Dict({"a": spaces.MultiDiscrete([2, 3])}), {"a": [1, 3]}, r"whose part 'a' is \[1, 3\], its space has Multi"),
    (spaces.Dict({"a": spaces.MultiDiscrete([2, 3])}), {"a": [-1, 2]}, r"whose part 'a' is \[-1, 2\], its space")])
def test_a_part_of_a_part_is_named_by_its_place(space, obs, said):
    with pytest.raises(EnvError, match=f"^Some-v0 gave an observation {said}"):
        composite_spaces.check("Some-v0", space, obs)


def test_a_native_vector_without_its_parts_is_refused_by_name(register, monkeypatch):
    monkeypatch.setattr(Rooms, "observe", lambda self: {"place": np.zeros((2, 2), np.float32)})
    venv = envs.make_host(register("Room-v0", room(), vector_entry_point=Rooms), 2, "native")
    with pytest.raises(EnvError, match=r"^Room-v0 gave an observation of the parts place, its space has the parts card"):
        venv.reset(0)
    venv.close()


@pytest.mark.parametrize(("part", "said"), [
    (spaces.Text(5), "a part Text"), (spaces.Sequence(spaces.Discrete(2)), "a part Sequence"),
    (spaces.Tuple([spaces.Graph(spaces.Discrete(2), None)]), "a part Graph"), (spaces.OneOf([ROOM]), "a part OneOf")])
def test_parts_that_are_no_vector_are_refused_where_they_are_made(register, here, part, said):
    space = spaces.Dict({"a": spaces.Discrete(2), "b": part})
    register("Room-v0", room(space=space), vector_entry_point=lambda num_envs, **_: type(
        "Odd", (ToyVector,), {"single_observation_space": space})(num_envs))
    here.Hall.observation_space = space
    for env_id, ask in (("Room-v0", envs.spec), ("Room-v0", lambda i: envs.make_host(i, 2, "sync")),
                        ("Room-v0", lambda i: envs.make_host(i, 2, "native")), ("halls:Hall", envs.make_device)):
        with pytest.raises(EnvError, match=f"^{env_id} has observations .*{said}"):
            ask(env_id)


@pytest.mark.parametrize("space", [spaces.Dict({}), spaces.Tuple([ROOM, spaces.Dict({})])])
def test_a_part_without_parts_is_refused(space):
    with pytest.raises(EnvError, match=r"^Some-v0 has observations with a part Dict\(\), which cannot be flattened; parts"):
        composite_spaces.flat_space("Some-v0", space)


# On the device


@pytest.fixture
def here(monkeypatch):
    """A module with an environment of several parts on the device."""
    class Hall(FuncEnv):
        observation_space, action_space = ROOM, spaces.Discrete(2)

        def initial(self, rng, params=None):
            return jnp.zeros((), jnp.int32)

        def transition(self, state, action, rng, params=None):
            return state + 1

        def observation(self, state, rng, params=None):
            return {"place": jnp.stack([state / 4, -1.0]), "card": jnp.minimum(state - 1, 1)}

        def reward(self, state, action, next_state, rng, params=None):
            return action

        def terminal(self, state, rng, params=None):
            return state == 3

    module = types.ModuleType("halls")
    module.Hall = Hall
    monkeypatch.setitem(sys.modules, "halls", module)
    return module


def test_a_device_environment_of_several_parts_gives_the_vectors_of_the_host(here):
    env = envs.make_device("halls:Hall")
    assert env.spec == envs.spec("halls:Hall") == EnvSpec("halls:Hall", spaces.flatten_space(ROOM), spaces.Discrete(2), None)
    state, first = env.reset(jax.random.key(0), 2)
    found, shown = [first], [first]
    for _ in range(3):
        state, out = env.step(state, np.int32([0, 1]), env.sample_noise(jax.random.split(jax.random.key(0), (env.keys, 2))))
        found.append(out.next_obs)
        shown.append(out.obs)
    np.testing.assert_array_equal(found, np.stack([WANTED, WANTED], axis=1))
    np.testing.assert_array_equal(shown, np.stack([WANTED[[0, 1, 2, 0]]] * 2, axis=1))
    assert envs.make_device("halls:Hall", envs.Config(frame_stack=3)).reset(jax.random.key(0), 2)[1].shape == (2, 3, 5)


@pytest.mark.parametrize(("obs", "said"), [
    ({"place": jnp.zeros(2)}, r"an observation of the parts place, its space has the parts card, place"),
    ({"place": jnp.zeros(2), "card": jnp.zeros(1, int)}, r"an observation whose part 'card' is int32\[1\], its space has"),
    ({"place": jnp.zeros(2), "card": jnp.zeros(())}, r"an observation whose part 'card' is float32\[\], its space has")])
def test_a_device_environment_without_its_parts_is_refused_where_it_is_made(here, monkeypatch, obs, said):
    monkeypatch.setattr(here.Hall, "observation", lambda self, state, rng, params=None: obs)
    with pytest.raises(EnvError, match=f"^halls:Hall gave {said}"):
        envs.make_device("halls:Hall")
