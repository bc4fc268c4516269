"""Films: as many frames as the episode has, as large and as fast as they should be."""

import importlib
import sys

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageSequence

from jaxdl.core import streams
from jaxdl.core.errors import EnvError, UserError
from jaxdl.rl import envs, video
from jaxdl.rl.types import Actor, EnvSpec, Stack

RIGHT = Actor(lambda n: None, lambda params, carry, obs, key, t: (None, jnp.ones(obs.shape[0], jnp.int32), None))
COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 255, 255]], np.uint8)


class Lamp(gymnasium.Env):
    """Shines in another colour at every step; an episode lasts as many steps as the seed says."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(0, 1000, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(100)
    size, closed, actions = (40, 60), 0, None

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        self.t, self.period, type(self).actions = 0, seed, []
        return np.array([self.t], np.float32), {}

    def step(self, action):
        self.t += 1
        self.actions.append(int(action))
        return np.array([self.t], np.float32), 0.0, self.t == self.period, False, {}

    def render(self):
        return np.broadcast_to(COLORS[self.t % 5], (*self.size, 3)).copy()

    def close(self):
        type(self).closed += 1


@pytest.fixture
def lamp(monkeypatch):
    """Register a Lamp, changed as asked."""

    def make(**changes):
        for name, value in changes.items():
            monkeypatch.setattr(Lamp, name, value)
        return "Lamp-v0"

    monkeypatch.setattr(streams, "host_seed", lambda seed, purpose, *index: seed)
    gymnasium.register("Lamp-v0", Lamp)
    yield make
    del gymnasium.registry["Lamp-v0"]


def frames_of(path):
    """Frames [F, H, W, 3] and the milliseconds each is shown."""
    with Image.open(path) as film:
        assert film.format == "GIF"
        shown = [(np.asarray(f.convert("RGB")), f.info["duration"]) for f in ImageSequence.Iterator(film)]
    return np.stack([f for f, _ in shown]), [ms for _, ms in shown]


def test_a_film_shows_every_step_of_the_episode_and_its_end(lamp, tmp_path):
    video.record(RIGHT, None, lamp(), tmp_path / "a.gif", seed=6)
    frames, milliseconds = frames_of(tmp_path / "a.gif")
    assert frames.shape == (7, 40, 60, 3)
    np.testing.assert_array_equal(frames[:, 20, 30], COLORS[[0, 1, 2, 3, 4, 0, 1]])
    assert milliseconds == 7 * [40]


@pytest.mark.filterwarnings("ignore::UserWarning:gymnasium")
@pytest.mark.parametrize(("fps", "steps", "shown", "milliseconds"), [
    (50, 8, [0, 2, 4, 6, 8], 40),
    (50, 7, [0, 2, 4, 6, 7], 40),
    (4, 3, [0, 1, 2, 3], 250),
    (100, 9, [0, 4, 8, 9], 40),
    (None, 2, [0, 1, 2], 30),
])
def test_a_film_is_as_fast_as_the_world_and_shows_25_frames_a_second_at_most(lamp, tmp_path, fps, steps, shown, milliseconds):
    lamp(metadata={"render_modes": ["rgb_array"]} | ({"render_fps": fps} if fps else {}))
    video.record(RIGHT, None, "Lamp-v0", tmp_path / "a.gif", seed=steps)
    frames, durations = frames_of(tmp_path / "a.gif")
    np.testing.assert_array_equal(frames[:, 0, 0], COLORS[np.array(shown) % 5])
    assert durations == len(shown) * [milliseconds]


def test_a_film_of_an_endless_episode_lasts_twenty_seconds(lamp, tmp_path):
    lamp(metadata={"render_modes": ["rgb_array"], "render_fps": 4})
    video.record(RIGHT, None, "Lamp-v0", tmp_path / "a.gif", seed=10_000)
    _, durations = frames_of(tmp_path / "a.gif")
    assert len(durations) == 81
    assert sum(durations) == 20_250
    assert len(Lamp.actions) == 80


@pytest.mark.parametrize(("size", "filmed"), [((400, 600), (200, 300)), ((30, 20), (30, 20)), ((500, 250), (500, 250)),
                                              ((1, 3000), (1, 300)), ((100, 301), (100, 300))])
def test_a_wide_picture_is_made_narrower_and_keeps_its_form(lamp, tmp_path, size, filmed):
    video.record(RIGHT, None, lamp(size=size), tmp_path / "a.gif", seed=1)
    assert frames_of(tmp_path / "a.gif")[0].shape == (2, *filmed, 3)


def test_the_policy_acts_with_its_carry_on_what_it_sees(lamp, tmp_path):
    def act(params, carry, obs, key, t):
        return carry + 1, (params * carry + 10 * obs[:, 0].astype(jnp.int32) + t), None

    video.record(Actor(lambda n: jnp.full(n, 3), act), jnp.int32(2), lamp(), tmp_path / "a.gif", seed=4)
    assert Lamp.actions == [2 * (3 + i) + 10 * i + i for i in range(4)]


def test_the_film_of_cartpole_is_of_the_episode_that_the_seed_gives(tmp_path):
    video.record(RIGHT, None, "CartPole-v1", tmp_path / "a.gif", seed=5)
    frames, durations = frames_of(tmp_path / "a.gif")
    env = gymnasium.make("CartPole-v1", render_mode="rgb_array")
    env.reset(seed=streams.host_seed(5, streams.Purpose.FILM))
    pictures, over = [env.render()], False
    while not over:
        over = env.step(1)[2]
        pictures.append(env.render())
    env.close()
    pictures = [*pictures[:-1:2], pictures[-1]]
    assert frames.shape == (len(pictures), 200, 300, 3)
    assert durations == len(pictures) * [40]
    wanted = [np.asarray(Image.fromarray(p).resize((300, 200))) for p in pictures]
    errors = [[np.abs(f - w.astype(float)).mean() for w in wanted] for f in frames]
    assert np.argmin(errors, axis=1).tolist() == list(range(len(pictures)))
    assert np.max(np.diag(errors)) < 1  # of 255: what 32 colours cost


@pytest.mark.parametrize("name", ["a.mp4", "a", "gif", "a.gif.png", ".gif"])
def test_another_suffix_is_refused_before_anything_is_made(tmp_path, monkeypatch, name):
    monkeypatch.setattr(gymnasium, "make", lambda *a, **k: pytest.fail("an environment was made"))
    with pytest.raises(UserError, match=r"video must end in \.gif, got .*" + name):
        video.record(RIGHT, None, "CartPole-v1", tmp_path / name, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_a_suffix_in_capitals_is_one_too(lamp, tmp_path):
    video.record(RIGHT, None, lamp(), tmp_path / "A.GIF", seed=1)
    assert len(frames_of(tmp_path / "A.GIF")[0]) == 2


def test_a_folder_that_is_not_there_is_named(lamp, tmp_path):
    with pytest.raises(UserError, match=r"a\.gif cannot be written: there is no folder"):
        video.record(RIGHT, None, lamp(), tmp_path / "none" / "a.gif", seed=1)


def raises(self):
    raise NotImplementedError("it is dark")


@pytest.mark.filterwarnings("ignore::UserWarning:gymnasium")
@pytest.mark.parametrize(("changes", "said"), [
    ({"render": raises}, "failed in render: NotImplementedError: it is dark"),
    ({"render": lambda self: None}, "cannot be filmed: its picture is NoneType"),
    ({"render": lambda self: np.zeros((4, 4, 3))}, "cannot be filmed: its picture is float64"),
    ({"render": lambda self: np.zeros(4, np.uint8)}, "cannot be filmed: its picture is uint8"),
], ids=["raises", "nothing", "floats", "a row"])
def test_an_environment_that_cannot_be_filmed_is_named_and_closed(lamp, tmp_path, changes, said):
    lamp(closed=0, **changes)
    with pytest.raises(EnvError, match=f"Lamp-v0 {said}"):
        video.record(RIGHT, None, "Lamp-v0", tmp_path / "a.gif", seed=1)
    assert Lamp.closed == 1
    assert list(tmp_path.iterdir()) == []


def test_an_environment_that_knows_no_rendering_cannot_be_made_for_a_film(lamp, tmp_path, monkeypatch):
    monkeypatch.setattr(Lamp, "__init__", lambda self: None)
    with pytest.raises(EnvError, match=r"Lamp-v0 cannot be made: .*render_mode"):
        video.record(RIGHT, None, lamp(), tmp_path / "a.gif", seed=1)


def test_the_settings_of_the_environment_are_those_of_the_film(lamp, tmp_path):
    newest = Actor(lambda n: None, lambda p, c, obs, key, t: (None, (10 * obs[:, 0, 0] + obs[:, 1, 0]).astype(jnp.int32), None))
    video.record(newest, None, lamp(), tmp_path / "a.gif", seed=9, settings=envs.Config(frame_stack=2, time_limit=3))
    assert len(frames_of(tmp_path / "a.gif")[0]) == 4
    assert Lamp.actions == [0, 1, 12]


def test_atari_is_filmed_as_it_is_seen(tmp_path):
    pytest.importorskip("ale_py", reason="jaxdl[atari] is not installed")
    video.record(RIGHT, None, "ALE/Breakout-v5", tmp_path / "a.gif", seed=0)
    frames, milliseconds = frames_of(tmp_path / "a.gif")
    assert frames.shape[1:] == (252, 252, 3)
    assert {ms % 70 for ms in milliseconds} == {0}  # of frames that are alike one is kept, for longer
    assert len(frames) > 30
    assert (frames.max(-1) - frames.min(-1)).max() == 0  # grey
    assert frames[0].max() > 100


def test_minatar_is_filmed_in_colours(tmp_path):
    pytest.importorskip("gymnax", reason="jaxdl[gymnax] is not installed")
    video.record(RIGHT, None, "Breakout-MinAtar", tmp_path / "a.gif", seed=0)
    frames, milliseconds = frames_of(tmp_path / "a.gif")
    assert frames.shape[1:] == (300, 300, 3)
    assert {ms % 100 for ms in milliseconds} == {0}
    bricks = frames[0, 30:90]  # and one row more, in which the ball begins
    assert len(np.unique(bricks.reshape(-1, 3), axis=0)) == 1
    assert bricks.max() > 100
    paddle = frames[:, 285, 15::30].max(-1) > 200
    assert [int(np.argmax(p)) for p in paddle[:3]] == [4, 3, 2]  # the second action goes to the left


class Taken(Lamp):
    """Takes what its space holds, and nothing that is merely alike."""

    def step(self, action):
        assert self.action_space.contains(action), (action, getattr(action, "dtype", None))
        self.t += 1
        self.actions.append(action)
        return np.array([self.t], np.float32), 0.0, self.t == self.period, False, {}


@pytest.mark.parametrize(("space", "action"), [
    (gymnasium.spaces.Discrete(100), np.int32(7)),
    (gymnasium.spaces.MultiDiscrete([3, 5]), np.array([2, 4], np.int32)),
    (gymnasium.spaces.MultiBinary(2), np.array([1, 0], np.int8)),
    (gymnasium.spaces.Box(-0.1, 0.1, (2,), np.float64), np.array([-0.1, 0.1], np.float32)),  # which is further out
    (gymnasium.spaces.Box(-1, 1, (2,), np.float32), np.array([-1, 0.5], np.float32)),
], ids=str)
def test_actions_are_what_the_space_holds_as_jax_knows_fewer_dtypes(lamp, tmp_path, monkeypatch, space, action):
    lamp(action_space=space, step=Taken.step)
    same = Actor(lambda n: None, lambda p, c, obs, key, t: (None, jnp.broadcast_to(action, (len(obs), *action.shape)), None))
    video.record(same, None, "Lamp-v0", tmp_path / "a.gif", seed=3)
    assert len(Lamp.actions) == 3
    np.testing.assert_allclose(Lamp.actions[0], action, rtol=1e-6)
    assert type(Lamp.actions[0]) is (np.int64 if action.ndim == 0 else np.ndarray)  # one that can be the key of a dict


LANTERN = """
import gymnasium
import jax.numpy as jnp
import numpy as np
from gymnasium.experimental.functional import FuncEnv


class Lantern(FuncEnv):
    \"\"\"Counts the actions it got; draws the sum as grey, with the number of pictures so far in the corner.\"\"\"

    metadata = {"render_fps": 5}
    observation_space, action_space = gymnasium.spaces.Box(0, 200, (1,), "float32"), gymnasium.spaces.Discrete(100)
    max_episode_steps, closed = 4, []

    def initial(self, rng, params=None):
        return {"sum": jnp.zeros(1)}

    def transition(self, state, action, rng, params=None):
        return {"sum": state["sum"] + action}

    def observation(self, state, rng, params=None):
        return state["sum"]

    def reward(self, state, action, next_state, rng, params=None):
        return 1.0

    def terminal(self, state, rng, params=None):
        return state["sum"][0] > 150

    def render_init(self, params=None):
        return 0

    def render_image(self, state, pictures, params=None):
        frame = np.full((30, 40, 3), int(state["sum"][0]), np.uint8)
        frame[0, 0] = 20 * pictures
        return pictures + 1, frame

    def render_close(self, pictures, params=None):
        self.closed.append(pictures)


class Broken(Lantern):
    def render_image(self, state, pictures, params=None):
        raise RuntimeError("it is dark")
"""


@pytest.fixture
def lantern(tmp_path, monkeypatch):
    (tmp_path / "lanterns.py").write_text(LANTERN)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("lanterns")
    del sys.modules["lanterns"]


@pytest.mark.parametrize("frame_stack", [1, 2])
def test_an_environment_of_ones_own_that_draws_itself_is_filmed(lantern, tmp_path, frame_stack):
    thirty = Actor(lambda n: jnp.full(n, 30), lambda p, carry, obs, key, t: (carry - 5, carry, None))
    video.record(thirty, None, "lanterns:Lantern", tmp_path / "a.gif", seed=0, settings=envs.Config(frame_stack=frame_stack))
    frames, milliseconds = frames_of(tmp_path / "a.gif")
    assert frames.shape == (5, 30, 40, 3)
    assert milliseconds == 5 * [200]
    assert frames[:, 15, 15, 0].tolist() == [0, 30, 55, 75, 75]  # with its end the state is gone: once more the one before
    assert frames[:, 0, 0, 0].tolist() == [0, 20, 40, 60, 80]  # what it draws on goes from picture to picture
    assert lantern.Lantern.closed == [5]


def test_an_environment_of_ones_own_that_cannot_draw_itself_is_named(lantern, tmp_path):
    for name, said in (("lanterns:Broken", "failed in render: RuntimeError: it is dark"),
                       ("jaxdl.rl.envs.cartpole:CartPole", "cannot be filmed: .*are no pictures")):
        with pytest.raises(EnvError, match=f"{name} {said}"):
            video.record(RIGHT, None, name, tmp_path / "a.gif", seed=0)
    assert lantern.Lantern.closed == [0]


def picture(obs, stack=None):
    return video.image_of(EnvSpec("Some-v0", None, None, None, stack), obs)


def test_observations_that_are_pictures_are_drawn_and_others_refused():
    grey = np.array([[0, 50], [100, 150]], np.uint8)
    assert picture(grey).shape == (300, 300, 3)
    np.testing.assert_array_equal(picture(grey)[::150, ::150, 0], grey)
    np.testing.assert_array_equal(picture(np.stack([grey * 0, grey]), Stack(2, "zero")), picture(grey))
    np.testing.assert_array_equal(picture(grey[..., None]), picture(grey))
    colours = np.stack([grey, grey // 2, grey // 5], -1)
    np.testing.assert_array_equal(picture(colours)[::150, ::150], colours)
    things = np.zeros((2, 2, 4), bool)
    things[0, 0, 1] = things[0, 0, 3] = things[1, 1, 2] = True
    drawn = picture(things)[::150, ::150]
    np.testing.assert_array_equal(drawn, [[video._PALETTE[1], [0, 0, 0]], [[0, 0, 0], video._PALETTE[2]]])
    for obs in (np.zeros(4, np.float32), np.zeros((2, 2, 3), np.float32), np.zeros((2, 2, 99), bool), np.zeros((), np.int64)):
        with pytest.raises(EnvError, match=r"Some-v0 cannot be filmed: its observations, .* are no pictures"):
            picture(obs)
