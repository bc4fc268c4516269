"""The three ways to run one function on several shards, for tests that all give one result."""

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from tools import jit

from jaxdl.core.axis import AXIS


def under_vmap(f, n):
    """Map `f(part, shared)` over n parts [n, ...]; the results are [n, ...]."""
    return jit(jax.vmap(f, in_axes=(0, None), axis_name=AXIS, axis_size=n))


def under_pmap(f, n):
    """As `under_vmap`, on n devices."""
    return jax.pmap(f, in_axes=(0, None), axis_name=AXIS, devices=jax.devices()[:n])


def under_shard_map(f, n):
    """As `under_vmap`, on a mesh of n devices."""
    def shard(part, shared):
        return jax.tree.map(lambda x: x[None], f(jax.tree.map(lambda x: x[0], part), shared))

    mesh = Mesh(np.array(jax.devices()[:n]), (AXIS,))
    return jit(jax.shard_map(shard, mesh=mesh, in_specs=(P(AXIS), P()), out_specs=P(AXIS), check_vma=False))


MAPS = {"vmap": under_vmap, "pmap": under_pmap, "shard_map": under_shard_map}
