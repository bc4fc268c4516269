"""Compilation: XLA's options on a CPU, and several programs compiled in parallel."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax

from jaxdl.core import processes
from jaxdl.core.errors import UserError

# How much a CPU's compiler tries. The time of a step is in the matrix products, which are library calls: LLVM at level 1
# trains as fast as by default. Initialisation and warm-up run once, so level 0 is right for them, and XLA's older emitters
# of fused loops, which compile in half the time of the newer ones but do not vectorize (a third of a DQN's speed). A program is
# cut into as many parts as there are cores to compile them: each part costs. Vectors as wide as the processor has them (LLVM
# prefers half of 512 bits) make a PPO 10 % faster, other learners 5 to 7.
TRAIN_OPTIONS = {"xla_backend_optimization_level": 1, "xla_llvm_disable_expensive_passes": True,
                 "xla_cpu_parallel_codegen_split_count": processes.cores(), "xla_cpu_prefer_vector_width": 512}
_OLDER_EMITTERS = {} if jax.__version_info__ >= (0, 11) else {"xla_cpu_use_fusion_emitters": False}  # gone with jaxlib 0.11
QUICK_OPTIONS = TRAIN_OPTIONS | _OLDER_EMITTERS
START_OPTIONS = {"xla_backend_optimization_level": 0} | _OLDER_EMITTERS


# Switches of JAX with which nothing here can work -> why, and what would do.
_UNUSABLE = {
    "jax_disable_jit": "asks for operations one by one, and a run is compiled programs; unset it",
    "jax_enable_x64": "asks for float64, and a run is computed in float32; unset it, or enclose jaxdl in jax.enable_x64(False)",
}


def check_switches() -> None:
    """Refuse switches of JAX that no run can work with.

    Raises:
        UserError: names the switch and what would do.
    """
    for name, why in _UNUSABLE.items():
        if getattr(jax.config, name):
            raise UserError(f"{name.upper()} {why}")


def compile_all(*programs: tuple[Callable, tuple, tuple[int, ...], dict]) -> list[Any]:
    """Compile programs `(function, argument shapes, donated arguments, CPU options)` in parallel, each in a thread."""
    on_cpu = jax.default_backend() == "cpu"

    def build(program):
        function, shapes, donate, options = program
        return jax.jit(function, donate_argnums=donate).lower(*shapes).compile(options if on_cpu else None)

    with ThreadPoolExecutor(len(programs)) as pool:
        return list(pool.map(build, programs))
