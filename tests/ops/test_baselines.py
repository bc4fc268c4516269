"""Baselines: sums over groups by hand."""

import jax.numpy as jnp
import numpy as np

from jaxdl.core.types import Mean
from jaxdl.ops import baselines


def test_groups_are_draws_where_there_are_several_else_the_batch():
    reward = jnp.array([[1.0, 0, 1, 1], [0, 0, 0, 1]])
    np.testing.assert_allclose(np.broadcast_to(baselines.among_draws("batch", reward), (2, 4)), [[0.75] * 4, [0.25] * 4])
    others = baselines.among_draws("leave_one_out", reward)
    np.testing.assert_allclose(others, [[2 / 3, 1, 2 / 3, 2 / 3], [1 / 3, 1 / 3, 1 / 3, 0]], rtol=1e-6)
    column = jnp.array([[1.0], [0], [0], [1]])
    np.testing.assert_allclose(baselines.among_draws("batch", column), 0.5)
    np.testing.assert_allclose(baselines.among_draws("leave_one_out", column)[:, 0], [1 / 3, 2 / 3, 2 / 3, 1 / 3], rtol=1e-6)
    np.testing.assert_array_equal(baselines.among_draws("leave_one_out", jnp.ones((1, 1))), 0)  # there are no others


def test_rewards_of_several_steps_are_compared_step_by_step():
    rng = np.random.default_rng(0)
    for draws in (1, 3):
        reward = jnp.asarray(np.float32(rng.normal(size=(4, draws, 5))))
        for name in ("batch", "leave_one_out"):
            each = [np.broadcast_to(baselines.among_draws(name, reward[..., t]), (4, draws)) for t in range(5)]
            found = baselines.compared_with(name, reward, jnp.zeros(()), None)
            np.testing.assert_allclose(np.broadcast_to(found, reward.shape), np.stack(each, -1), rtol=1e-5, atol=1e-6)
    average = Mean(jnp.float32(3.0), jnp.float32(2.0))
    value = jnp.full((4, 3, 5), 7.0)
    for name, want in (("none", 0.0), ("constant", 1.5), ("value", 7.0)):
        np.testing.assert_allclose(baselines.compared_with(name, reward, value, average), want)


def test_a_moving_average_weighs_rewards_by_their_age():
    average = baselines.none_yet()
    assert baselines.value_of(average) == 0
    for total, num in ((3.0, 4.0), (1.0, 2.0)):
        average = baselines.moved(average, Mean(jnp.float32(total), jnp.float32(num)), 0.5)
    np.testing.assert_allclose(baselines.value_of(average), (0.5 * 3 + 1) / (0.5 * 4 + 2))
