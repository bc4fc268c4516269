"""Settings of all tests: a CPU with several virtual devices, one compilation cache for the session's programs."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
