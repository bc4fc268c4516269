"""What a run on the host says of environments that fail under it."""

import gymnasium
import numpy as np
import pytest

from jaxdl.agents import dqn
from jaxdl.core.errors import EnvError
from jaxdl.rl import envs
from jaxdl.rl.host_driver import make_host_driver


class Fails(gymnasium.Env):
    """At its seventh step."""

    observation_space, action_space = gymnasium.spaces.Box(0, 1, (1,)), gymnasium.spaces.Discrete(2)
    steps = 0

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.steps == 7:
            raise RuntimeError("the motor broke")
        return np.zeros(1, np.float32), 0.0, False, False, {}


def test_an_environment_that_fails_in_a_run_is_named_with_the_step(monkeypatch):
    monkeypatch.setitem(gymnasium.registry, "Fails-v0", gymnasium.envs.registration.EnvSpec("Fails-v0", Fails))
    config = dqn.Config(env_id="Fails-v0", num_envs=2, buffer_size=64, learning_starts=8, batch_size=4, hidden_sizes=(4,))
    spec = envs.spec("Fails-v0")
    driver = make_host_driver(lambda c: dqn.make_host_run(c, spec), config, envs.make_host("Fails-v0", 2), 0)
    state = driver.start()
    with pytest.raises(EnvError, match=r"^Fails-v0 failed in step: RuntimeError: the motor broke, at environment step 14$"):
        driver.chunk(state, 10)
    driver.close()
