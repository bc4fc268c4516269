"""How the host drives a run: programs compiled ahead, then `start` once and `chunk` again and again.

A `Driver` hides whether environments live on the device (a chunk is one call of one program) or on the host (a chunk is a
loop: Gymnasium steps, one program inserts, learns and acts). The loop around it (`runtime.fit`) knows nothing else of a run.
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.core import axis, processes
from jaxdl.core.compile import QUICK_OPTIONS, START_OPTIONS, TRAIN_OPTIONS, compile_all
from jaxdl.core.config import leaves_as_arrays
from jaxdl.core.errors import UserError
from jaxdl.core.run import Report, advance
from jaxdl.core.types import Array, PyTree, Run, RunState
from jaxdl.runtime import memory_check
from jaxdl.runtime.mesh import REPLICATED, SINGLE_DEVICE, MeshLayout, make_mesh

# On a GPU the steps that make so much of `t` are a loop of known length (`run.advance`), and the program has the step twice: on
# an H200 a DQN's step takes 75 us in place of 96, a VAE's 103 in place of 116 (`experiments/benchmarks/step_times.json`). A
# step that is many of the environments', as PPO's is, is long anyway and would take twice as long to compile.
LOOP = 64
TOTALS = 256  # room for the totals of 64 metrics, which a chunk begins with


class Driver(NamedTuple):
    """A run, compiled and ready. A population of K members has a leading axis K in every state but `t`."""

    start: Callable[[], PyTree]  # () -> state
    chunk: Callable[..., tuple[PyTree, Report]]  # (state, steps of the run, report so far or None) -> (state, report of numpy
    # arrays)
    step_of: Callable[[PyTree], int]  # state -> its `t`
    snapshot: Callable[[PyTree], RunState]  # state -> what a checkpoint holds
    restore: Callable[[RunState], PyTree]  # what a checkpoint holds -> state
    like: RunState  # shapes and dtypes of what a checkpoint holds
    without_memory: Callable[[RunState], RunState] | None  # of what a checkpoint holds; None where there is no replay memory
    params: Callable[[PyTree], PyTree]  # state -> what acts or samples
    close: Callable[[], None]  # closes the environments
    first_step: int  # `t` after start
    stride: int  # what one step of the run adds to `t`; the most that it adds, where resets on the host are no steps
    updates: int  # updates in one step of the run
    compile_s: float  # seconds of tracing and compiling
    exact: bool  # a restored run has the bits of an uninterrupted one
    members: int  # of the population; 1 is a single run, without the axis
    devices: int = 1  # that share it
    program: Any = None  # the compiled chunk; of environments on the host, what learns
    loop: int = 1  # steps in the loops of known length that a chunk is made of; what is left over is done one by one


class Programs(NamedTuple):
    """A kind of run as pure functions of the whole, on however many devices."""

    start: Callable[..., RunState]  # (config, seeds, data) -> state
    chunk: Callable[..., tuple[RunState, Report]]  # (config, state, data, n, totals so far) -> (state, report)
    restart: Callable[..., RunState]  # (config, state) -> state: all environments reset
    layout: MeshLayout


def single_run(make_run: Callable[..., Run], loop: int) -> Programs:
    """One run on one device; of its `seeds` [1] the first is taken."""

    def start(config: Any, seeds: Array, data: PyTree) -> RunState:
        return make_run(config).init(jax.random.key(seeds[0]), data)

    def chunk(config: Any, state: RunState, data: PyTree, n: Array, so_far: Array) -> tuple[RunState, Report]:
        return advance(make_run(config), state, data, n, loop, so_far)

    def restart(config: Any, state: RunState) -> RunState:
        return make_run(config).restart(state)

    return Programs(start, chunk, restart, SINGLE_DEVICE)


def shared_run(make_run: Callable[..., Run], loop: int, devices: int) -> Programs:
    """One run that devices share: the same learner on each, and a leading axis of devices on every leaf of its source."""
    shard = single_run(_shard_of(make_run, devices), loop)
    return _mapped(shard, MeshLayout(make_mesh(devices), shared=True))


def population(make_run: Callable[..., Run], loop: int, axes: RunState, devices: int) -> Programs:
    """Runs that differ in numbers and seeds, as many on each device: a leading axis of members on all but `t`.

    Args:
        make_run: config -> Run.
        loop: as in `advance`.
        axes: `Run.axes`, what each member has of its own.
        devices: how many; more than one divide the members among them.
    """
    one = single_run(make_run, loop)

    def start(configs: Any, seeds: Array, data: PyTree) -> RunState:
        return jax.vmap(lambda config, seed: one.start(config, seed[None], data), out_axes=axes)(configs, seeds)

    def chunk(configs: Any, state: RunState, data: PyTree, n: Array, so_far: Array) -> tuple[RunState, Report]:
        def member(given: Any, state: RunState) -> tuple[RunState, Report]:
            config, totals = given
            return one.chunk(config, state, data, n, totals)

        if jax.default_backend() == "cpu":
            return _in_turn(member, (configs, so_far), state)
        return jax.vmap(member, in_axes=(0, axes), out_axes=(axes, 0))((configs, so_far), state)

    layout = MeshLayout(make_mesh(devices) if devices > 1 else None, shared=False)
    return _mapped(Programs(start, chunk, one.restart, layout), layout)


def _shard_of(make_run: Callable[..., Run], shards: int) -> Callable[..., Run]:
    """Config -> the run of one of so many shards."""
    return make_run if shards == 1 else functools.partial(make_run, axis_name=axis.AXIS, shards=shards)


def _mapped(programs: Programs, layout: MeshLayout) -> Programs:
    """Programs of one device's part as programs of the whole."""
    members, state, data = layout.members, layout.state, layout.data
    return Programs(layout.map(programs.start, (members, members, data), state),
                    layout.map(programs.chunk, (members, state, data, REPLICATED, members), (state, members)),
                    layout.map(programs.restart, (members, state), state), layout)


def _in_turn(f: Callable[[Any, RunState], tuple[RunState, Report]], config: Any, state: RunState
             ) -> tuple[RunState, Report]:
    """`vmap` of `f` over what each member is given and their states, computed one member after the other.

    Wider arrays gain nothing on a CPU's core, and one member fits its cache where 32 do not.
    """

    def body(carry: RunState, k: Array) -> tuple[RunState, Report]:
        own = carry._replace(t=None)  # the members share `t`
        settings, mine = jax.tree.map(lambda x: jnp.asarray(x)[k], (config, own))
        new, report = f(settings, mine._replace(t=state.t))
        own = jax.tree.map(lambda x, y: x.at[k].set(y), own, new._replace(t=None))
        return own._replace(t=new.t), report

    return jax.lax.scan(body, state, jnp.arange(len(state.key)))


def state_shapes(init: Callable[[], RunState], shards: int) -> RunState:
    """Shapes of the state of a run that is shared by `shards` devices; `init` is one device's."""
    if shards == 1:
        return jax.eval_shape(init)
    state = jax.eval_shape(jax.vmap(lambda _: init(), axis_name=axis.AXIS, axis_size=shards), jnp.zeros(shards))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), state)._replace(source=state.source)


def reshard(state: RunState, env_axis: PyTree, before: int, after: int) -> RunState:
    """The state of a run that `before` devices shared as that of `after` devices (`axis.reshard`).

    The source of one device has no axis of devices.
    """
    if before == after:
        return state
    source = state.source if before > 1 else jax.tree.map(lambda x: x[None], state.source)
    source = axis.reshard(source, env_axis, after)
    return state._replace(source=source if after > 1 else jax.tree.map(lambda x: x[0], source))


def make_device_driver(make_run: Callable[..., Run], configs: Sequence[Any], data: PyTree, seeds: Sequence[int], *,
                       quick: bool = False, devices: int = 1, written_by: int | None = None) -> Driver:
    """Drive a run whose every part is on the device, or on several.

    On several devices a single run is shared by all (`core.axis`). The members of a population are divided among them instead.

    Args:
        make_run: config -> Run; called while tracing, with arrays as the leaves of the config. `axis_name` and `shards` are
            given too where several devices share a single run.
        configs: the settings; one for all members, or each member's, which differ in numbers alone.
        data: the dataset on the device, or None.
        seeds: one seed for a single run, several for a population: member k is the run of `seeds[k]`.
        quick: compile in half the time programs that take up to three times as long, on a CPU.
        devices: how many; the first of `jax.devices()`.
        written_by: how many devices wrote the checkpoint that `restore` is to read, if not as many.

    Raises:
        UserError: seeds are no whole numbers below 2**32, there are not as many devices, they cannot share the sizes or the
            members, or memory is too small.
    """
    began = time.perf_counter()
    seeds = _checked_seeds(seeds)
    configs = [leaves_as_arrays(c) for c in configs]
    single = len(seeds) == 1
    run = (_shard_of(make_run, devices) if single else make_run)(configs[0])
    loop = max(1, LOOP // run.stride) if jax.default_backend() == "gpu" and not quick else 1
    if single:
        config = configs[0]
        programs = single_run(make_run, loop) if devices == 1 else shared_run(make_run, loop, devices)
    else:
        axis.check_share("the number of members", len(seeds), devices)
        config = jax.tree.map(lambda *x: np.stack(x), *(configs if len(configs) > 1 else configs * len(seeds)))
        programs = population(make_run, loop, run.axes, devices)

    layout = programs.layout
    data = layout.place_data(data)
    like = jax.eval_shape(programs.start, config, seeds, data)
    memory_check.check_state_fits(like, data, devices, single)
    nothing = np.zeros(TOTALS if single else (len(seeds), TOTALS), np.float32)
    start, chunk = compile_all(
        (programs.start, layout.placed_shapes((config, seeds, data), (layout.members, layout.members, layout.data)), (),
         START_OPTIONS),
        (programs.chunk, layout.placed_shapes((config, like, data, np.int32(1), nothing),
                                              (layout.members, layout.state, layout.data, REPLICATED, layout.members)), (1,),
         QUICK_OPTIONS if quick else TRAIN_OPTIONS))
    memory_check.check_program_fits(chunk, devices)
    names = jax.tree.unflatten(chunk.out_tree, range(chunk.out_tree.num_leaves))[1].names  # of the metrics
    written_by = written_by if written_by and single else devices
    if written_by != devices:
        like = state_shapes(lambda: _shard_of(make_run, written_by)(config).init(jax.random.key(0), None), written_by)

    def run_chunk(state: RunState, n: int, report: Report | None = None) -> tuple[RunState, Report]:
        so_far = nothing
        if report is not None and report.names == names and report.totals.shape[-1] <= TOTALS:
            so_far = nothing.copy()
            so_far[..., : report.totals.shape[-1]] = report.totals
        state, report = chunk(config, state, data, np.int32(n), so_far)
        return state, jax.tree.map(processes.whole, report)

    def restore(state: RunState) -> RunState:
        state = layout.place_state(reshard(state, run.source.env_axis, written_by, devices))
        return state if run.restart is None else jax.jit(programs.restart, donate_argnums=1)(config, state)

    return Driver(
        start=lambda: start(config, seeds, data), chunk=run_chunk, step_of=lambda state: int(state.t),
        snapshot=lambda state: state, restore=restore, like=like,
        without_memory=state_without_memory(run), params=lambda state: layout.local(run.params(state)), close=lambda: None,
        first_step=run.first_step, stride=run.stride, updates=run.updates, compile_s=time.perf_counter() - began,
        exact=run.restart is None, members=len(seeds), devices=devices, program=chunk, loop=loop)


def _checked_seeds(seeds: Any) -> np.ndarray:
    found = np.asarray(seeds)
    if found.ndim != 1 or not len(found) or found.dtype.kind not in "iu" or found.min() < 0 or found.max() >= 2**32:
        raise UserError(f"seeds must be one or more whole numbers from 0 to 2**32 - 1, as in seeds=[0], got {seeds!r}")
    return found.astype(np.uint32)


def state_without_memory(run: Any) -> Callable[[RunState], RunState] | None:
    """`Driver.without_memory` of a run on the device or on the host."""
    drop = run.source.without_memory
    return None if drop is None else lambda state: state._replace(source=drop(state.source))
