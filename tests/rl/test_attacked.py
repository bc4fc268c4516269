"""Attacks on observations: what an agent sees is within the ball and another action's, the environment stays as it is."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import assert_close

from jaxdl.core.errors import UserError
from jaxdl.rl import attacked
from jaxdl.rl.types import Actor, Agent, EnvSpec

OBS = jnp.array([[0.5, -1.0, 2.0], [3.0, 0.0, 0.1]])
DEVIATION = np.array([1.0, 0.1, 2.0], np.float32)
WEIGHTS = jnp.array([[1.0, -1.0], [2.0, 0.5], [-1.0, 1.0]])


def agent(weights=WEIGHTS):
    """What it does is what it sees; the action is chosen by a linear function."""
    def act(params, carry, obs, key, t):
        return carry, obs, {}

    def outputs(params, carry, obs):
        return obs.reshape(len(obs), -1) @ weights

    return Agent(None, None, Actor(lambda n: None, act), outputs)


def spec(space, actions=None):
    return EnvSpec("Own-v0", space, actions or gymnasium.spaces.Discrete(2), None)


NUMBERS = spec(gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32))


def seen(of, attack, epsilon, norm="linf", obs=OBS, deviation=DEVIATION, weights=WEIGHTS):
    actor = attacked.under_attack(agent(weights), of, attack, norm, 10, deviation)
    return actor.act((None, jnp.float32(epsilon)), None, obs, jax.random.key(0), 0)[1]


@pytest.mark.parametrize("attack", ["noise", "fgsm", "pgd"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_changes_are_as_many_deviations_as_are_asked_for(attack, norm):
    change = (seen(NUMBERS, attack, 0.5, norm) - OBS) / DEVIATION
    size = np.abs(change).max(-1) if norm == "linf" else np.linalg.norm(change, axis=-1)
    assert (size <= 0.5 + 1e-4).all()
    assert (size > 0).all()
    assert_close(seen(NUMBERS, attack, 0.0, norm), OBS, atol=1e-5)


@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_of_linear_values_the_worst_is_the_corner_against_the_chosen_action(attack):
    chosen = (OBS @ WEIGHTS).argmax(-1)
    against = WEIGHTS.T[1 - chosen] - WEIGHTS.T[chosen]
    assert_close(seen(NUMBERS, attack, 0.3), OBS + 0.3 * DEVIATION * jnp.sign(against), atol=1e-4)


def test_of_box_actions_the_means_are_moved_as_far_as_they_go():
    of = spec(NUMBERS.observation_space, gymnasium.spaces.Box(-1, 1, (1,), np.float32))
    weights = jnp.array([[1.0], [0.0], [-1.0]])
    moved = seen(of, "pgd", 0.3, weights=weights)
    assert_close(jnp.abs((moved - OBS) @ weights)[:, 0], jnp.full(2, 0.3 * (1 + 2)), rtol=1e-3)


def test_pictures_stay_pictures():
    of = spec(gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8))
    obs = jax.random.randint(jax.random.key(1), (2, 8, 8, 3), 0, 256).astype(jnp.uint8)
    weights = jax.random.normal(jax.random.key(2), (192, 2))
    moved = seen(of, "pgd", 0.1, obs=obs, deviation=None, weights=weights)
    assert (moved >= 0).all()
    assert (moved <= 1).all()
    assert (jnp.abs(moved - obs / 255.0) <= 0.1 + 1e-6).all()


def test_classes_cannot_be_changed_a_little():
    with pytest.raises(UserError, match=r"Own-v0 are Discrete\(5\)"):
        seen(spec(gymnasium.spaces.Discrete(5)), "fgsm", 0.1, obs=jnp.array([1, 2]))
