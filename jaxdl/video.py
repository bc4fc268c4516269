"""A policy on film: one greedy episode in Gymnasium's own environment, as an animated GIF."""

import io
import os
from pathlib import Path

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import envs, evaluate, files
from jaxdl.errors import EnvError, UserError
from jaxdl.types import Actor, PyTree

_WIDTH = 300  # pixels
_FPS = 25
_SECONDS = 20  # at most
_COLORS = 32


def check_path(path: Path) -> None:
    """Refuse a file that cannot be a GIF.

    Raises:
        UserError: it does not end in .gif.
    """
    if path.suffix.lower() != ".gif":
        raise UserError(f"video must end in .gif, got {path}")


def record(actor: Actor, params: PyTree, env_id: str, path: Path, *, seed: int) -> None:
    """Film the first episode that `seed` gives, its first 20 seconds.

    Raises:
        UserError: `path` is no .gif, or cannot be written.
        EnvError: the environment cannot be made or cannot be rendered.
    """
    check_path(path)
    frames, fps = _play(actor, params, env_id, seed)
    files.write_bytes(path, _gif(frames, fps))


def _play(actor: Actor, params: PyTree, env_id: str, seed: int) -> tuple[list[np.ndarray], float]:
    """RGB frames [H, W, 3] and how many of them make a second."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame without a screen
    env = envs.make_single(env_id, render_mode="rgb_array")
    act, key, carry = evaluate.program(actor), jax.random.key(seed), actor.init(1)
    fps = float(env.metadata.get("render_fps") or 30)
    every = max(1, round(fps / _FPS))
    frames: list[np.ndarray] = []
    try:
        obs, _ = env.reset(seed=int(seed) % 2**31)
        for t in range(int(_SECONDS * fps)):
            if t % every == 0:
                frames.append(_frame(env))
            carry, action = act(params, carry, jnp.zeros(1, bool), np.asarray(obs)[None], key, np.int32(t))
            obs, _, terminated, truncated, _ = env.step(np.asarray(action)[0])
            if terminated or truncated:
                break
        frames.append(_frame(env))
    except Exception as e:
        raise EnvError(f"{env_id} cannot be filmed: {type(e).__name__}: {e}") from e
    finally:
        env.close()
    return frames, fps / every


def _frame(env: gymnasium.Env) -> np.ndarray:
    frame = np.asarray(env.render())
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"its picture is {frame.dtype}{list(frame.shape)}, expected uint8[H, W, 3]")
    return frame


def _gif(frames: list[np.ndarray], fps: float) -> bytes:
    from PIL import Image

    height, width = frames[0].shape[:2]
    size = (min(width, _WIDTH), max(1, round(height * min(1.0, _WIDTH / width))))
    images = [Image.fromarray(f).resize(size).quantize(_COLORS) for f in frames]
    buffer = io.BytesIO()
    images[0].save(buffer, format="gif", save_all=True, append_images=images[1:], loop=0,
                   duration=max(20, 10 * round(100 / fps)))  # hundredths of a second; below two browsers slow down
    return buffer.getvalue()
