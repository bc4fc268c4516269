"""A video of a policy: one greedy episode, as an animated GIF.

Gymnasium's environments render themselves, and so does a `FuncEnv` that has `render_image`; its steps in a second are
`metadata["render_fps"]`, else 30. Other environments are shown as the policy sees them: the newest frame, enlarged, with a
colour for each of MinAtar's kinds of objects.
"""

import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.experimental.functional import FuncEnv

from jaxdl.core import files, streams
from jaxdl.core.errors import EnvError, EnvFailure, UserError, described
from jaxdl.core.streams import Purpose
from jaxdl.core.types import Array, PyTree
from jaxdl.data.pictures import gif
from jaxdl.rl import envs, evaluate, observations
from jaxdl.rl.envs import gymnasium_envs
from jaxdl.rl.envs.calls import Calls
from jaxdl.rl.envs.composite_spaces import array, brief
from jaxdl.rl.types import Actor, EnvSpec

_WIDTH = 300  # pixels
_FPS = 25
_SECONDS = 20  # at most
_ATARI_FPS = 60  # of the console
_MINATAR_FPS = 10  # a pace at which a person can follow
_PALETTE = np.array([[235, 235, 235], [228, 87, 86], [245, 180, 60], [86, 180, 110], [76, 120, 200], [165, 110, 190],
                     [90, 200, 210], [150, 110, 80], [120, 120, 120], [240, 140, 180]], np.uint8)


Beside = Callable[[np.ndarray, PyTree, Array], np.ndarray]  # (picture, carry, obs [1, ...]) -> picture with more


def check_path(path: str | Path) -> None:
    """Refuse a file that cannot be a GIF.

    Raises:
        UserError: it does not end in .gif.
    """
    if Path(path).suffix.lower() != ".gif":
        raise UserError(f"video must end in .gif, got {path}")


def record(actor: Actor, params: PyTree, env_id: str, path: str | Path, *, seed: int,
           settings: envs.Config = envs.DEFAULTS, beside: Beside | None = None) -> None:
    """Write a video of one episode, of its first 20 seconds.

    Args:
        actor: the policy.
        params: its parameters.
        env_id: of the environment.
        path: of the GIF.
        seed: of the environment and of the policy.
        settings: of the environment; a lost life of Atari does not end the video.
        beside: what is shown beside each picture.

    Raises:
        UserError: `path` is no .gif, or cannot be written.
        EnvError: the environment cannot be made or cannot be rendered.
    """
    check_path(path)
    settings = replace(settings, episodic_life=False)
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame without a screen
    fps, film = {"emulator": _emulated, "host": _rendered, "jax": _device}[envs.lives(env_id)](env_id, settings, seed)
    frames, fps = _play(actor, params, env_id, film, fps, seed, beside)
    files.write_bytes(path, gif(frames, fps))


# A generator that is sent actions [1, ...] and yields what they lead to: the observation [1, ...], a function that renders the
# picture uint8 [H, W, 3] (only some are shown), and whether the episode is over.
Film = Iterator[tuple[Any, Any, bool]]


def _play(actor: Actor, params: PyTree, env_id: str, film: Any, fps: float, seed: int, beside: Beside | None
          ) -> tuple[list[np.ndarray], float]:
    """Pictures, and how many of them are shown in a second."""
    shown = (lambda picture, carry, obs: picture) if beside is None else beside
    act, key, carry = evaluate.program(actor), streams.key(seed, Purpose.FILM), actor.init(1)
    every = max(1, round(fps / _FPS))
    frames: list[np.ndarray] = []
    try:
        obs, picture, over = next(film)
        for t in range(int(_SECONDS * fps)):
            if t % every == 0:
                frames.append(shown(picture(), carry, obs))
            carry, action = act(params, carry, jnp.zeros(1, bool), obs, key, np.int32(t))
            obs, picture, over = film.send(np.asarray(action))
            if over:
                break
        frames.append(shown(picture(), carry, obs))
    except EnvError:
        raise
    except Exception as e:
        raise EnvError(f"{env_id} cannot be filmed: {described(e)}") from e
    finally:
        film.close()
    return frames, fps / every


def _rendered(env_id: str, settings: envs.Config, seed: int) -> tuple[float, Film]:
    """Steps in a second, and the film of an environment of Gymnasium's, which renders itself."""
    venv = gymnasium_envs.make_vector_env(env_id, 1, "sync", settings, render=True)

    def film() -> Film:
        try:
            obs, over = venv.reset(streams.host_seed(seed, Purpose.FILM)), False
            while True:
                action = yield obs, lambda: _checked(env_id, venv.render()), over
                step = venv.step(action)
                obs, over = step.obs, bool(step.terminated[0] | step.truncated[0])
        finally:
            venv.close()

    return float(venv.venv.metadata.get("render_fps") or 30), film()


def _checked(env_id: str, picture: Any) -> np.ndarray:
    frame = array(picture)
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise EnvFailure(f"{env_id} cannot be filmed: its picture is {brief(picture)}, expected uint8[H, W, 3]")
    return frame


def _emulated(env_id: str, settings: envs.Config, seed: int) -> tuple[float, Film]:
    """Steps in a second, and the film of one game of an emulator, shown as the policy sees it."""
    spec, venv = envs.spec(env_id, settings), envs.make_host(env_id, 1, settings=settings)

    def film() -> Film:
        try:
            obs, over = venv.reset(streams.host_seed(seed, Purpose.FILM)), False
            while True:
                action = yield obs, lambda obs=obs: image_of(spec, obs[0]), over
                step = venv.step(action)
                obs, over = step.obs, bool(step.terminated[0] | step.truncated[0])
        finally:
            venv.close()

    return _ATARI_FPS / settings.frame_skip, film()


def _device(env_id: str, settings: envs.Config, seed: int) -> tuple[float, Film]:
    """Steps in a second, and the film of an environment on the device, which renders itself or is shown as it is seen."""
    env = envs.make_device(env_id, settings)
    step = evaluate.quick_jit(
        lambda state, action, key: env.step(state, action, env.sample_noise(jax.random.split(key, (env.keys, 1)))))
    k_begin, key = jax.random.split(jax.random.fold_in(streams.key(seed, Purpose.FILM), 2**31))  # the policy has the other keys
    state, obs = evaluate.quick_jit(lambda key: env.reset(key, 1))(k_begin)
    world = envs.family(env_id).load(env_id, settings)
    renders_itself = type(world).render_image is not FuncEnv.render_image

    def film() -> Film:
        call = Calls(env_id, settings.env_timeout)
        canvas = call("render", lambda: world.render_init(world.default_params)) if renders_itself else None

        def picture(state: PyTree, obs: Array) -> np.ndarray:
            nonlocal canvas
            if not renders_itself:
                return image_of(env.spec, np.asarray(obs[0]))
            inner = state.inner if settings.frame_stack == 1 else state.inner.inner
            canvas, frame = call("render", lambda: world.render_image(
                jax.tree.map(lambda x: x[0], inner), canvas, world.default_params))
            return _checked(env_id, frame)

        now, seen, over, t = state, obs, False, 0
        try:
            while True:
                action = yield seen, functools.partial(picture, now, seen), over
                after, out = step(now, action, jax.random.fold_in(key, t))
                seen, over, t = out.next_obs, bool(out.terminated[0] | out.truncated[0]), t + 1
                now = now if over else after  # at the end the state is of a new episode: the picture is of the last before
        finally:
            call.close(lambda: world.render_close(canvas, world.default_params) if renders_itself else None)

    fps = getattr(world, "metadata", {}).get("render_fps") or 30 if renders_itself else _MINATAR_FPS
    return float(fps), film()


def image_of(spec: EnvSpec, obs: np.ndarray) -> np.ndarray:
    """A picture of the newest frame: grey [H, W], colour [H, W, 3], or a colour for each channel of bool [H, W, C].

    Raises:
        EnvError: the observation is none of these.
    """
    frame = obs if spec.stack is None else obs[-1]
    if frame.ndim == 3 and observations.axes(frame.shape)[0] == "CHW":
        frame = np.moveaxis(frame, 0, -1)
    if frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[-1] == 1:
        frame = frame[..., 0]
    if frame.dtype == np.bool_ and frame.ndim == 3 and frame.shape[-1] <= len(_PALETTE):
        picture = np.zeros((*frame.shape[:2], 3), np.uint8)
        for channel in range(frame.shape[-1] - 1, -1, -1):  # the first, the player, on top
            picture[frame[..., channel]] = _PALETTE[channel]
    elif frame.dtype == np.uint8 and frame.ndim == 2:
        picture = np.repeat(frame[..., None], 3, axis=-1)
    elif frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[-1] == 3:
        picture = frame
    else:
        raise EnvError(f"{spec.id} cannot be filmed: its observations, {frame.dtype}{list(frame.shape)}, are no pictures")
    times = max(1, _WIDTH // picture.shape[1])
    return picture.repeat(times, axis=0).repeat(times, axis=1)
