"""How the host drives a run: programs compiled ahead, then `start` once and `chunk` again and again.

A `Driver` hides whether environments live on the device (a chunk is one call of one program) or on the host (a chunk is a
loop: Gymnasium steps, one program inserts, learns and acts). Training (`jaxdl.train`) knows nothing else of a run.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.core import axis, processes
from jaxdl.core.compile import QUICK_OPTIONS, START_OPTIONS, TRAIN_OPTIONS, compile_all
from jaxdl.core.config import leaves_as_arrays
from jaxdl.core.run import Report, advance
from jaxdl.core.types import Array, PyTree, Run, RunState
from jaxdl.runtime import memory_check
from jaxdl.runtime.mesh import SAME, Spread, make_mesh

# On a GPU the steps that make so much of `t` are a loop of known length (`run.advance`), and the program has the step twice: on
# an H200 a DQN's step takes 75 us in place of 96, a VAE's 103 in place of 116 (`experiments/benchmarks/step_times.json`). A
# step that is many of the environments', as PPO's is, is long anyway and would take twice as long to compile.
LOOP = 64


class Driver(NamedTuple):
    """A run, compiled and ready. A population of K members has a leading axis K in every state but `t`."""

    start: Callable[[], PyTree]  # () -> state
    chunk: Callable[[PyTree, int], tuple[PyTree, Report]]  # (state, steps of the run) -> (state, report of numpy arrays)
    snapshot: Callable[[PyTree], PyTree]  # state -> what a checkpoint holds
    restore: Callable[[PyTree], PyTree]  # what a checkpoint holds -> state
    like: PyTree  # shapes and dtypes of what a checkpoint holds
    params: Callable[[PyTree], PyTree]  # state -> what acts or samples
    close: Callable[[], None]  # lets go of the environments
    first_step: int  # `t` after start
    stride: int  # `t` of one step of the run
    updates: int  # updates in one step of the run
    compile_s: float  # seconds of tracing and compiling
    exact: bool  # a restored run has the bits of an uninterrupted one
    members: int  # of the population; 1 is a single run, without the axis
    devices: int = 1  # that share it
    program: Any = None  # the compiled chunk; of environments on the host, what learns
    loop: int = 1  # steps in the loops of known length that a chunk is made of; what is left over is done one by one


def _in_turn(f: Callable[[Any, RunState], tuple[RunState, Report]], config: Any, state: RunState
             ) -> tuple[RunState, Report]:
    """What `vmap` of `f` over the members' settings and states gives, one member after the other.

    On a CPU's core wider arrays gain nothing, and one member fits its cache where 32 do not.
    """

    def body(carry: RunState, k: Array) -> tuple[RunState, Report]:
        own = carry._replace(t=None)  # the members share `t`
        settings, mine = jax.tree.map(lambda x: jnp.asarray(x)[k], (config, own))
        new, report = f(settings, mine._replace(t=state.t))
        own = jax.tree.map(lambda x, y: x.at[k].set(y), own, new._replace(t=None))
        return own._replace(t=new.t), report

    return jax.lax.scan(body, state, jnp.arange(len(state.key)))


def like_of(init: Callable[[], RunState], shards: int) -> RunState:
    """The state that so many devices share, as shapes."""
    if shards == 1:
        return jax.eval_shape(init)
    state = jax.eval_shape(jax.vmap(lambda _: init(), axis_name=axis.AXIS, axis_size=shards), jnp.zeros(shards))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), state)._replace(source=state.source)


def dealt_out(state: RunState, written_by: int, like: RunState, devices: int) -> RunState:
    """The state that some devices wrote as that of others (`parallel.resplit`); one device has no axis of them."""
    if written_by == devices:
        return state

    def leading(tree: PyTree, count: int) -> PyTree:
        def of(x: Any) -> Any:
            return jax.ShapeDtypeStruct((1, *x.shape), x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else x[None]

        return tree if count > 1 else jax.tree.map(of, tree)

    source = axis.resplit(leading(state.source, written_by), leading(like.source, devices))
    return state._replace(source=source if devices > 1 else jax.tree.map(lambda x: x[0], source))


def device(make_run: Callable[..., Run], config: Any, data: PyTree, seeds: Sequence[int], *, quick: bool = False,
           devices: int = 1, written_by: int | None = None) -> Driver:
    """Drive a run whose every part is on the device, or on several.

    On several devices a single run is shared by all (`jaxdl.parallel`): its learner is the same on each, and every leaf of its
    source has a leading axis of devices. A population is spread over them instead, as many whole members on each.

    Args:
        make_run: config -> Run; called while tracing, with arrays as the leaves of the config. With several devices and a
            single run also `axis_name` and `shards` are given.
        config: the settings; a list has those of each member, which differ in numbers alone.
        data: the dataset on the device, or None.
        seeds: one seed for a single run, several for a population: member k is the run of `seeds[k]`.
        quick: compile in half the time programs that take up to three times as long, on a CPU.
        devices: how many; the first of `jax.devices()`.
        written_by: how many devices wrote the checkpoint that `restore` is to read, if not as many.

    Raises:
        UserError: there are not as many devices, or they cannot share the sizes or the members.
    """
    began = time.perf_counter()
    seeds = np.asarray(seeds, np.uint32)
    single = len(seeds) == 1
    configs = [leaves_as_arrays(c) for c in (config if isinstance(config, list) else [config] * len(seeds))]
    config = configs[0] if single else jax.tree.map(lambda *x: np.stack(x), *configs)
    mesh = make_mesh(devices) if devices > 1 else None
    if mesh is not None and not single:
        axis.check_share("the number of members", len(seeds), devices)
    spread = Spread(mesh, single)
    data = spread.place_data(data)

    def run_of(config: Any, shards: int = devices) -> Run:
        return make_run(config) if shards == 1 or not single else make_run(config, axis_name=axis.AXIS, shards=shards)

    def start(config, seeds, data):
        if single:
            return run_of(config).init(jax.random.key(seeds[0]), data)
        return jax.vmap(lambda config, seed: run_of(config).init(jax.random.key(seed), data),
                        out_axes=run.axes)(config, seeds)

    def chunk(config, state, data, n):
        def member(config: Any, state: RunState) -> tuple[RunState, Report]:
            return advance(run_of(config), state, data, n, loop)

        if single:
            return member(config, state)
        if jax.default_backend() == "cpu":
            return _in_turn(member, config, state)
        return jax.vmap(member, in_axes=(0, run.axes), out_axes=(run.axes, 0))(config, state)

    def restart(config, state):
        return run_of(config).restart(state)

    run = run_of(configs[0])
    loop = max(1, LOOP // run.stride) if jax.default_backend() == "gpu" and not quick else 1
    member, state = spread.members, spread.state
    start = spread.over(start, (member, member, spread.data), state)
    chunk = spread.over(chunk, (member, state, spread.data, SAME), (state, member))
    like = jax.eval_shape(start, config, seeds, data)
    memory_check.check_state(like, data, devices, single)
    written_by = written_by or devices
    written = like if written_by == devices or not single else like_of(
        lambda: run_of(config, written_by).init(jax.random.key(0), None), written_by)
    start, chunk = compile_all(
        (start, spread.shapes((config, seeds, data), (member, member, spread.data)), (), START_OPTIONS),
        (chunk, spread.shapes((config, like, data, np.int32(1)), (member, state, spread.data, SAME)), (1,),
         QUICK_OPTIONS if quick else TRAIN_OPTIONS))

    memory_check.check_program(chunk, devices)

    def run_chunk(state, n):
        state, report = chunk(config, state, data, np.int32(n))
        return state, jax.tree.map(processes.whole, report)

    def restore(state):
        state = spread.placed(dealt_out(state, written_by, like, devices) if single else state)
        if run.restart is None:
            return state
        return jax.jit(spread.over(restart, (member, spread.state), spread.state), donate_argnums=1)(config, state)

    return Driver(
        start=lambda: start(config, seeds, data), chunk=run_chunk, snapshot=lambda s: s, restore=restore, like=written,
        params=lambda s: spread.local(run.params(s)), close=lambda: None, first_step=run.first_step, stride=run.stride,
        updates=run.updates, compile_s=time.perf_counter() - began, exact=run.restart is None, members=len(seeds),
        devices=devices, program=chunk, loop=loop)
