"""Driving a run whose environments live on the host: one dispatch a vector step.

A step of Gymnasium is followed by one call of one program that stores what it answered, learns if it is time, and acts.
What a call costs is mostly the number of buffers it is given, so the small leaves of the state travel as one vector per
dtype (`Packing`), and what only learning changes is not given back by acting; a large memory stays what it is and is updated in
place.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from jaxdl.core import processes
from jaxdl.core.axis import AXIS, check_share
from jaxdl.core.compile import QUICK_OPTIONS, START_OPTIONS, TRAIN_OPTIONS, compile_all
from jaxdl.core.config import leaves_as_arrays
from jaxdl.core.errors import EnvError
from jaxdl.core.packing import Packing
from jaxdl.core.run import Report
from jaxdl.core.types import Key, Mean, Metrics, PyTree, RunState
from jaxdl.rl.envs import HostEnvs
from jaxdl.rl.types import HostRun, TimeStep, pack_step, unpack_step
from jaxdl.runtime import device_driver, memory_check
from jaxdl.runtime.device_driver import Driver
from jaxdl.runtime.mesh import ALONE, LEADING, ROWS, SAME, Lies, Spread, make_mesh


def arrays(step: TimeStep) -> tuple[np.ndarray, np.ndarray]:
    """A step as the programs take it: observations [N, ...] and `pack_step` with the resets, float32 [4, N]."""
    return step.obs, pack_step(step, step.reset)


def _step(obs: jax.Array, rows: jax.Array) -> TimeStep:
    """The step of `arrays`."""
    reward, terminated, truncated, reset = unpack_step(rows)
    return TimeStep(obs, reward, terminated, truncated, reset=reset)


class _Fixed(NamedTuple):
    """What only learning changes."""

    config: Any
    learner: PyTree


class _Moving(NamedTuple):
    """What goes from one vector step to the next."""

    state: RunState  # without the learner
    report: Report


class Programs(NamedTuple):
    """The pure functions of the host path; `step` are the two `arrays` of a `TimeStep`.

    `fixed` and `moving` are packed: what only learning changes, so that acting reads the few buffers of it that it needs and
    gives none back, and what every step changes.
    """

    fixed: Packing
    moving: Packing
    init: Callable  # (config, key, obs) -> (fixed, moving, action)
    restart: Callable  # (config, state, obs) -> (fixed, moving, action): all environments begin anew
    act: Callable  # (fixed, moving, *step) -> (moving, action): store, act
    learn: Callable  # (fixed, moving, *step) -> (fixed, moving, action): store, learn, act
    drain: Callable  # (moving) -> (moving, report): the report so far; a new one begins

    def state(self, fixed: list[jax.Array], moving: list[jax.Array], spread: Spread) -> RunState:
        """The run's state as it lies in buffers; the small leaves are copied."""

        def unpacked(packing: Packing, buffers: list[jax.Array]) -> PyTree:
            small = len(packing.groups)
            return packing.unpack([np.array(b) if i < small and b.is_fully_addressable else b for i, b in enumerate(buffers)])

        state = unpacked(self.moving, moving).state._replace(learner=unpacked(self.fixed, fixed).learner)
        return state if spread.mesh is None else state._replace(key=state.key[0], t=state.t[0])


def programs(make_run: Callable[[Any], HostRun], config: Any, key: Key, step: TimeStep, spread: Spread = ALONE) -> Programs:
    """The programs of a run; `config`, `key` and `step` are examples, `step` of one device's environments.

    Where devices share it each has its own moving buffers, which have a leading axis of devices outside of the programs.
    """
    axis_name = None if spread.mesh is None else AXIS
    run = make_run(config)
    state = jax.eval_shape(run.init, key, step.obs)

    def metrics_of(state, obs, numbers):
        state, k_act, k_learn = run.keys(state)
        return run.observe(state, _step(obs, numbers))[1] | run.learn(state, k_learn)[1] | run.act(state, k_act)[2]

    metrics = spread.part_shapes(metrics_of, state, *arrays(step))  # reduced when they are drained

    def split(config: Any, state: RunState, report: Report) -> tuple[_Fixed, _Moving]:
        return _Fixed(config, state.learner), _Moving(state._replace(learner=None), report)

    fixed, moving = (Packing.of(part) for part in jax.eval_shape(
        lambda c, s: split(c, s, Report.empty(metrics)), config, state))

    def unpack(fixed_buffers, moving_buffers) -> tuple[HostRun, Any, RunState, Report]:
        config, learner = fixed.unpack(fixed_buffers)
        state, report = moving.unpack(moving_buffers)
        return make_run(config), config, state._replace(learner=learner), report

    def finish(run: HostRun, config: Any, state: RunState, report: Report, new: Metrics, k_act: Key | None):
        state, action, acted = run.act(state, k_act)
        nothing = Mean(jnp.zeros(()), jnp.zeros(()))
        new = {name: (new | acted).get(name, nothing) for name in metrics}
        return *(p.pack(part) for p, part in zip((fixed, moving), split(config, state, report.add(new, state.t)), strict=True)
                 ), action

    def begin(run: HostRun, config: Any, state: RunState):
        state, k_act, _ = run.keys(state)
        return finish(run, config, state, Report.empty(metrics), {}, k_act)

    def init(config, key, obs):
        run = make_run(config)
        return begin(run, config, run.init(key, obs))

    def restart(config, state, obs):
        run = make_run(config)
        return begin(run, config, run.restart(state, obs))

    def act(fixed_buffers, moving_buffers, *step):
        run, config, state, report = unpack(fixed_buffers, moving_buffers)
        state, new = run.observe(state, _step(*step))
        k_act = None
        if not run.ahead:
            state, k_act, _ = run.keys(state)
        return finish(run, config, state, report, new, k_act)[1:]

    def learn(fixed_buffers, moving_buffers, *step):
        run, config, state, report = unpack(fixed_buffers, moving_buffers)
        state, new = run.observe(state, _step(*step))
        state, k_act, k_learn = run.keys(state)
        state, learned = run.learn(state, k_learn)
        return finish(run, config, state, report, new | learned, k_act)

    def drain(moving_buffers):
        state, report = moving.unpack(moving_buffers)
        return moving.pack(_Moving(state, Report.empty(metrics))), report.over(axis_name)

    return Programs(fixed, moving, init, restart, act, learn, drain)


def host(make_run: Callable[..., HostRun], config: Any, venv: HostEnvs, seed: int, *, quick: bool = False, devices: int = 1,
         written_by: int | None = None) -> Driver:
    """Drive a run on Gymnasium environments (`jaxdl.envs.make_host`); the driver's `close` closes them.

    Args:
        make_run: config -> HostRun; called while tracing, with arrays as the leaves of the config. With several devices also
            `axis_name` and `shards` are given.
        config: the settings.
        venv: the environments; several devices share them, the first has the first.
        seed: of the run and of the environments.
        quick: as in `drive.device`.
        devices: as in `drive.device`.
        written_by: as in `drive.device`.

    Raises:
        UserError: as in `drive.device`.
    """
    began = time.perf_counter()
    config = leaves_as_arrays(config)
    key = jax.random.key(seed)
    spread = Spread(make_mesh(devices) if devices > 1 else None, shared=True)

    def run_of(config: Any, shards: int = devices) -> HostRun:
        return make_run(config) if shards == 1 else make_run(config, axis_name=AXIS, shards=shards)

    run = run_of(config)
    n, here = run.num_envs, venv.num_envs
    check_share("num_envs", n, devices)
    first_env = here * jax.process_index()  # each has a seed of its own, whichever process it is in

    def reset(seed: int) -> np.ndarray:
        return spread.rows(venv.reset(seed + first_env))

    first_obs = reset(seed)
    part = n // devices
    no = np.zeros(part, bool)
    own_obs = jax.ShapeDtypeStruct((part, *first_obs.shape[1:]), jax.dtypes.canonicalize_dtype(first_obs.dtype))
    p = programs(run_of, config, key, TimeStep(own_obs, np.zeros(part, np.float32), no, no, reset=no), spread)
    same, moving, rows, numbers = SAME, LEADING, ROWS, Lies(P(None, AXIS))
    shapes = dict(zip(("fixed", "moving", "action"), jax.eval_shape(
        spread.over(p.init, (same, same, rows), (same, moving, rows)), config, key, first_obs), strict=True))

    def program(f: Callable, ins: dict[str, Any], outs: Any, donate: tuple[int, ...], options: dict) -> tuple:
        known = shapes | {"config": config, "key": key, "obs": first_obs, "numbers": jnp.zeros((4, n))}
        return (spread.over(f, tuple(ins.values()), outs), spread.shapes(tuple(known[k] for k in ins), tuple(ins.values())),
                donate, options)

    options = QUICK_OPTIONS if quick else TRAIN_OPTIONS
    answers = {"obs": rows, "numbers": numbers}
    init, act, learn, drain = compile_all(
        program(p.init, {"config": same, "key": same, "obs": rows}, (same, moving, rows), (), START_OPTIONS),
        program(p.act, {"fixed": same, "moving": moving} | answers, (moving, rows), (1,), options),
        program(p.learn, {"fixed": same, "moving": moving} | answers, (same, moving, rows), (0, 1), options),
        program(p.drain, {"moving": moving}, (moving, same), (0,), START_OPTIONS))
    written_by = written_by or devices

    def like_of(devices: int) -> RunState:
        obs = jnp.zeros((n // devices, *own_obs.shape[1:]), own_obs.dtype)
        return device_driver.like_of(lambda: run_of(config, devices).init(key, obs), devices)

    like, written = like_of(devices), like_of(written_by)
    memory_check.check_program(learn, devices)

    taken = 0  # environment steps

    def answer(action) -> tuple[np.ndarray, np.ndarray]:
        nonlocal taken
        taken += n
        try:
            obs, of_each = arrays(venv.step(processes.own_rows(action)))
            return spread.rows(obs), spread.rows(of_each, axis=1)
        except EnvError as e:
            raise EnvError(f"{e}, at environment step {taken:,}") from e

    def start():
        nonlocal taken
        taken = 0
        fixed, moving, action = init(config, key, first_obs)
        for _ in range(run.first_step // n):
            moving, action = act(fixed, moving, *answer(action))
        return fixed, drain(moving)[0], action

    def chunk(state, iterations):
        fixed, moving, action = state
        for _ in range(iterations):
            for _ in range(run.train_freq - 1):
                moving, action = act(fixed, moving, *answer(action))
            fixed, moving, action = learn(fixed, moving, *answer(action))
        moving, report = drain(moving)
        return (fixed, moving, action), jax.tree.map(processes.whole, report)

    def restore(state):
        nonlocal taken
        taken = int(state.t)
        state = device_driver.dealt_out(state, written_by, like, devices)
        obs = reset(seed + taken)  # episodes that the interrupted run has not seen
        return jax.jit(spread.over(p.restart, (same, spread.state, rows), (same, moving, rows)))(
            config, spread.placed(state), obs)

    def snapshot(state):
        return p.state(*state[:2], spread)

    return Driver(
        start=start, chunk=chunk, snapshot=snapshot, restore=restore, like=written,
        params=lambda s: spread.local(run.params(snapshot(s))), close=venv.close, first_step=run.first_step,
        stride=n * run.train_freq, updates=run.updates, compile_s=time.perf_counter() - began, exact=False, members=1,
        devices=devices, program=learn)
