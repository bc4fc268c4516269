"""The replay memory is updated in place: no compiled training program copies it, whatever its capacity."""

import dataclasses
import re

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.agents import dqn
from jaxdl.core.compile import TRAIN_OPTIONS, compile_all
from jaxdl.core.config import leaves_as_arrays
from jaxdl.rl import envs, host_driver
from jaxdl.rl.envs.cartpole import CartPole
from jaxdl.rl.envs.functional import adapt
from jaxdl.rl.replay import storage
from jaxdl.rl.replay.ring_buffer import Layout
from jaxdl.rl.types import Env, EnvSpec, Stack, TimeStep
from jaxdl.runtime import device_driver

CAPACITIES = (4_096, 65_536)
CARTPOLE = envs.spec("CartPole-v1")
WIDTH = Layout.of(storage.experience_of(CARTPOLE)).width


def config_of(capacity):
    return leaves_as_arrays(dqn.Config(num_envs=4, buffer_size=capacity, batch_size=8, learning_starts=16, hidden_sizes=(8,),
                                       total_steps=1_000_000))


def started(run, members):
    keys = jax.random.split(jax.random.key(0), members)
    return run.init(keys[0], None) if members == 1 else jax.vmap(lambda k: run.init(k, None), out_axes=run.axes)(keys)


def advanced(run, state, n, members):
    one = lambda s: device_driver.advance(run, s, None, n)  # noqa: E731
    return one(state) if members == 1 else jax.vmap(one, in_axes=(run.axes,), out_axes=(run.axes, 0))(state)


def full_size_copies(text, shape, dtype="u32"):
    """Instructions that make another array of the memory's shape: copies, and selects or loops over all of it."""
    made = re.findall(rf"= \(?{dtype}\[{shape}\]\S* ([a-z-]+)\(", text)
    return [op for op in made if op not in ("parameter", "get-tuple-element", "scatter", "while", "tuple", "bitcast", "fusion",
                                            "dynamic-update-slice")]


def checked(compiled, shape, num_bytes):
    text = compiled.as_text()
    assert f"u32[{shape}]" in text
    assert full_size_copies(text, shape) == []
    memory = compiled.memory_analysis()
    assert memory.temp_size_in_bytes < num_bytes / 2  # a copy would lie there, whatever it is called
    assert memory.alias_size_in_bytes >= num_bytes


@pytest.mark.parametrize("capacity", CAPACITIES)
@pytest.mark.parametrize("members", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_no_copy_on_the_device(capacity, members):
    config = config_of(capacity)
    run = dqn.make_run(config)

    def chunk(config, state, n):
        return advanced(dqn.make_run(config), state, n, members)

    like = jax.eval_shape(lambda: started(run, members))
    (compiled,) = compile_all((chunk, (config, like, np.int32(1)), (1,), TRAIN_OPTIONS))
    shape = f"{capacity},{WIDTH}" if members == 1 else f"{members},{capacity},{WIDTH}"
    checked(compiled, shape, members * capacity * WIDTH * 4)


def shapes_of(p, config, step):
    """Of the arguments of `act` and `learn`."""
    return *jax.eval_shape(p.init, config, jax.random.key(0), step.obs)[:2], *host_driver.arrays(step)


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_no_copy_on_the_host_path(capacity):
    config = config_of(capacity)
    no = np.zeros(4, bool)
    step = TimeStep(np.zeros((4, 4), np.float32), np.zeros(4, np.float32), no, no, reset=no)
    p = host_driver.Programs(lambda c: dqn.make_host_run(c, CARTPOLE), config, jax.random.key(0), step)
    shapes = shapes_of(p, config, step)
    compiled = compile_all((p.act, shapes, (1,), TRAIN_OPTIONS), (p.learn, shapes, (0, 1), TRAIN_OPTIONS))
    for program in compiled:
        checked(program, f"{capacity},{WIDTH}", capacity * WIDTH * 4)


# --- Priorities, and frames: the tree's leaves and the frames lie in place as the rows do.


STEP_WIDTH = 5  # action, reward and three flags
FRAME = (4, 8, 8)
PIXELS = EnvSpec("pixels", gymnasium.spaces.Box(0, 255, FRAME, np.uint8), gymnasium.spaces.Discrete(2), None, Stack(4, "zero"),
                 "emulator")


def assert_in_place(compile_at, arrays, members=1):
    """No array of the memory is copied, at two capacities, and what lies beside them is as large at both.

    Args:
        compile_at: capacity -> compiled program.
        arrays: capacity -> the arrays, each as dtype, rows and words a row.
        members: of a population.
    """
    lead, beside = "" if members == 1 else f"{members},", []
    for capacity in CAPACITIES:
        compiled = compile_at(capacity)
        text, memory, total = compiled.as_text(), compiled.memory_analysis(), 0
        for dtype, rows, words in arrays(capacity):
            assert f"{dtype}[{lead}{rows},{words}]" in text
            assert full_size_copies(text, f"{lead}{rows},{words}", dtype) == []
            total += members * 4 * rows * words
        assert memory.alias_size_in_bytes >= total
        beside.append(memory.temp_size_in_bytes)
    assert beside[1] - beside[0] < (CAPACITIES[1] - CAPACITIES[0]) * 4 / 2  # of the smallest array, the leaves


def device_program(env, members, **changed):
    def compile_at(capacity):
        config = dataclasses.replace(config_of(capacity), **changed)
        like = jax.eval_shape(lambda: started(dqn.make_run(config, env=env), members))

        def chunk(config, state, n):
            return advanced(dqn.make_run(config, env=env), state, n, members)

        (compiled,) = compile_all((chunk, (config, like, np.int32(1)), (1,), TRAIN_OPTIONS))
        return compiled

    return compile_at


@pytest.mark.parametrize(("members", "updates"), [(1, 2), pytest.param(2, 1, marks=pytest.mark.slow)])
def test_no_copy_on_the_device_where_draws_are_prioritized(members, updates):
    program = device_program(adapt(CartPole(), CARTPOLE), members, prioritized=True, gradient_steps=updates)
    assert_in_place(program, lambda n: [("u32", n, WIDTH), ("f32", n // 16, 16)], members)


def frames_of(capacity):
    return [("u32", capacity, STEP_WIDTH), ("u32", capacity, 16), ("f32", capacity // 16, 16)]


def resetting_env():
    """Frames of an environment that resets in steps of their own, as pure functions."""

    def reset(key, n):
        return jnp.zeros(n, jnp.int32), jnp.zeros((n, *FRAME), jnp.uint8)

    def step(count, action, keys):
        reset = count % 5 == 4
        obs = jnp.broadcast_to((count % 256).astype(jnp.uint8)[:, None, None, None], (len(count), *FRAME))
        done = count % 5 == 3
        return count + 1, TimeStep(obs, jnp.ones(len(count)), done, jnp.zeros_like(done), obs, reset)

    return Env(PIXELS, reset, step, keys=0)


def test_no_copy_of_frames_on_the_device():
    assert_in_place(device_program(resetting_env(), 2, prioritized=True), frames_of, 2)


@pytest.mark.parametrize(("program", "prioritized"), [
    ("act", True), ("learn", True), pytest.param("learn", False, marks=pytest.mark.slow)])
def test_no_copy_of_frames_on_the_host_path(program, prioritized):
    no = np.zeros(4, bool)
    step = TimeStep(np.zeros((4, *FRAME), np.uint8), np.zeros(4, np.float32), no, no, reset=no)

    def compile_at(capacity):
        config = dataclasses.replace(config_of(capacity), prioritized=prioritized)
        p = host_driver.Programs(lambda c: dqn.make_host_run(c, PIXELS), config, jax.random.key(0), step)
        donated = (1,) if program == "act" else (0, 1)
        (compiled,) = compile_all((getattr(p, program), shapes_of(p, config, step), donated, TRAIN_OPTIONS))
        return compiled

    assert_in_place(compile_at, frames_of)


def test_a_copy_would_be_counted():
    def keeps_the_old_one(rows, x):
        return rows.at[0].set(x), rows[5] + rows.sum(0)

    rows, x = jax.ShapeDtypeStruct((4_096, WIDTH), jnp.uint32), jax.ShapeDtypeStruct((WIDTH,), jnp.uint32)
    compiled = jax.jit(keeps_the_old_one).lower(rows, x).compile()  # not donated
    assert full_size_copies(compiled.as_text(), f"4096,{WIDTH}")
