"""The replay memory is updated in place: no compiled training program copies it, whatever its capacity."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents import dqn
from jaxdl import drive, envs, host
from jaxdl.config import leaves_as_arrays
from jaxdl.sources import memory as memories
from jaxdl.sources import replay
from jaxdl.types import HostStep

CAPACITIES = (4_096, 65_536)
CARTPOLE = envs.spec("CartPole-v1")
WIDTH = memories.width(replay.experience_of(CARTPOLE))


def config_of(capacity):
    return leaves_as_arrays(dqn.Config(num_envs=4, buffer_size=capacity, batch_size=8, learning_starts=16, hidden_sizes=(8,),
                                       total_steps=1_000_000))


def full_size_copies(text, shape):
    """Instructions that make another array of the memory's shape: copies, and selects or loops over all of it."""
    made = re.findall(rf"= \(?u32\[{shape}\]\S* ([a-z-]+)\(", text)
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
@pytest.mark.parametrize("members", [1, 2])
def test_no_copy_on_the_device(capacity, members):
    config = config_of(capacity)
    run = dqn.make_run(config)

    def start(key):
        return run.init(key, None)

    def chunk(config, state, n):
        run = dqn.make_run(config)
        one = lambda s: drive.advance(run, s, None, n)  # noqa: E731
        return one(state) if members == 1 else jax.vmap(one, in_axes=(run.axes,), out_axes=(run.axes, 0))(state)

    if members == 1:
        like = jax.eval_shape(start, jax.random.key(0))
    else:
        like = jax.eval_shape(jax.vmap(start, out_axes=run.axes), jax.random.split(jax.random.key(0), members))
    (compiled,) = drive.compile_all((chunk, (config, like, np.int32(1)), (1,), drive.TRAIN_OPTIONS))
    shape = f"{capacity},{WIDTH}" if members == 1 else f"{members},{capacity},{WIDTH}"
    checked(compiled, shape, members * capacity * WIDTH * 4)


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_no_copy_on_the_host_path(capacity):
    config = config_of(capacity)
    step = HostStep(np.zeros((4, 4), np.float32), np.zeros(4, np.float32), np.zeros(4, bool), np.zeros(4, bool))
    p = host.programs(lambda c: dqn.make_host_run(c, CARTPOLE), config, jax.random.key(0), step)
    buffers = p.shapes[3]
    compiled = drive.compile_all((p.act, (buffers, *step), (0,), drive.TRAIN_OPTIONS),
                                 (p.learn, (buffers, *step), (0,), drive.TRAIN_OPTIONS))
    for program in compiled:
        checked(program, f"{capacity},{WIDTH}", capacity * WIDTH * 4)


def test_a_copy_would_be_counted():
    def keeps_the_old_one(rows, x):
        return rows.at[0].set(x), rows[5] + rows.sum(0)

    rows, x = jax.ShapeDtypeStruct((4_096, WIDTH), jnp.uint32), jax.ShapeDtypeStruct((WIDTH,), jnp.uint32)
    compiled = jax.jit(keeps_the_old_one).lower(rows, x).compile()  # not donated
    assert full_size_copies(compiled.as_text(), f"4096,{WIDTH}")
