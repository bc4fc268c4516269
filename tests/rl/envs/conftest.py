"""What the tests of environments share."""

import contextlib

import gymnasium
import pytest

with contextlib.suppress(ImportError):
    import ale_py  # noqa: F401  # it registers its games when it is imported, and never again


@pytest.fixture
def register():
    """Register an environment for one test."""

    def add(env_id, entry_point, **options):
        gymnasium.register(env_id, entry_point, **options)
        return env_id

    before = dict(gymnasium.registry)
    yield add
    gymnasium.registry.clear()
    gymnasium.registry.update(before)
