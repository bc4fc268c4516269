"""Driving a run whose environments live on the host: one dispatch a vector step.

A step of Gymnasium is followed by one call of one program that stores what it answered, learns if it is time, and acts.
What a call costs is mostly the number of buffers it is given, so the small leaves of the state travel as one vector per
dtype (`Packing`); the replay memory stays what it is and is updated in place.
"""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.config import leaves_as_arrays
from jaxdl.drive import START_OPTIONS, TRAIN_OPTIONS, Driver, compile_all
from jaxdl.envs import HostEnvs
from jaxdl.errors import EnvError
from jaxdl.run import Report
from jaxdl.types import HostRun, HostStep, Key, Mean, Metrics, PyTree, RunState

_SMALL = 1 << 12  # bytes: a larger leaf would cost more to copy into the vector than a buffer of its own does


class Packing(NamedTuple):
    """How a pytree lies in few buffers: a vector for the small leaves of each dtype, and every large leaf as it is."""

    treedef: Any
    leaves: tuple[jax.ShapeDtypeStruct, ...]
    impls: tuple[Any, ...]  # of random keys, else None
    groups: dict[Any, list[int]]  # dtype -> the small leaves of it
    large: list[int]

    @staticmethod
    def of(tree: PyTree) -> "Packing":
        """The packing of trees like this one (arrays or `ShapeDtypeStruct`s)."""
        leaves, treedef = jax.tree.flatten(tree)
        impls = tuple(jax.random.key_impl(jnp.empty((), x.dtype)) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else None
                      for x in leaves)
        leaves = tuple(x if impl is None else jax.eval_shape(jax.random.key_data, x)
                       for x, impl in zip(leaves, impls, strict=True))
        groups, large = {}, []
        for i, x in enumerate(leaves):
            if math.prod(x.shape) * x.dtype.itemsize <= _SMALL:
                groups.setdefault(x.dtype, []).append(i)
            else:
                large.append(i)
        return Packing(treedef, leaves, impls, groups, large)

    def pack(self, tree: PyTree) -> list[jax.Array]:
        """The buffers of a tree."""
        flat = [x if impl is None else jax.random.key_data(x)
                for x, impl in zip(self.treedef.flatten_up_to(tree), self.impls, strict=True)]
        return [jnp.concatenate([flat[i].reshape(-1) for i in group]) for group in self.groups.values()] + [
            flat[i] for i in self.large]

    def unpack(self, buffers: list[jax.Array | np.ndarray]) -> PyTree:
        """The tree of `pack`'s buffers; leaves of numpy vectors are views of them."""
        flat: list[Any] = [None] * len(self.leaves)
        for group, vector in zip(self.groups.values(), buffers, strict=False):
            begin = 0
            for i in group:
                end = begin + math.prod(self.leaves[i].shape)
                flat[i] = vector[begin:end].reshape(self.leaves[i].shape)
                begin = end
        for i, buffer in zip(self.large, buffers[len(self.groups):], strict=True):
            flat[i] = buffer
        return self.treedef.unflatten([x if impl is None else jax.random.wrap_key_data(x, impl=impl)
                                       for x, impl in zip(flat, self.impls, strict=True)])


class _Carry(NamedTuple):
    """What goes from one vector step to the next."""

    config: Any
    state: RunState
    report: Report


class Programs(NamedTuple):
    """The pure functions of the host path. `buffers` are a packed `_Carry`; `step` is a `HostStep`'s five arrays."""

    packing: Packing
    init: Callable  # (config, key, obs) -> (buffers, action)
    restart: Callable  # (config, state, obs) -> (buffers, action): all environments begin anew
    act: Callable  # (buffers, *step) -> (buffers, action): store, act
    learn: Callable  # (buffers, *step) -> (buffers, action): store, learn, act
    drain: Callable  # (buffers) -> (buffers, report): the report so far; a new one begins
    shapes: tuple[Any, ...]  # of (config, key, state, buffers, step)


def programs(make_run: Callable[[Any], HostRun], config: Any, key: Key, step: HostStep) -> Programs:
    """The programs of a run; `config`, `key` and `step` are examples."""
    run = make_run(config)
    state = jax.eval_shape(run.init, key, step.obs)
    def metrics_of(state, step):
        state, k_act, k_learn = run.keys(state)
        return run.observe(state, step)[1] | run.learn(state, k_learn)[1] | run.act(state, k_act)[2]

    metrics = jax.eval_shape(metrics_of, state, step)
    packing = Packing.of(jax.eval_shape(lambda c, s: _Carry(c, s, Report.empty(metrics)), config, state))

    def finish(carry: _Carry, new: Metrics, k_act: Key | None = None) -> tuple[list[jax.Array], jax.Array]:
        run, state = make_run(carry.config), carry.state
        if k_act is None:
            state, k_act, _ = run.keys(state)
        state, action, acted = run.act(state, k_act)
        nothing = Mean(jnp.zeros(()), jnp.zeros(()))
        new = {name: (new | acted).get(name, nothing) for name in metrics}
        return packing.pack(_Carry(carry.config, state, carry.report.add(new, state.t))), action

    def init(config, key, obs):
        return finish(_Carry(config, make_run(config).init(key, obs), Report.empty(metrics)), {})

    def restart(config, state, obs):
        return finish(_Carry(config, make_run(config).restart(state, obs), Report.empty(metrics)), {})

    def act(buffers, *step):
        carry = packing.unpack(buffers)
        state, new = make_run(carry.config).observe(carry.state, HostStep(*step))
        return finish(carry._replace(state=state), new)

    def learn(buffers, *step):
        carry = packing.unpack(buffers)
        run = make_run(carry.config)
        state, new = run.observe(carry.state, HostStep(*step))
        state, k_act, k_learn = run.keys(state)
        state, learned = run.learn(state, k_learn)
        return finish(carry._replace(state=state), new | learned, k_act)

    def drain(buffers):
        carry = packing.unpack(buffers)
        return packing.pack(carry._replace(report=Report.empty(metrics))), carry.report

    buffers = jax.eval_shape(init, config, key, step.obs)[0]
    return Programs(packing, init, restart, act, learn, drain, (config, key, state, buffers, step))


def host(make_run: Callable[[Any], HostRun], config: Any, venv: HostEnvs, seed: int) -> Driver:
    """Drive a run on Gymnasium environments (`jaxdl.envs.make_host`); the driver's `close` closes them.

    Args:
        make_run: config -> HostRun; called while tracing, with arrays as the leaves of the config.
        config: the settings.
        venv: the environments.
        seed: of the run and of the environments.
    """
    began = time.perf_counter()
    config = leaves_as_arrays(config)
    key = jax.random.key(seed)
    run = make_run(config)
    n = venv.num_envs
    first_obs = venv.reset(seed)
    step = HostStep(first_obs, np.zeros(n, np.float32), np.zeros(n, bool), np.zeros(n, bool), np.zeros(n, bool))
    p = programs(make_run, config, key, step)
    _, _, state_shape, buffers_shape, _ = p.shapes
    init, act, learn, drain = compile_all(
        (p.init, (config, key, first_obs), (), START_OPTIONS),
        (p.act, (buffers_shape, *step), (0,), TRAIN_OPTIONS),
        (p.learn, (buffers_shape, *step), (0,), TRAIN_OPTIONS),
        (p.drain, (buffers_shape,), (0,), START_OPTIONS))

    taken = 0  # environment steps

    def vector_step(program, buffers, action):
        nonlocal taken
        taken += n
        try:
            step = venv.step(np.asarray(action))
        except EnvError as e:
            raise EnvError(f"{e}, at environment step {taken:,}") from e
        return program(buffers, *step)

    def start():
        nonlocal taken
        taken = 0
        buffers, action = init(config, key, first_obs)
        for _ in range(run.first_step // n):
            buffers, action = vector_step(act, buffers, action)
        return drain(buffers)[0], action

    def chunk(state, iterations):
        buffers, action = state
        for _ in range(iterations):
            for _ in range(run.train_freq - 1):
                buffers, action = vector_step(act, buffers, action)
            buffers, action = vector_step(learn, buffers, action)
        buffers, report = drain(buffers)
        return (buffers, action), jax.device_get(report)

    def run_state(state) -> RunState:
        small = len(p.packing.groups)
        return p.packing.unpack([np.array(b) if i < small else b for i, b in enumerate(state[0])]).state

    def restore(state):
        nonlocal taken
        taken = int(state.t)
        obs = venv.reset(seed + taken)  # episodes that the interrupted run has not seen
        return jax.jit(p.restart)(config, state, obs)

    return Driver(
        start=start, chunk=chunk, snapshot=run_state, restore=restore, like=state_shape,
        params=lambda s: run.params(run_state(s)), close=venv.close, first_step=run.first_step,
        stride=n * run.train_freq, updates=run.updates, compile_s=time.perf_counter() - began, exact=False, members=1)
