"""The mapped axis of devices that share a run: what is reduced over it, and what each device has of its own.

Each device has its own environments and its share of the replay memory or of the dataset. Gradients, statistics and metrics are
reduced over `axis_name`, so that all devices hold the same learner. `axis_name=None` means one device: nothing is reduced.

Sizes in a config are those of all devices together (`share` gives one device's part), and `t` counts the steps of all.
"""

import dataclasses
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxdl.core.errors import UserError
from jaxdl.core.types import Array, Key, PyTree

AXIS = "devices"  # the mesh's only axis
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
    """The shard's own key, for noise. Initial parameters take the key as it is."""
    return key if axis_name is None else jax.random.fold_in(key, jax.lax.axis_index(axis_name))


def share(config: T, shards: int) -> T:
    """The config of one of `shards` devices: its part of each of the sizes in `shared_sizes`, which its class declares.

    Raises:
        UserError: a size does not divide (names the nearest that would), or the class declares none.
    """
    if shards == 1:
        return config
    if not hasattr(config, "shared_sizes"):
        raise UserError(f"devices={shards} cannot share this run: {type(config).__module__}.{type(config).__name__} does not "
                        "declare shared_sizes, the sizes of which each device gets a part")
    sizes = {field: getattr(config, field) for field in config.shared_sizes}
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


def reshard(state: PyTree, env_axis: PyTree, devices: int) -> PyTree:
    """The state of a source on D = `devices` devices, from its state on M devices: leaves [M, ...] become [D, ...].

    Args:
        state: of the source, with a leading axis of devices on every leaf.
        env_axis: `Source.env_axis`.
        devices: D; divides the number of environments.
    """
    def move(axis: Any, part: PyTree) -> PyTree:
        return axis(part, devices) if callable(axis) else jax.tree.map(lambda x: _redistribute(x, axis, devices), part)

    return jax.tree.map(move, env_axis, state, is_leaf=lambda axis: axis is None)


def _redistribute(x: Array, axis: int | None, devices: int) -> Array:
    """[M, ...] as [D, ...]: environments stay in order along their axis; a value of each device is the first's."""
    if axis is not None:
        x = jnp.moveaxis(x, 0, axis)
        *before, shards, envs = x.shape[: axis + 2]
        return jnp.moveaxis(x.reshape(*before, devices, shards * envs // devices, *x.shape[axis + 2 :]), axis, 0)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):  # devices that are new get keys of their own
        return jnp.stack([x[i] if i < len(x) else jax.random.fold_in(x[0], i) for i in range(devices)])
    return jnp.broadcast_to(x[0], (devices, *x.shape[1:]))
