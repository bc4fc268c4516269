"""One run on many devices: what each has of its own, what all reduce together, and the mesh that they lie on.

Each device has environments of its own and its share of the memory or of the dataset; gradients, statistics and metrics are
reduced over `axis_name`, so that all hold the same learner. `axis_name=None` means there is one: reductions do nothing.

Settings are those of all devices together (`share` gives one's part), and `t` counts the steps of all.
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


def provide(devices: int) -> None:
    """Have so many devices here where JAX runs on a CPU and has not begun: virtual ones that share its cores."""
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


class Lies(NamedTuple):
    """How an array lies on a mesh."""

    spec: P
    leading: bool = False  # each device has one: outside of a device's program there is an axis of devices before the others


SAME = Lies(P())  # the same on every device
ROWS = Lies(P(AXIS))  # the first axis is cut in parts
LEADING = Lies(P(AXIS), leading=True)


class Spread(NamedTuple):
    """How the parts of a run lie on a mesh. Without one, everything is left as it is."""

    mesh: Mesh | None
    shared: bool  # one run on all devices; else they have the members of a population, each whole

    @property
    def members(self) -> Lies:
        """Of what each member has one of: settings, seeds, reports."""
        return SAME if self.shared else ROWS

    @property
    def data(self) -> Lies:
        """Of a dataset."""
        return ROWS if self.shared else SAME

    @property
    def state(self) -> RunState:
        """Of a run's state; a shared one has a leading axis of devices on every leaf of its source."""
        return RunState(SAME, LEADING, SAME, SAME) if self.shared else RunState(ROWS, ROWS, ROWS, SAME)

    def over(self, f: Callable, ins: tuple, outs: Any) -> Callable:
        """`f`, a function of a device's part, as a function of the whole; `ins` and `outs` are trees of `Lies`."""
        if self.mesh is None:
            return f

        def parts(tree: Any, lies: Any, change: Callable[[Array], Array]) -> Any:
            return _under(lambda lies, x: change(x) if lies.leading else x, lies, tree)

        def shard(*args: Any) -> Any:
            return parts(f(*parts(args, ins, lambda x: x[0])), outs, lambda x: x[None])

        in_specs, out_specs = (jax.tree.map(lambda lies: lies.spec, x, is_leaf=_is_lies) for x in (ins, outs))
        # `check_vma=True` would make gradients of replicated parameters sums already, and the mean over shards too large
        return jax.shard_map(shard, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)

    def part_shapes(self, f: Callable, *args: Any) -> PyTree:
        """What `f` gives on one device, of the same arguments on each, as shapes."""
        if self.mesh is None:
            return jax.eval_shape(f, *args)
        of_each = jax.vmap(lambda _, *args: f(*args), (0, *[None] * len(args)), axis_name=AXIS, axis_size=self.mesh.size)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype),
                            jax.eval_shape(of_each, jnp.zeros(self.mesh.size), *args))

    def shapes(self, args: tuple, lies: tuple) -> tuple:
        """`args` as shapes that say where they lie."""
        def of(lies: Lies, x: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(jnp.shape(x), x.dtype, sharding=NamedSharding(self.mesh, lies.spec))

        return args if self.mesh is None else _under(of, lies, args)

    def placed(self, state: RunState) -> RunState:
        """A state whose arrays lie anywhere, put where the programs want them."""
        return state if self.mesh is None else self._put(state, self.state)

    def place_data(self, data: PyTree) -> PyTree:
        """A dataset where the programs want it; a shared run gives each device a part, and leaves the last N % D out."""
        if self.mesh is None or data is None:
            return data
        if self.shared:
            data = jax.tree.map(lambda x: x[: len(x) // self.mesh.size * self.mesh.size], data)
        return self._put(data, self.data)

    def rows(self, x: np.ndarray, axis: int = 0) -> Any:
        """Rows of this process' environments, as the part of the array of all; as they are where it has all."""
        if self.mesh is None or processes.count() == 1:
            return x
        sharding = NamedSharding(self.mesh, P(*[None] * axis, AXIS))
        return jax.make_array_from_process_local_data(sharding, x)

    def local(self, tree: PyTree) -> PyTree:
        """What is the same on all devices, on one of them; of a population the members."""
        if self.mesh is None:
            return tree
        if not self.shared:
            return jax.tree.map(processes.whole, tree)
        return jax.tree.map(lambda x: x.addressable_data(0) if isinstance(x, jax.Array) else x, tree)

    def _put(self, tree: PyTree, lies: Any) -> PyTree:
        return _under(lambda lies, x: _placed(x, NamedSharding(self.mesh, lies.spec)), lies, tree)


ALONE = Spread(None, shared=True)


def _placed(x: Any, sharding: NamedSharding) -> Array:
    """An array that every process has all of."""
    if sharding.is_fully_addressable:
        return jax.device_put(x, sharding)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_placed(jax.random.key_data(x), sharding), impl=jax.random.key_impl(x))
    values = np.asarray(x)
    return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])


def _is_lies(x: Any) -> bool:
    return isinstance(x, Lies)


def _under(f: Callable[[Lies, Any], Any], lies: Any, tree: PyTree) -> PyTree:
    """`f` of every leaf of `tree` and of the `Lies` it is under."""
    return jax.tree.map(lambda lies, part: jax.tree.map(lambda x: f(lies, x), part), lies, tree, is_leaf=_is_lies)

