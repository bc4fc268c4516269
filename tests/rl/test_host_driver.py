"""What a run on the host says of environments that fail under it."""

import gymnasium
import numpy as np
import pytest

from jaxdl.agents import dqn, ppo
from jaxdl.core.errors import EnvError
from jaxdl.rl import envs, policy
from jaxdl.rl.host_driver import make_host_driver
from jaxdl.rl.task import TrainConfig
from jaxdl.runtime import checkpoint, fit


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


class Single(gymnasium.Env):
    """There can be one at a time."""

    observation_space, action_space = gymnasium.spaces.Box(0, 1, (1,)), gymnasium.spaces.Discrete(2)
    open = made = 0

    def __init__(self, render_mode=None):
        if Single.open:
            raise RuntimeError("address already in use")
        Single.open, Single.made = 1, Single.made + 1

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(1, np.float32), 1.0, self.t == 3, False, {}

    def close(self):
        Single.open = 0


def test_an_environment_of_which_there_can_be_one_is_trained_on_evaluated_and_never_opened_twice(monkeypatch, tmp_path):
    monkeypatch.setitem(gymnasium.registry, "Single-v0", gymnasium.envs.registration.EnvSpec("Single-v0", Single))
    Single.open = Single.made = 0
    config = ppo.Config(env_id="Single-v0", num_envs=1, rollout_steps=8, num_minibatches=2, total_steps=16,
                        policy=policy.Config(hidden_sizes=(4,)))
    train = TrainConfig(eval_episodes=2, quick_compile=True)
    task = ppo.ALGORITHM.open(config, train)
    result = fit.fit(task.drive([config], [0], train), train, 16, folder=tmp_path,
                     evaluate=lambda params: task.evaluate(params, task.options))
    assert result.eval[0]["return_mean"] == 3
    assert (Single.open, Single.made) == (0, 3)  # its spec, its training, its evaluation
    assert checkpoint.steps(tmp_path / "checkpoints")[-1] == 16
    assert task.describe(result.eval[0]) == "mean return over 2 greedy episodes in Single-v0: 3.0 +- 0.0"


def test_environments_are_closed_where_their_run_cannot_be_made(monkeypatch):
    monkeypatch.setitem(gymnasium.registry, "Single-v0", gymnasium.envs.registration.EnvSpec("Single-v0", Single))
    monkeypatch.setattr(Single, "reset", lambda self, **_: (None, {}))
    Single.open = 0
    config, train = ppo.Config(env_id="Single-v0", num_envs=1, rollout_steps=8), TrainConfig()
    with pytest.raises(EnvError, match="Single-v0 gave an observation NoneType"):
        ppo.ALGORITHM.open(config, train).drive([config], [0], train)
    assert Single.open == 0


def test_closing_that_fails_after_the_training_costs_no_checkpoint(monkeypatch, tmp_path):
    def close(self):
        Single.open = 0
        if "t" in vars(self):  # it was played
            raise RuntimeError("the lid is stuck")

    monkeypatch.setitem(gymnasium.registry, "Single-v0", gymnasium.envs.registration.EnvSpec("Single-v0", Single))
    monkeypatch.setattr(Single, "close", close)
    Single.open = 0
    config = ppo.Config(env_id="Single-v0", num_envs=1, rollout_steps=8, num_minibatches=2, total_steps=16,
                        policy=policy.Config(hidden_sizes=(4,)))
    train = TrainConfig(quick_compile=True)
    driver = ppo.ALGORITHM.open(config, train).drive([config], [0], train)
    with pytest.raises(fit.TrainingError, match=r"Single-v0 failed in close: RuntimeError: the lid .* checkpoint is step 16"):
        fit.fit(driver, train, 16, folder=tmp_path)
    assert checkpoint.steps(tmp_path / "checkpoints")[-1] == 16
