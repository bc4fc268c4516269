"""How the arrays of a run are placed on several devices, and programs of one device's part as programs of the whole.

One run that devices share has its learner replicated, and a part of its source on each device. The members of a population
are divided among devices instead, each whole. The devices form a mesh of one axis, `axis.AXIS`.
"""

import contextlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdl.core import processes
from jaxdl.core.axis import AXIS
from jaxdl.core.errors import UserError
from jaxdl.core.types import Array, PyTree, RunState

MOST_DEVICES = 1024


def provide(devices: int) -> None:
    """Make so many virtual devices, which share the cores, where JAX runs on a CPU and has not begun.

    Raises:
        UserError: they are more than a process can have.
    """
    if devices > MOST_DEVICES:
        raise UserError(f"devices must be at most {MOST_DEVICES:,} in one process, got {devices}")
    if devices > 1 and "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # it has begun
            jax.config.update("jax_num_cpu_devices", devices)


def make_mesh(devices: int) -> Mesh:
    """The first of `jax.devices()` in a row.

    Raises:
        UserError: there are not as many.
    """
    there = jax.devices()
    if devices > len(there):
        raise UserError(f"devices={devices}, but JAX sees {len(there)} of {there[0].device_kind}")
    if processes.count() > 1 and devices != len(there):
        raise UserError(f"devices={devices}, but the {processes.count()} processes have {len(there)}: all of them train")
    return jax.make_mesh((devices,), (AXIS,), axis_types=(AxisType.Auto,), devices=there[:devices])


class Placement(NamedTuple):
    """Where the parts of an array are on a mesh."""

    spec: P
    per_device: bool = False  # outside of a device's program the array has a leading axis of devices, inside it has none


REPLICATED = Placement(P())  # every device has the whole array
SHARDED = Placement(P(AXIS))  # the first axis is divided among the devices
PER_DEVICE = Placement(P(AXIS), per_device=True)  # each device has an array of its own


class MeshLayout(NamedTuple):
    """Placement of the parts of a run on a mesh. Without a mesh there is one device, and everything is left as it is."""

    mesh: Mesh | None
    shared: bool  # one run on all devices; else the members of a population are divided among them

    @property
    def members(self) -> Placement:
        """Placement of per-member values: settings, seeds and reports."""
        return REPLICATED if self.shared else SHARDED

    @property
    def data(self) -> Placement:
        """Placement of a dataset."""
        return SHARDED if self.shared else REPLICATED

    @property
    def state(self) -> RunState:
        """Placements of a run's state; every leaf of a shared run's source has a leading axis of devices."""
        if self.shared:
            return RunState(REPLICATED, PER_DEVICE, REPLICATED, REPLICATED)
        return RunState(SHARDED, SHARDED, SHARDED, REPLICATED)

    def map(self, f: Callable, ins: tuple, outs: Any) -> Callable:
        """`f`, a function of one device's part, as a function of the whole; `ins` and `outs` are trees of placements."""
        if self.mesh is None:
            return f

        def change(tree: Any, placements: Any, change: Callable[[Array], Array]) -> Any:
            return _map_placed(lambda placement, x: change(x) if placement.per_device else x, placements, tree)

        def shard(*args: Any) -> Any:
            return change(f(*change(args, ins, lambda x: x[0])), outs, lambda x: x[None])

        in_specs, out_specs = (jax.tree.map(lambda placement: placement.spec, x, is_leaf=_is_placement) for x in (ins, outs))
        # `check_vma=True` would make gradients of replicated parameters sums already, and the mean over shards too large
        return jax.shard_map(shard, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)

    def shard_shapes(self, f: Callable, *args: Any) -> PyTree:
        """Shapes of what `f` gives on one device; `args` are one device's."""
        if self.mesh is None:
            return jax.eval_shape(f, *args)
        on_each = jax.vmap(lambda _, *args: f(*args), (0, *[None] * len(args)), axis_name=AXIS, axis_size=self.mesh.size)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype),
                            jax.eval_shape(on_each, jnp.zeros(self.mesh.size), *args))

    def placed_shapes(self, args: tuple, placements: tuple) -> tuple:
        """Shapes of `args` with their placements, as a compiler wants them."""
        def shape(placement: Placement, x: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(jnp.shape(x), x.dtype, sharding=NamedSharding(self.mesh, placement.spec))

        return args if self.mesh is None else _map_placed(shape, placements, args)

    def place_state(self, state: RunState) -> RunState:
        """A state whose arrays are anywhere, moved to where the programs want them."""
        return state if self.mesh is None else self._place(state, self.state)

    def place_data(self, data: PyTree) -> PyTree:
        """A dataset moved to where the programs want it; a shared run leaves the last N % D examples out."""
        if self.mesh is None or data is None:
            return data
        if self.shared:
            data = jax.tree.map(lambda x: x[: len(x) // self.mesh.size * self.mesh.size], data)
        return self._place(data, self.data)

    def global_rows(self, x: np.ndarray, axis: int = 0) -> Any:
        """Rows of this process' environments as its part of the array of all rows; `x` itself where the process has all."""
        if self.mesh is None or processes.count() == 1:
            return x
        sharding = NamedSharding(self.mesh, P(*[None] * axis, AXIS))
        return jax.make_array_from_process_local_data(sharding, x)

    def local(self, tree: PyTree) -> PyTree:
        """One device's copy of what is replicated; of a population all members, gathered."""
        if self.mesh is None:
            return tree
        if not self.shared:
            return jax.tree.map(processes.whole, tree)
        return jax.tree.map(lambda x: x.addressable_data(0) if isinstance(x, jax.Array) else x, tree)

    def _place(self, tree: PyTree, placements: Any) -> PyTree:
        return _map_placed(lambda placement, x: _put(x, NamedSharding(self.mesh, placement.spec)), placements, tree)


SINGLE_DEVICE = MeshLayout(None, shared=True)


def _put(x: Any, sharding: NamedSharding) -> Array:
    """An array with this sharding, of `x`, which every process has all of."""
    if sharding.is_fully_addressable:
        return jax.device_put(x, sharding)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_put(jax.random.key_data(x), sharding), impl=jax.random.key_impl(x))
    values = np.asarray(x)
    return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])


def _is_placement(x: Any) -> bool:
    return isinstance(x, Placement)


def _map_placed(f: Callable[[Placement, Any], Any], placements: Any, tree: PyTree) -> PyTree:
    """Apply `f(placement, leaf)` to every leaf of `tree`; `placements` is a prefix of `tree`."""
    return jax.tree.map(lambda placement, part: jax.tree.map(lambda x: f(placement, x), part), placements, tree,
                        is_leaf=_is_placement)
