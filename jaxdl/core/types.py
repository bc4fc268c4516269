"""The signatures everything meets at: environments, learners, sources, runs.

A training run is one pytree and one pure step. An algorithm (`Learner`) learns from batches; something else (`Source`)
makes the batches; a `Run` is the two composed (`core.run`).

Shapes: `B` batch, `N` environments, `...` the shape of one observation or action.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
Key = jax.Array  # a typed key (`jax.random.key`), shape ()
PyTree = Any


class Mean(NamedTuple):
    """A mean that can still be merged: a sum and how many numbers went into it, both float32 of shape ()."""

    total: Array
    count: Array

    @staticmethod
    def of(values: Array, where: Array | None = None) -> "Mean":
        """The mean of `values` (any shape), or of those `where` (same shape, bool) is true."""
        values = jnp.asarray(values, jnp.float32)
        if where is None:
            return Mean(values.sum(), jnp.asarray(values.size, jnp.float32))
        return Mean(jnp.where(where, values, 0).sum(), where.sum(dtype=jnp.float32))


Metrics = dict[str, Mean]


class ArraySpec(NamedTuple):
    """One array of a dataset, as one example has it."""

    name: str  # its path in the tree: "images", "scene.boxes"
    shape: tuple[int, ...]  # without the axis of examples
    dtype: str


class DataSpec(NamedTuple):
    """What an algorithm must know of a dataset before it can be made: plain values, as JSON has them."""

    name: str
    num_examples: int  # an algorithm is made with the spec of the training split
    shape: tuple[int, ...]  # of one input: H, W, C of an image, () of a token
    num_classes: int | None = None  # labels of every split are below it; None where there are none
    class_names: tuple[str, ...] | None = None
    vocabulary: tuple[str, ...] | None = None  # what each token stands for
    arrays: tuple[ArraySpec, ...] = ()
    input: str = "images"  # name of the array that goes in
    target: str | None = None  # name of the one that is to be predicted; None where there is none
    binary: bool | None = None  # whether inputs are bytes of 0 and 1 or of 0 and 255 alone, in every split; None: not known
    class_counts: tuple[int, ...] | None = None  # examples of each class, of this split
    target_scale: tuple[tuple[float, ...], tuple[float, ...]] | None = None  # mean and deviation of each number of a target
    # that is measured (float), of this split

    @property
    def target_array(self) -> ArraySpec | None:
        """The array that is to be predicted, None where there is none."""
        return next((x for x in self.arrays if x.name == self.target), None)

    @property
    def size(self) -> int:
        """Numbers in one input."""
        return math.prod(self.shape)


class Examples(NamedTuple):
    """Images and their labels: the tree of a dataset of images, on the host or the device, or a batch of one."""

    images: Array  # [N, H, W, C] uint8
    labels: Array | None = None  # [N] int32; None where there are none. Of a learner of targets: [N, ...] of any kind


class UpdateResult(NamedTuple):
    """What an update returns beside its new state."""

    metrics: Metrics
    feedback: PyTree = None  # for the source: new priorities


class Learner(NamedTuple):
    """An algorithm that learns from batches."""

    init: Callable[[Key], PyTree]  # (key) -> learner state
    update: Callable[[PyTree, PyTree, Key], tuple[PyTree, UpdateResult]]  # (learner state, batch, key) -> (state, result)
    params: Callable[[PyTree], PyTree]  # (learner state) -> what acts or samples


def no_warmup(state: PyTree, params: PyTree, key: Key, t: Array, data: PyTree) -> PyTree:
    """The warmup of a source that has nothing to fill."""
    del params, key, t, data
    return state


def no_collect(state: PyTree, params: PyTree, keys: Key, t: Array, data: PyTree) -> tuple[PyTree, Metrics]:
    """The collect of a source whose batches come from `data` alone."""
    del params, keys, t, data
    return state, {}


def no_feedback(state: PyTree, batch: PyTree, feedback: PyTree) -> PyTree:
    """The feedback of a source that does not change with what was learned."""
    del batch, feedback
    return state


class Source(NamedTuple):
    """Something that makes batches. `t` counts steps; `data` is a dataset on the device, or None."""

    init: Callable[[Key], PyTree]  # (key) -> source state
    sample: Callable[..., tuple[PyTree, PyTree]]  # (source state, key, t, data) -> (source state, batch), once an update
    keys: int = 0  # random keys that one collect takes: a step splits its key but once
    warmup: Callable[..., PyTree] = no_warmup  # (source state, params, key, t, data) -> source state: fills the buffer
    collect: Callable[..., tuple[PyTree, Metrics]] = no_collect  # (source state, params, keys, t, data) -> (state, metrics)
    feedback: Callable[..., PyTree] = no_feedback  # (source state, batch, feedback) -> source state
    restart: Callable[[PyTree, Key], PyTree] | None = None  # (source state, key) -> the state with all environments reset
    env_axis: PyTree = None  # a pytree prefix of the source state: the axis of environments of the leaves beneath; None where a
    # device has one value or key for all its environments; or a function (state [M, ...], D) -> state [D, ...]: `axis.reshard`
    without_memory: Callable[[PyTree], PyTree] | None = None  # (source state) -> the state without its replay memory


class RunState(NamedTuple):
    """Everything of a run that changes: what a checkpoint holds."""

    learner: PyTree
    source: PyTree
    key: Key  # of the next step, which splits it
    t: Array  # int32 (): environment steps, or updates of a learner on a dataset


class Run(NamedTuple):
    """A training run: one pytree (`RunState`) and one pure step."""

    init: Callable[[Key, PyTree], RunState]  # (key, data) -> state, its memory warmed up
    step: Callable[[RunState, PyTree], tuple[RunState, Metrics]]  # (state, data) -> (state, metrics)
    axes: RunState  # 0 or None for each part: what a population has of its own, and what it shares
    first_step: int  # `t` after init
    stride: int  # what one step adds to `t`
    updates: int  # updates in one step
    params: Callable[[RunState], PyTree]  # (state) -> what acts or samples
    source: Source
    restart: Callable[[RunState], RunState] | None = None  # after a checkpoint was read, where environments are outside JAX

