"""Agents as tasks: which policy is judged and filmed, and what a run is told of its settings."""

import jax
import numpy as np
import pytest

from jaxdl.agents import actor_critic, dqn, ppo, reinforce
from jaxdl.core.task import Film
from jaxdl.rl import envs, evaluate, task, video
from jaxdl.rl.types import Agent

BASE = {"num_envs": 2, "total_steps": 2_000}
CONFIGS = [dqn.Config(**BASE, learning_starts=10), ppo.Config(**BASE), actor_critic.Config(**BASE), reinforce.Config(**BASE)]
MODULES = {type(config): module for config, module in zip(CONFIGS, (dqn, ppo, actor_critic, reinforce), strict=True)}


def opened(config, **driven):
    return MODULES[type(config)].ALGORITHM.open(config, task.TrainConfig(**driven))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__module__.split(".")[-1])
def test_the_greedy_policy_is_judged_and_filmed_and_never_the_one_that_explores(config, monkeypatch, tmp_path):
    used, found = [], evaluate.Evaluation(np.ones(3), np.ones(3, int))
    monkeypatch.setattr(evaluate, "evaluate", lambda actor, params, env_id, **how: used.append((actor, how)) or found)
    monkeypatch.setattr(video, "record", lambda actor, params, env_id, path, **how: used.append((actor, how)))
    made = opened(config, seed=5, eval_episodes=7)
    made.evaluate("params", made.options)
    made.abilities[Film].record("params", 6, tmp_path)
    made.pictures["policy.gif"]("params", 6, tmp_path)
    agent = made.abilities[Agent]
    assert agent.greedy is not agent.explore
    assert [actor for actor, _ in used] == [agent.greedy] * 3
    assert [(how["seed"], how["settings"]) for _, how in used] == [(5, config.env), (6, config.env), (6, config.env)]
    assert used[0][1]["episodes"] == 7


def test_a_run_on_the_host_is_of_the_seed_and_the_settings_that_it_is_given(monkeypatch):
    given = []
    monkeypatch.setattr(task, "make_host_driver", lambda make_run, *args, **how: given.append(args))
    monkeypatch.setattr(envs, "make_host", lambda *args: args)
    config = dqn.Config(**BASE, backend="host", vectorization="sync", learning_starts=10)
    opened(config).drive([config], [7], task.TrainConfig())
    assert given == [(config, ("CartPole-v1", 2, "sync", config.env), 7)]


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("config", CONFIGS[1:], ids=lambda config: type(config).__module__.split(".")[-1])
def test_rewards_are_normalized_where_that_is_asked_for(config, normalize):
    module = MODULES[type(config)]
    config = type(config)(**BASE, normalize_reward=normalize)
    on_device = jax.eval_shape(module.make_run(config).init, jax.random.key(0))
    spec = envs.spec("CartPole-v1")
    on_host = jax.eval_shape(module.make_host_run(config, spec).init, jax.random.key(0), np.zeros((2, 4), np.float32))
    assert [state.source.scale is not None for state in (on_device, on_host)] == [normalize] * 2


def test_actor_critic_normalizes_rewards_if_nothing_else_is_asked_for():
    assert actor_critic.Config().normalize_reward
