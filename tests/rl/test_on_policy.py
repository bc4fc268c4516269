"""What policy gradients share: numbers weighted over all shards, trajectories as learners read them, minibatches, runs."""

import jax
import jax.numpy as jnp
import numpy as np
from tools import jit

from jaxdl.ops.running_stats import Moments
from jaxdl.rl import on_policy
from jaxdl.rl.on_policy import Minibatch
from jaxdl.rl.types import Trajectory

T, B = 6, 3

# --- Weighted numbers.


VALID = np.array([[1, 0, 1, 1], [0, 1, 1, 0]], bool)
X = np.array([[1.0, 900.0, 3.0, -2.0], [-700.0, 4.0, 0.0, 800.0]], np.float32)
Y = np.array([[2.0, -900.0, 2.0, -3.0], [700.0, 5.5, 0.5, 100.0]], np.float32)


def by_hand():
    x, y = X[VALID].astype(np.float64), Y[VALID].astype(np.float64)
    return (x - x.mean()) / x.std(), 1 - np.var(y - x) / np.var(y)


def test_weights_make_the_mean_that_of_what_is_valid():
    weight = on_policy.weights(jnp.array(VALID), None)
    np.testing.assert_allclose(weight, VALID * 8 / 5)
    np.testing.assert_allclose((weight * X).mean(), X[VALID].mean(), rtol=1e-6)
    assert not on_policy.weights(jnp.zeros((2, 2), bool), None).any()


def test_several_minibatches_over_shards_are_each_weighed_by_itself():
    rng = np.random.default_rng(2)
    x, valid = np.float32(rng.normal(size=(2, 3, 8))), rng.random((2, 3, 8)) < 0.6  # shards, minibatches, rows

    def weigh(x, valid):
        weight = on_policy.weights(valid, "shards")
        return weight, on_policy.standardized(x, weight, "shards")

    weight, standard = jax.vmap(jax.vmap(weigh), axis_name="shards")(jnp.array(x), jnp.array(valid))
    for k in range(3):
        of_one, part = valid[:, k], x[:, k]
        np.testing.assert_allclose(weight[:, k], of_one / of_one.mean(), rtol=1e-6)
        expected = (part[of_one] - part[of_one].mean()) / part[of_one].std()
        np.testing.assert_allclose(np.asarray(standard[:, k])[of_one], expected, rtol=1e-4, atol=1e-5)


def test_weighted_numbers_by_hand():
    weight = on_policy.weights(jnp.array(VALID), None)
    standard, explained = by_hand()
    np.testing.assert_allclose(np.asarray(on_policy.standardized(jnp.array(X), weight, None))[VALID], standard, rtol=1e-5)
    total, count = on_policy.explained_variance(jnp.array(X), jnp.array(Y), weight, None)
    np.testing.assert_allclose([total, count], [explained, 1], rtol=1e-5)
    of_means = on_policy.named_metrics(("x", "y"), on_policy.masked_means([jnp.array(X), jnp.array(Y)], weight))
    for name, x in (("x", X), ("y", Y)):
        np.testing.assert_allclose(of_means[name], [x[VALID].sum(), 5], rtol=1e-6)


def test_over_shards_they_are_those_of_the_whole_and_no_means_of_shards():
    """Shards of different sizes: one has three rows that are valid, the other two."""

    def shard(x, y, valid):
        weight = on_policy.weights(valid, "shards")
        return weight, on_policy.standardized(x, weight, "shards"), on_policy.explained_variance(x, y, weight, "shards").total

    weight, standard, explained = jit(jax.vmap(shard, axis_name="shards"))(X, Y, VALID)
    assert VALID.sum(1).tolist() == [3, 2]
    np.testing.assert_allclose(weight, VALID * 8 / 5)
    expected, of_all = by_hand()
    np.testing.assert_allclose(np.asarray(standard)[VALID], expected, rtol=1e-5)
    np.testing.assert_allclose(explained, [of_all] * 2, rtol=1e-5)


def test_means_of_several_parts_are_put_together():
    parts = jax.vmap(lambda x, valid: on_policy.masked_means([x, 2 * x], on_policy.weights(valid, None)))(X, VALID)
    named = on_policy.named_metrics(("a", "b"), parts)
    np.testing.assert_allclose(named["a"], [X[VALID].sum(), 5], rtol=1e-6)
    np.testing.assert_allclose(named["b"], [2 * X[VALID].sum(), 5], rtol=1e-6)


def trajectory():
    """Three steps of two environments, every kind of end among them."""
    flags = [np.array(x, bool) for x in (
        [[1, 0], [0, 0], [0, 1]], [[0, 0], [1, 0], [0, 1]], [[1, 1], [1, 0], [1, 0]], [[1, 1], [1, 1], [0, 1]])]
    obs = jax.random.normal(jax.random.key(0), (3, 2, 2))
    return Trajectory(obs, None, jnp.zeros((3, 2)), obs + 1, *flags, None)


def test_what_a_learner_reads_of_ends():
    batch = on_policy.prepare_batch(None, trajectory(), 0.9, None)
    np.testing.assert_allclose(batch.discount, np.float32([[0, 0.9], [0.9, 0.9], [0.9, 0]]))
    np.testing.assert_array_equal(batch.continues, [[False, True], [False, True], [True, False]])
    np.testing.assert_allclose(batch.weight, np.float32([[1, 1], [1, 1], [0, 1]]) * 6 / 5)


def test_a_trajectory_is_read_by_the_statistics_and_adds_to_them():
    played = trajectory()
    moments = Moments(jnp.float32(4), jnp.array([1.0, 0.0]), jnp.array([16.0, 4.0]))
    batch = on_policy.prepare_batch(moments, played, 0.9, None)
    np.testing.assert_allclose(batch.obs, (np.asarray(played.obs) - [1, 0]) / [2, 1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(batch.next_obs, (np.asarray(played.next_obs) - [1, 0]) / [2, 1], rtol=1e-5, atol=1e-6)
    new = on_policy.update_stats(moments, played, None)
    before = np.array([[3, 1], [-1, 1], [3, -1], [-1, -1]])  # four numbers of these moments
    everything = np.concatenate([before, np.asarray(played.obs)[played.valid]])
    np.testing.assert_allclose(new.mean, everything.mean(0), rtol=1e-5)
    np.testing.assert_allclose(new.deviations / new.count, everything.var(0), rtol=1e-5)
    assert float(new.count) == 4 + played.valid.sum() == 9
    assert on_policy.update_stats(None, played, None) is None


def test_flattened_time_makes_every_step_a_sequence_and_keeps_rows_together():
    x = jnp.arange(T * B * 2).reshape(T, B, 2)
    flat = on_policy.flatten_time({"x": x, "none": None})
    assert flat["x"].shape == (1, T * B, 2)
    np.testing.assert_array_equal(flat["x"][0, 4 * B + 2], x[4, 2])


def test_selected_sequences_keep_their_rows_and_their_carry():
    x = np.arange(T * B).reshape(T, B)
    batch = Minibatch(x[..., None], x, x, x, x, x, carry=(x[0], x[0, :, None]), log_prob=x)
    part, index = on_policy.select(batch, np.array([2, 0])), [2, 0]
    np.testing.assert_array_equal(part.obs, x[:, index, None])
    np.testing.assert_array_equal(part.log_prob, x[:, index])
    np.testing.assert_array_equal(part.carry[1], x[0, index, None])
    assert part.value is None
