"""The source of sequences: contiguous windows of a long stream, with the recurrent state carried from batch to batch.

The stream (any tree of arrays [N, ...], the first axis is time) is cut into B streams of equal length that are read side by
side. Batch s of an epoch has the items s T to (s + 1) T of each of them, so a recurrent network can begin a window with the
state in which it left the one before: gradients end at the window, memory does not (truncated backpropagation through time,
Williams and Peng, "An efficient gradient-based algorithm for on-line training of recurrent network trajectories", 1990). The
learner gives that state back as its feedback; at the start of an epoch it is the initial one.

An epoch has S = (N - shift) // (B T) batches. The items that are left over are others in each epoch: its first item is drawn.

Shapes: `N` items, `B` streams, `T` items of a window.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.core import axis
from jaxdl.core.config import config as settings
from jaxdl.core.config import require_positive
from jaxdl.core.errors import UserError
from jaxdl.core.run import compose
from jaxdl.core.types import Array, DataSpec, Key, Learner, PyTree, Run, Source, no_feedback
from jaxdl.data import minibatches


@settings
class Config(minibatches.Config):
    """Settings of all that learns from a stream."""

    also: ClassVar[dict[str, str]] = {"data_file": "data_dir"}  # --data-file FILE

    dataset: str = "tiny_shakespeare"
    """Name of the dataset (`jaxdl list`), or package.module:NAME of one of your own."""
    batch_size: int = 32
    """Streams that are read side by side."""
    window: int = 64
    """Items of each stream in one update; gradients go no further back."""


class Windows(NamedTuple):
    """A batch: windows of B streams, time first."""

    inputs: PyTree  # the data's tree, arrays [T, B, ...]
    targets: PyTree  # the same one item later; None where shift is 0
    carry: PyTree  # recurrent state before the window, arrays [B, ...]; None where there is none
    start: Array  # bool (): the first window of an epoch, whose carry is the initial one


class SequenceState(NamedTuple):
    """Where in the stream the run is."""

    key: Key  # never changes: where an epoch begins is a function of (key, epoch)
    epoch: Array  # int32 (): epochs completed
    batch: Array  # int32 (): batches taken in this epoch
    carry: PyTree  # recurrent state after the last batch, arrays [B, ...]


def validate(config: Any) -> None:
    """Refuse a config whose `epochs`, `total_steps`, `batch_size` or `window` make no sense.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    minibatches.validate(config)
    require_positive(config, "window")


def total_steps(config: Any, spec: DataSpec, shift: int = 1) -> int:
    """Updates of the planned run: `config.total_steps`, or those of `config.epochs`, 10 if neither is given."""
    an_epoch = steps_per_epoch(spec.num_examples, config.batch_size, config.window, shift)
    return minibatches.planned_updates(config, an_epoch)


def steps_per_epoch(num_items: int, batch_size: int, window: int, shift: int = 1) -> int:
    """Whole batches in an epoch, (N - shift) // (B T)."""
    return max(num_items - shift, 0) // (batch_size * window)


def run_of(learner: Learner, num_items: int, config: Any, init_carry: Callable[[int], PyTree] | None = None, shift: int = 1,
           axis_name: str | None = None, shards: int = 1) -> Run:
    """The run of a learner on a stream: an update a step.

    Under an axis each of the `shards` has its part of the streams and a contiguous part of the data, whose last N % shards
    items are left out.

    Raises:
        UserError: as `sequences`, or the shards cannot share the streams.
    """
    axis.check_share("batch_size", config.batch_size, shards)
    source = sequences(num_items // shards, config.batch_size // shards, config.window, init_carry, shift)
    return compose(learner, source, stride=1, axis_name=axis_name)


def sequences(num_items: int, batch_size: int, window: int, init_carry: Callable[[int], PyTree] | None = None, shift: int = 1
              ) -> Source:
    """Windows of `data`, a pytree of arrays [N, ...] whose first axis is time; a batch is `Windows`.

    Args:
        num_items: N, at most 2**31 - 1.
        batch_size: B.
        window: T.
        init_carry: `B -> the recurrent state at the start of an epoch`, a tree of arrays [B, ...]. The feedback of an update is
            then the state after the batch's window. None for learners without one.
        shift: targets are so many items later: 1 to predict the next one, 0 for no targets.

    Raises:
        UserError: a size is below 1, or the stream is too short for one batch; `sample` raises it where `data` has not N items,
            and `feedback` where the feedback is no such state.
    """
    if not 1 <= num_items < 2**31:
        raise UserError(f"num_items must lie between 1 and {2**31 - 1}, got {num_items}")
    for field, value in (("batch_size", batch_size), ("window", window)):
        if value < 1:
            raise UserError(f"{field} must be at least 1, got {value}")
    steps = steps_per_epoch(num_items, batch_size, window, shift)
    if steps == 0:
        raise UserError(f"batch_size={batch_size} streams of window={window} items take {batch_size * window + shift} items, "
                        f"and the data has {num_items}: there would be no whole batch in an epoch; lower one of them")
    left_over = num_items - shift - steps * batch_size * window

    def initial() -> PyTree:
        return None if init_carry is None else init_carry(batch_size)

    def init(key: Key) -> SequenceState:
        zero = jnp.zeros((), jnp.int32)
        return SequenceState(key, zero, zero, initial())

    def sample(state: SequenceState, _key: Key, _t: Array, data: PyTree) -> tuple[SequenceState, Windows]:
        minibatches.check_data(data, num_items)
        first = jax.random.randint(jax.random.fold_in(state.key, state.epoch), (), 0, left_over + 1)
        streams = first + jnp.arange(batch_size, dtype=jnp.int32) * (steps * window)
        index = streams + state.batch * window + jnp.arange(window + shift, dtype=jnp.int32)[:, None]  # [T + shift, B]
        items = jax.tree.map(lambda x: x.at[index].get(mode="promise_in_bounds"), data)
        start = state.batch == 0
        carry = jax.tree.map(lambda a, b: jnp.where(start, a, b), initial(), state.carry)
        targets = jax.tree.map(lambda x: x[shift:], items) if shift else None
        batch = Windows(jax.tree.map(lambda x: x[:window], items), targets, carry, start)
        ended = state.batch + 1 == steps
        epoch = state.epoch + ended.astype(jnp.int32)
        return SequenceState(state.key, epoch, jnp.where(ended, 0, state.batch + 1), carry), batch

    def feedback(state: SequenceState, batch: Windows, carry: PyTree) -> SequenceState:
        expected, given = (jax.tree.map(lambda x: (x.shape, str(x.dtype)), x) for x in (batch.carry, carry))
        if expected != given:
            raise UserError("the feedback of a learner of sequences must be its recurrent state after the window, "
                            f"{expected}, got {given}")
        return state._replace(carry=carry)

    return Source(init, sample, feedback=no_feedback if init_carry is None else feedback)
