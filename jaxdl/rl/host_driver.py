"""Driving a run whose environments live on the host: one dispatch a vector step.

A step of Gymnasium is followed by one call of one program, which stores what it answered, learns if it is time, and acts.
The cost of a call is mostly the number of its buffers. So the small leaves of the state travel as one vector per dtype
(`Packing`), and acting does not return what only learning changes; a large memory is a buffer of its own, updated in place.
"""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from jaxdl.core import processes, streams
from jaxdl.core.axis import AXIS, check_share
from jaxdl.core.compile import QUICK_OPTIONS, START_OPTIONS, TRAIN_OPTIONS, compile_all
from jaxdl.core.config import leaves_as_arrays
from jaxdl.core.errors import EnvError
from jaxdl.core.packing import Packing
from jaxdl.core.run import Report
from jaxdl.core.streams import Purpose
from jaxdl.core.types import Array, Key, Mean, Metrics, PyTree, RunState
from jaxdl.rl.envs import HostEnvs
from jaxdl.rl.types import HostRun, TimeStep, pack_step, unpack_step
from jaxdl.runtime import memory_check
from jaxdl.runtime.device_driver import Driver, reshard, state_shapes, state_without_memory
from jaxdl.runtime.mesh import PER_DEVICE, REPLICATED, SHARDED, SINGLE_DEVICE, MeshLayout, Placement, make_mesh

Buffers = list[jax.Array]  # of a `Packing`


class _Fixed(NamedTuple):
    """What only learning changes."""

    config: Any
    learner: PyTree


class _Moving(NamedTuple):
    """What goes from one vector step to the next."""

    state: RunState  # without the learner
    report: Report


class HostState(NamedTuple):
    """What the driver keeps between two vector steps."""

    fixed: Buffers
    moving: Buffers  # where devices share the run each has its own, with a leading axis of devices outside of the programs
    action: Array  # [N, ...] to be done next


def arrays(step: TimeStep) -> tuple[np.ndarray, np.ndarray]:
    """A step as the programs take it: observations [N, ...], and `pack_step` with the resets, float32 [4, N]."""
    return step.obs, pack_step(step, step.reset)


def _step(obs: Array, rows: Array) -> TimeStep:
    """The step of `arrays`."""
    reward, terminated, truncated, reset = unpack_step(rows)
    return TimeStep(obs, reward, terminated, truncated, reset=reset)


class Programs:
    """The pure functions of the host path, on packed buffers. `step` are the two `arrays` of a `TimeStep`.

    Args:
        make_run: config -> the run of one device's environments.
        config: an example.
        key: an example.
        step: an example, of one device's environments.
        layout: of the devices.
    """

    def __init__(self, make_run: Callable[[Any], HostRun], config: Any, key: Key, step: TimeStep,
                 layout: MeshLayout = SINGLE_DEVICE):
        self.make_run, self.axis_name = make_run, None if layout.mesh is None else AXIS
        run = make_run(config)
        state = jax.eval_shape(run.init, key, step.obs)

        def metrics(state: RunState, obs: Array, rows: Array) -> Metrics:
            state, k_act, k_learn = run.keys(state)
            return run.observe(state, _step(obs, rows))[1] | run.learn(state, k_learn)[1] | run.act(state, k_act)[2]

        self.nothing = Report.empty(layout.shard_shapes(metrics, state, *arrays(step)))
        self.fixed, self.moving = map(Packing.of, self._parts(config, state, self.nothing))

    def init(self, config: Any, key: Key, obs: Array) -> HostState:
        """The state before the first step."""
        run = self.make_run(config)
        return self._begin(run, config, run.init(key, obs))

    def restart(self, config: Any, state: RunState, obs: Array) -> HostState:
        """The state of a run that was read from a checkpoint, all of whose environments were reset."""
        run = self.make_run(config)
        return self._begin(run, config, run.restart(state, obs))

    def act(self, fixed: Buffers, moving: Buffers, *step: Array) -> tuple[Buffers, Array]:
        """Store the step and act: `moving` and the action."""
        run, config, state, report = self._unpack(fixed, moving)
        state, metrics = run.observe(state, _step(*step))
        k_act = None
        if not run.ahead:
            state, k_act, _ = run.keys(state)
        return self._finish(run, config, state, report, metrics, k_act)[1:]

    def learn(self, fixed: Buffers, moving: Buffers, *step: Array) -> HostState:
        """Store the step, learn and act."""
        run, config, state, report = self._unpack(fixed, moving)
        state, metrics = run.observe(state, _step(*step))
        state, k_act, k_learn = run.keys(state)
        state, learned = run.learn(state, k_learn)
        return self._finish(run, config, state, report, metrics | learned, k_act)

    def drain(self, moving: Buffers, new: Report) -> tuple[Buffers, Report]:
        """The report so far, of all devices, and `moving` with another one, which the first device goes on with."""
        state, report = self.moving.unpack(moving)
        if self.axis_name is not None:
            new = dataclasses.replace(new, totals=new.totals * (jax.lax.axis_index(self.axis_name) == 0))
        return self.moving.pack(_Moving(state, new)), report.over(self.axis_name)

    def run_state(self, state: HostState) -> RunState:
        """The run's state in the buffers. The small leaves are copied: a view would keep its buffer from being donated."""

        def unpacked(packing: Packing, buffers: Buffers) -> PyTree:
            small = len(packing.groups)
            return packing.unpack([np.array(b) if i < small and b.is_fully_addressable else b for i, b in enumerate(buffers)])

        found = unpacked(self.moving, state.moving).state._replace(learner=unpacked(self.fixed, state.fixed).learner)
        return found if self.axis_name is None else found._replace(key=found.key[0], t=found.t[0])

    def t(self, state: HostState) -> int:
        """The `t` of a state."""
        small = len(self.moving.groups)
        own = [processes.own_rows(b) if i < small else b for i, b in enumerate(state.moving)]
        return int(np.ravel(self.moving.unpack(own).state.t)[0])

    @staticmethod
    def _parts(config: Any, state: RunState, report: Report) -> tuple[_Fixed, _Moving]:
        return _Fixed(config, state.learner), _Moving(state._replace(learner=None), report)

    def _unpack(self, fixed: Buffers, moving: Buffers) -> tuple[HostRun, Any, RunState, Report]:
        config, learner = self.fixed.unpack(fixed)
        state, report = self.moving.unpack(moving)
        return self.make_run(config), config, state._replace(learner=learner), report

    def _begin(self, run: HostRun, config: Any, state: RunState) -> HostState:
        state, k_act, _ = run.keys(state)
        return self._finish(run, config, state, self.nothing, {}, k_act)

    def _finish(self, run: HostRun, config: Any, state: RunState, report: Report, metrics: Metrics, k_act: Key | None
                ) -> HostState:
        """Act, add a step's metrics to the report, and pack everything."""
        state, action, acted = run.act(state, k_act)
        missing = Mean(jnp.zeros(()), jnp.zeros(()))  # of what is measured where it learns alone
        metrics = {name: (metrics | acted).get(name, missing) for name in report.names}
        fixed, moving = self._parts(config, state, report.add(metrics, state.t))
        return HostState(self.fixed.pack(fixed), self.moving.pack(moving), action)


class HostDriver:
    """A run on environments of the host, compiled and ready; `make_host_driver` makes its `Driver`."""

    def __init__(self, make_run: Callable[..., HostRun], config: Any, venv: HostEnvs, seed: int, quick: bool, devices: int,
                 written_by: int):
        self.make_run, self.config, self.venv, self.seed = make_run, leaves_as_arrays(config), venv, seed
        self.devices, self.written_by, self.key = devices, written_by, jax.random.key(seed)
        self.layout = MeshLayout(make_mesh(devices) if devices > 1 else None, shared=True)
        self.run = self._run_of(devices)(self.config)
        check_share("num_envs", self.run.num_envs, devices)
        self.first_obs = self._reset(0)
        self.taken = 0  # transitions, as `t` counts them; where rows end a round, those of this process
        self.gathers = self.run.rows is None and processes.count() > 1
        self.programs = Programs(self._run_of(devices), self.config, self.key, self._example(devices), self.layout)
        self._compile(QUICK_OPTIONS if quick else TRAIN_OPTIONS)

    def _run_of(self, shards: int) -> Callable[[Any], HostRun]:
        return self.make_run if shards == 1 else functools.partial(self.make_run, axis_name=AXIS, shards=shards)

    def _example(self, shards: int) -> TimeStep:
        """A step of the environments of one of so many shards."""
        envs, obs = self.run.num_envs // shards, self.first_obs
        no = np.zeros(envs, bool)
        return TimeStep(jax.ShapeDtypeStruct((envs, *obs.shape[1:]), jax.dtypes.canonicalize_dtype(obs.dtype)),
                        np.zeros(envs, np.float32), no, no, reset=no)

    def _compile(self, options: dict[str, Any]) -> None:
        p, layout = self.programs, self.layout
        places = {"config": REPLICATED, "key": REPLICATED, "obs": SHARDED, "rows": Placement(P(None, AXIS)),
                  "fixed": REPLICATED, "moving": PER_DEVICE, "action": SHARDED, "state": layout.state, "report": REPLICATED}
        state = HostState("fixed", "moving", "action")

        def mapped(f: Callable, ins: tuple, outs: tuple) -> Callable:
            return layout.map(f, *jax.tree.map(places.get, (ins, outs)))

        def program(f: Callable, ins: tuple, outs: tuple, donate: tuple, options: dict) -> tuple:
            given = layout.placed_shapes(*(tuple(x[name] for name in ins) for x in (shapes, places)))
            return mapped(f, ins, outs), given, donate, options

        shapes = {"config": self.config, "key": self.key, "obs": self.first_obs, "rows": jnp.zeros((4, self.run.num_envs))}
        shapes["report"] = p.nothing
        shapes |= jax.eval_shape(mapped(p.init, ("config", "key", "obs"), state), self.config, self.key, self.first_obs
                                 )._asdict()
        step = "fixed", "moving", "obs", "rows"
        self._init, self._act, self._learn, self._drain = compile_all(
            program(p.init, ("config", "key", "obs"), state, (), START_OPTIONS),
            program(p.act, step, ("moving", "action"), (1,), options),
            program(p.learn, step, state, (0, 1), options),
            program(p.drain, ("moving", "report"), ("moving", "report"), (0,), START_OPTIONS))
        self._restart = jax.jit(mapped(p.restart, ("config", "state", "obs"), state))  # compiled where a run is resumed
        memory_check.check_program_fits(self._learn, self.devices)

    def start(self) -> HostState:
        """The state after the warm-up."""
        self.taken = 0
        fixed, moving, action = self._init(self.config, self.key, self.first_obs)
        while self._rounds(self.taken) < self.run.first_step // self.run.stride:
            moving, action = self._act(fixed, moving, *self._answer(action))
        return HostState(fixed, self._drain(moving, self.programs.nothing)[0], action)

    def chunk(self, state: HostState, n: int, report: Report | None = None) -> tuple[HostState, Report]:
        """`n` rounds: of each the last vector step learns. Their metrics are added to `report`."""
        fixed, moving, action = state
        nothing = self.programs.nothing
        if report is not None and report.names == nothing.names:
            moving, _ = self._drain(moving, dataclasses.replace(nothing, totals=report.totals))
        for _ in range(n):
            before = self._rounds(self.taken)
            for row in itertools.count(1):
                answer = self._answer(action)
                if row == self.run.rows or (self.run.rows is None and self._rounds(self.taken) > before):
                    break
                moving, action = self._act(fixed, moving, *answer)
            fixed, moving, action = self._learn(fixed, moving, *answer)
        moving, report = self._drain(moving, nothing)
        return HostState(fixed, moving, action), jax.tree.map(processes.whole, report)

    def restore(self, state: RunState) -> HostState:
        """The state of a checkpoint. Its environments begin episodes that the interrupted run has not seen."""
        self.taken = int(state.t)
        state = reshard(state, self.run.source.env_axis, self.written_by, self.devices)
        return self._restart(self.config, self.layout.place_state(state), self._reset(self.taken))

    def step_of(self, state: HostState) -> int:
        """Environment steps taken; where rounds end at multiples of `stride`, the multiple that the last one came to."""
        t = self.programs.t(state)
        return t if self.run.rows is not None else self._rounds(t) * self.run.stride

    def params(self, state: HostState) -> PyTree:
        """What acts."""
        return self.layout.local(self.run.params(self.programs.run_state(state)))

    def like(self) -> RunState:
        """Shapes of what a checkpoint holds."""
        init, obs = self._run_of(self.written_by)(self.config).init, self._example(self.written_by).obs
        return state_shapes(lambda: init(self.key, jnp.zeros(obs.shape, obs.dtype)), self.written_by)

    def _reset(self, more: int) -> Array:
        """First observations [N, ...], others after `more` steps. Each environment has a seed of its own, in any process."""
        seed = streams.host_seed(self.seed, Purpose.ENVIRONMENTS, more, jax.process_index())
        return self.layout.global_rows(self.venv.reset(seed))

    def _rounds(self, t: int) -> int:
        """Rounds that end at multiples of `stride` which `t` has come to: no further vector step fits before them."""
        return (t + self.run.num_envs - 1) // self.run.stride

    def _answer(self, action: Array) -> tuple[Array, Array]:
        """Step the environments: the `arrays` of what they answer."""
        try:
            step = self.venv.step(processes.own_rows(action))
        except EnvError as e:
            raise type(e)(f"{e}, at environment step {self.taken + self.run.num_envs:,}") from e
        taken = step.reset.size - np.count_nonzero(step.reset)
        if self.gathers:  # all count the same, or one would learn alone
            taken = int(processes.gathered(np.array(taken)).sum())
        self.taken += taken
        obs, rows = arrays(step)
        return self.layout.global_rows(obs), self.layout.global_rows(rows, axis=1)


def make_host_driver(make_run: Callable[..., HostRun], config: Any, venv: HostEnvs, seed: int, *, quick: bool = False,
                     devices: int = 1, written_by: int | None = None) -> Driver:
    """Drive a run on Gymnasium environments (`rl.envs.make_host`); the driver's `close` closes them.

    Args:
        make_run: config -> HostRun; called while tracing, with arrays as the leaves of the config. `axis_name` and `shards`
            are given too where several devices share the run.
        config: the settings.
        venv: the environments; several devices share them in order.
        seed: of the run and of the environments.
        quick: as in `make_device_driver`.
        devices: as in `make_device_driver`.
        written_by: as in `make_device_driver`.

    Raises:
        UserError: as in `make_device_driver`.
    """
    began = time.perf_counter()
    host = HostDriver(make_run, config, venv, seed, quick, devices, written_by or devices)
    run = host.run
    return Driver(
        start=host.start, chunk=host.chunk, step_of=host.step_of, snapshot=host.programs.run_state, restore=host.restore,
        like=host.like(),
        without_memory=state_without_memory(run), params=host.params, close=venv.close, first_step=run.first_step,
        stride=run.stride, updates=run.updates, compile_s=time.perf_counter() - began, exact=False,
        members=1, devices=devices, program=host._learn)
