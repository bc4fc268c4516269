"""Settings of all tests: a CPU with several virtual devices, one compilation cache for the session's programs."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8 "
                      # compiling is most of what tests do: what says nothing else is compiled in half the time
                      "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
