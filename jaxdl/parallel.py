"""Reductions over the devices (or the vmapped shards) of a mapped axis. `axis_name=None` means there is one: no-ops."""

import jax
from jax.flatten_util import ravel_pytree

from jaxdl.types import Key, PyTree


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
