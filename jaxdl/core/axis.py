"""What the devices of one run reduce together, and what each has of its own.

Each device has environments of its own and its share of the memory or of the dataset; gradients, statistics and metrics are
reduced over `axis_name`, so that all hold the same learner. `axis_name=None` means there is one: reductions do nothing.

Settings are those of all devices together (`share` gives one's part), and `t` counts the steps of all.
"""

import dataclasses
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxdl.core.errors import UserError
from jaxdl.core.types import Key, PyTree

AXIS = "devices"  # the mesh's only axis
SHARED = ("num_envs", "buffer_size", "batch_size")  # settings that are sizes of all devices together
T = TypeVar("T")


def mean_over(tree: PyTree, axis_name: str | None) -> PyTree:
    """The mean over shards of equal size, as one all-reduce of all leaves together (each one costs its latency)."""
    if axis_name is None:
        return tree
    flat, unravel = ravel_pytree(tree)
    return unravel(jax.lax.pmean(flat, axis_name))


def sum_over(tree: PyTree, axis_name: str | None) -> PyTree:
    """The sum over shards, as one all-reduce."""
    if axis_name is None:
        return tree
    flat, unravel = ravel_pytree(tree)
    return unravel(jax.lax.psum(flat, axis_name))


def shard_key(key: Key, axis_name: str | None) -> Key:
    """A key of the shard's own, for noise; initial parameters take the key as it is."""
    return key if axis_name is None else jax.random.fold_in(key, jax.lax.axis_index(axis_name))


def share(config: T, shards: int) -> T:
    """The config of one of `shards` devices: its part of each of the sizes that devices share (`SHARED`).

    Raises:
        UserError: one does not divide; names the nearest that would.
    """
    if shards == 1:
        return config
    sizes = {field: getattr(config, field) for field in SHARED if hasattr(config, field)}
    for field, value in sizes.items():
        check_share(field, value, shards)
    return dataclasses.replace(config, **{field: value // shards for field, value in sizes.items()})


def check_share(field: str, value: int, shards: int) -> None:
    """Refuse a number that `shards` devices cannot share evenly.

    Raises:
        UserError: names the nearest that would do.
    """
    if value % shards:
        below, above = value // shards * shards, -(-value // shards) * shards
        near = f"{below} or {above} would" if below else f"{above} would"
        raise UserError(f"{field}={value} does not divide over {shards} devices; {near}")


def resplit(source: PyTree, like: PyTree) -> PyTree:
    """The state of a source that M devices shared, as D devices share it: leaves [M, ...] become those of `like`, [D, ...].

    What each environment has goes with it, its ring of the memory among it: the environments stay in order, and the first E / D
    are the first device's. What a device has one of (a position in the dataset) is the first's; keys of new devices are made of
    the first's. A node that needs more than that has a method `resplit(like)`.
    """
    def special(node: Any) -> bool:
        return hasattr(node, "resplit")

    def of(x: Any, like: Any) -> Any:
        if special(x):
            return x.resplit(like)
        old, new = x.shape[1:], like.shape[1:]
        if x.shape == like.shape:
            return x
        if old == new:
            if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
                return jnp.stack([x[i] if i < len(x) else jax.random.fold_in(x[0], i) for i in range(len(like))])
            return jnp.broadcast_to(x[0], like.shape)
        (axis,) = [i for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
        whole = jnp.moveaxis(x, 0, axis).reshape(*old[:axis], -1, *old[axis + 1 :])
        return jnp.moveaxis(whole.reshape(*new[:axis], len(like), *new[axis:]), axis, 0)

    return jax.tree.map(of, source, like, is_leaf=special)
