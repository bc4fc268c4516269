"""A run: a learner and a source composed into one pytree and one pure step.

    run.init(key, data)   -> state            parameters made, memory warmed up
    run.step(state, data) -> (state, metrics) the source collects, then `updates` times: sample, update, feedback

A step splits `state.key` into the key of the next step and its own: it depends on nothing but the state, so a run may be
cut anywhere, written, read and continued bit for bit.
"""

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxdl.core import axis
from jaxdl.core.compile import check_switches
from jaxdl.core.types import Array, Key, Learner, Mean, Metrics, PyTree, Run, RunState, Source


def compose(learner: Learner, source: Source, *, stride: int, updates: int = 1, first_step: int = 0,
            axis_name: str | None = None) -> Run:
    """The run of `learner` on the batches of `source`.

    Args:
        stride: what one step adds to `t`: environment steps of a collect, or the updates on a dataset.
        updates: updates in one step, each with a batch of its own.
        first_step: `t` after `source.warmup`.
        axis_name: the mapped axis over whose shards noise differs and metrics are summed.

    Raises:
        UserError: a switch of JAX is set with which no run can work.
    """
    check_switches()

    def init(key: Key, data: PyTree = None) -> RunState:
        k_learner, k_source, k_warmup, k_run = jax.random.split(key, 4)
        learner_state = learner.init(k_learner)
        source_state = source.init(axis.shard_key(k_source, axis_name))
        source_state = source.warmup(source_state, learner.params(learner_state),
                                     axis.shard_key(k_warmup, axis_name), jnp.zeros((), jnp.int32), data)
        return RunState(learner_state, source_state, k_run, jnp.asarray(first_step, jnp.int32))

    def step(state: RunState, data: PyTree = None) -> tuple[RunState, Metrics]:
        next_key, keys = step_keys(state.key, source.keys + 2 * updates, axis_name)
        k_collect, k_learn = keys[: source.keys], keys[source.keys :].reshape(updates, 2)
        source_state, metrics = source.collect(state.source, learner.params(state.learner), k_collect, state.t, data)
        learner_state, source_state, learned = learn(learner, source, state.learner, source_state, k_learn, state.t, data)
        metrics = axis.sum_over(metrics | learned, axis_name)
        return RunState(learner_state, source_state, next_key, state.t + stride), metrics

    def restart(state: RunState) -> RunState:
        next_key, (k_restart,) = step_keys(state.key, 1, axis_name)
        return state._replace(source=source.restart(state.source, k_restart), key=next_key)

    axes = RunState(learner=0, source=0, key=0, t=None)
    return Run(init, step, axes, first_step, stride, updates, lambda state: learner.params(state.learner), source,
               restart if source.restart else None)


def step_keys(key: Key, n: int, axis_name: str | None = None) -> tuple[Key, Key]:
    """The key of the next step and [n] keys of this one, which under an axis are the shard's own.

    All come from one split, because each hash is a loop to compile and to run.
    """
    keys = jax.random.split(key, 1 + n)
    return keys[0], keys[1:] if axis_name is None else jax.vmap(lambda k: axis.shard_key(k, axis_name))(keys[1:])


def learn(learner: Learner, source: Source, learner_state: PyTree, source_state: PyTree, keys: Key,
          t: Array, data: PyTree) -> tuple[PyTree, PyTree, Metrics]:
    """Sample, update and feedback, once for each of the keys [updates, 2]. Returns both new states and the summed metrics."""

    def update(carry, keys: Key):
        learner_state, source_state = carry
        k_sample, k_update = keys
        source_state, batch = source.sample(source_state, k_sample, t, data)
        learner_state, result = learner.update(learner_state, batch, k_update)
        source_state = source.feedback(source_state, batch, result.feedback)
        return (learner_state, source_state), result.metrics

    carry = (learner_state, source_state)
    if len(keys) == 1:
        carry, metrics = update(carry, keys[0])
    else:
        carry, metrics = jax.lax.scan(update, carry, keys)
        metrics = jax.tree.map(lambda x: x.sum(0), metrics)
    return *carry, metrics


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Report:
    """Metrics summed over steps, in any number of chunks: each sum goes on where the last chunk left it, so its bits do not
    depend on where chunks end.

    Sums are compensated (Kahan 1965), because a float32 alone loses a thousandth of a sum of 10,000 steps, and stands still
    after 2^24. They are one vector because the loop of steps carries them: with a dict of scalars a DQN's step on a CPU takes
    5 % longer (38.8 in place of 36.6 microseconds), and on a GPU each array that a loop writes costs a kernel.
    """

    totals: Array  # float32 [4 M]: total and count of each of M metrics, then what rounding made each of them too large by
    bad_step: Array  # int32 (): `t` after the first step with a metric that is not finite; -1: there was none
    names: tuple[str, ...] = dataclasses.field(metadata={"static": True})  # of the metrics

    @staticmethod
    def empty(metrics: Metrics) -> "Report":
        """The report of no steps; `metrics` gives the names (its arrays may be `ShapeDtypeStruct`s)."""
        return Report(jnp.zeros(4 * len(metrics)), jnp.asarray(-1, jnp.int32), tuple(metrics))

    def add(self, metrics: Metrics, t: Array) -> "Report":
        """The report with the metrics of one more step, after which `t` is the step count."""
        new = jnp.stack([x for name in self.names for x in metrics[name]])
        bad_step = jnp.where((self.bad_step < 0) & ~jnp.isfinite(new).all(), t, self.bad_step)
        total, excess = jnp.split(self.totals, 2)
        new = new - excess
        after = total + new
        return Report(jnp.concatenate([after, (after - total) - new]), bad_step, self.names)

    def over(self, axis_name: str | None) -> "Report":
        """The report summed over all shards."""
        if axis_name is None:
            return self
        bad_step = jax.lax.pmax(self.bad_step, axis_name)
        return Report(axis.sum_over(self.totals, axis_name), bad_step, self.names)

    @property
    def metrics(self) -> Metrics:
        """The metrics by name; each [K] for a population."""
        return {name: Mean(self.totals[..., 2 * i], self.totals[..., 2 * i + 1]) for i, name in enumerate(self.names)}


def advance(run: Run, state: RunState, data: PyTree, n: Array, loop: int = 1, so_far: Array | None = None
            ) -> tuple[RunState, Report]:
    """Take `n` steps, a traced number: one program serves chunks of every length.

    The report goes on from the totals `so_far` [S], of which as many as it has are taken: how many is known only when the step
    is traced. Where S is too small for them it begins with nothing.

    Steps are grouped into loops of the known length `loop`: a GPU then waits for the host once a loop and not once a step.
    """
    step = jax.jit(run.step)  # traced once, for its shapes and for the loop

    def body(_, carry):
        state, report = carry
        state, metrics = step(state, data)
        return state, report.add(metrics, state.t)

    report = Report.empty(jax.eval_shape(step, state, data)[1])
    if so_far is not None and len(report.totals) <= len(so_far):
        report = dataclasses.replace(report, totals=so_far[: len(report.totals)])
    carry = (state, report)
    if loop > 1:
        carry = jax.lax.fori_loop(0, n // loop, lambda _, c: jax.lax.fori_loop(0, loop, body, c), carry)
        n = n % loop
    return jax.lax.fori_loop(0, n, body, carry)
