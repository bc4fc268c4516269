"""Refuse runs that do not fit into memory, before memory is allocated.

The check is made twice: from the shapes of the state and the dataset, and from the compiled program, which knows what it needs
while it runs.
"""

from typing import Any

import jax

from jaxdl.core import memory
from jaxdl.core.errors import UserError
from jaxdl.core.types import PyTree, RunState
from jaxdl.runtime.checkpoint import estimate_bytes


def check_state_fits(state: RunState, data: PyTree, devices: int, shared: bool) -> None:
    """Refuse a run whose state and dataset do not fit.

    Args:
        state: of the run, as shapes.
        data: the dataset, or None.
        devices: how many.
        shared: each device has the learner and its part of the rest; else its part of a population, and the whole dataset.

    Raises:
        UserError: names the bytes that are needed, those that are free, and what to lower.
    """
    learner, rest = estimate_bytes(state.learner), estimate_bytes(state.source) + estimate_bytes(data)
    each = learner + rest / devices if shared else (learner + estimate_bytes(state.source)) / devices + estimate_bytes(data)
    _check(each, devices, f"the state of the run (learner {_gb(learner)}, environments, memory and dataset {_gb(rest)})")


def check_program_fits(compiled: Any, devices: int) -> None:
    """Refuse a compiled program that does not fit.

    Raises:
        UserError: as `check_state_fits`.
    """
    sizes = compiled.memory_analysis()
    if sizes is not None:
        kept = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
        _check(kept + sizes.temp_size_in_bytes, devices,
               f"a step of the run (state and dataset {_gb(kept)}, intermediate values {_gb(sizes.temp_size_in_bytes)})")


def free_bytes() -> tuple[float, bool] | None:
    """Free bytes, and whether each device has so many (else all share them); None where they are not known."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        return (stats["bytes_limit"] - stats["bytes_in_use"], True) if "bytes_limit" in stats else None
    free = memory.available_bytes()
    return None if free is None else (free, False)


def _check(each: float, devices: int, what: str) -> None:
    free = free_bytes()
    if free is None:
        return
    there, of_each = free
    needed = each if of_each else each * jax.local_device_count() / max(jax.device_count(), 1) * devices
    if needed > there:
        where = " on each device" if of_each and devices > 1 else ""
        raise UserError(f"{what} takes {_gb(needed)}{where}, and {_gb(there)} are free; lower what makes it large: "
                        "buffer_size, num_envs, batch_size, num_samples, num_seeds or the values that are swept")


def _gb(size: float) -> str:
    return f"{size / 1e9:,.2f} GB"
