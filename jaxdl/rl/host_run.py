"""A run whose environments live on the host, composed of the same learner: Gymnasium steps outside, everything else within.

`t` counts transitions. A step in which an environment was only reset is none, so a vector step adds `num_envs` to it or less.
"""

import jax
import jax.numpy as jnp

from jaxdl.core import axis
from jaxdl.core.compile import check_switches
from jaxdl.core.run import learn, step_keys
from jaxdl.core.types import Array, Key, Learner, Metrics, RunState
from jaxdl.rl.types import HostRun, HostSource, TimeStep


def compose_host(learner: Learner, source: HostSource, *, num_envs: int, stride: int, updates: int, first_step: int,
                 rows: int | None = None, axis_name: str | None = None) -> HostRun:
    """The run of `learner` on the batches of a source whose environments live on the host; `num_envs` of them in all.

    The other arguments are the fields of `HostRun`.

    Raises:
        UserError: a switch of JAX is set with which no run can work.
    """
    check_switches()

    def init(key: Key, obs: Array) -> RunState:
        k_learner, k_run = jax.random.split(key)
        return RunState(learner.init(k_learner), source.init(obs), k_run, jnp.zeros((), jnp.int32))

    def restart(state: RunState, obs: Array) -> RunState:
        return state._replace(source=source.restart(state.source, obs))

    def keys(state: RunState) -> tuple[RunState, Key, Key]:
        next_key, keys = step_keys(state.key, 1 + 2 * updates, axis_name)
        return state._replace(key=next_key), keys[0], keys[1:].reshape(updates, 2)

    def act(state: RunState, key: Key | None) -> tuple[RunState, Array, Metrics]:
        source_state = state.source
        if source.prepare is not None and key is not None:
            source_state, key = source.prepare(source_state, key), None
        source_state, action, metrics = source.act(source_state, learner.params(state.learner), key, state.t)
        return state._replace(source=source_state), action, metrics

    def observe(state: RunState, step: TimeStep) -> tuple[RunState, Metrics]:
        source_state, metrics = source.observe(state.source, step)
        transitions = axis.sum_over((~step.reset).sum(dtype=jnp.int32), axis_name)
        return state._replace(source=source_state, t=state.t + transitions), metrics

    def learn_(state: RunState, key: Key) -> tuple[RunState, Metrics]:
        learner_state, source_state, metrics = learn(learner, source, state.learner, state.source, key, state.t, None)
        return state._replace(learner=learner_state, source=source_state), metrics

    return HostRun(init, restart, keys, act, observe, learn_, num_envs, stride, rows, first_step, updates,
                   lambda state: learner.params(state.learner), source, source.prepare is not None)
