"""Returns by hand, by a loop that is plain to read, and against rlax; episodes that end within the n steps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from jaxdl import returns

variants = pytest.mark.parametrize("variant", [jax.jit, lambda f: f], ids=["jit", "plain"])


def column(*values, dtype=bool):
    return jnp.array(values, dtype)[:, None]


REWARD = column(1.0, 2.0, 4.0, dtype=jnp.float32)
NO, YES = column(0, 0, 0), column(1, 1, 1)


@variants
@pytest.mark.parametrize(("terminated", "done", "available", "expected"), [
    (NO, NO, YES, (3.0, 0.125, 2)),  # 1 + 2 / 2 + 4 / 4, bootstrap after three steps
    (column(0, 1, 0), column(0, 1, 0), YES, (2.0, 0.0, 1)),  # terminated: the third reward is another episode's
    (NO, column(0, 1, 0), YES, (2.0, 0.25, 1)),  # truncated: bootstrap from that step's next observation
    (NO, column(1, 0, 0), YES, (1.0, 0.5, 0)),
    (column(1, 0, 0), column(1, 0, 0), YES, (1.0, 0.0, 0)),
    (column(0, 0, 1), column(0, 0, 1), YES, (3.0, 0.0, 2)),
    (NO, column(0, 0, 1), YES, (3.0, 0.125, 2)),
    (NO, column(0, 1, 1), YES, (2.0, 0.25, 1)),  # a second end does not matter
    (column(0, 0, 1), column(0, 1, 1), YES, (2.0, 0.25, 1)),  # nor that it terminates
    (NO, NO, column(1, 1, 0), (2.0, 0.25, 1)),  # the newest step is the second: a shorter return
    (NO, NO, column(1, 0, 0), (1.0, 0.5, 0)),
    (column(0, 1, 0), column(0, 1, 0), column(1, 0, 0), (1.0, 0.5, 0)),  # the end is not in yet
    (column(0, 0, 1), column(0, 0, 1), column(1, 1, 0), (2.0, 0.25, 1)),
])
def test_n_step_transitions_by_hand(variant, terminated, done, available, expected):
    reward, discount, last = variant(returns.n_step_transition)(REWARD, terminated, done, available, 0.5)
    assert (float(reward[0]), float(discount[0]), int(last[0])) == expected
    assert reward.dtype == discount.dtype == jnp.float32
    assert last.dtype == jnp.int32


def by_loop(reward, terminated, done, available, gamma):
    total, discount, last = 0.0, 1.0, 0
    for j in range(len(reward)):
        if not available[j]:
            break
        total, discount, last = total + discount * reward[j], discount * gamma, j
        if done[j]:
            break
    return total, discount * (not terminated[last]), last


@variants
@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_n_step_transitions_are_the_loops(variant, n, gamma):
    rng = np.random.default_rng(n)
    reward = rng.normal(size=(n, 200)).astype(np.float32)
    terminated, truncated = rng.random((2, n, 200)) < 0.15
    available = np.arange(n)[:, None] < rng.integers(1, n + 1, 200)
    reward[~available] = np.nan  # what is not available is not looked at
    done = terminated | truncated
    got = variant(returns.n_step_transition)(reward, terminated, done, available, gamma)
    expected = [by_loop(*(x[:, b] for x in (reward, terminated, done, available)), gamma) for b in range(200)]
    for a, b in zip(got, zip(*expected, strict=True), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_one_discount_a_member_of_a_population():
    run = jax.jit(jax.vmap(lambda gamma: returns.n_step_transition(REWARD, NO, NO, YES, gamma)))
    np.testing.assert_allclose(run(jnp.array([0.0, 0.5, 1.0]))[0][:, 0], [1, 3, 7])


def trajectory(length=9):
    k = jax.random.split(jax.random.key(3), 3)
    discount = 0.9 * (jax.random.uniform(k[1], (length, 4)) > 0.2)
    return jax.random.normal(k[0], (length, 4)), discount, jax.random.normal(k[2], (length, 4))


@variants
@pytest.mark.parametrize("n", [1, 3, 9, 20])
def test_n_step_returns_are_rlaxs(variant, n):
    reward, discount, value = trajectory()
    got = variant(partial(returns.n_step_returns, n=n))(reward, discount, value)
    oracle = jax.vmap(lambda r, d, v: rlax.n_step_bootstrapped_returns(r, d, v, min(n, 9)), 1, 1)
    np.testing.assert_allclose(got, oracle(reward, discount, value), rtol=1e-5, atol=1e-6)


def test_n_step_returns_by_hand():
    reward, discount = jnp.array([1.0, 2.0, 4.0]), jnp.array([0.5, 0.5, 0.5])
    got = returns.n_step_returns(reward, discount, jnp.array([100.0, 8.0, 16.0]), 2)
    np.testing.assert_allclose(got, [1 + 0.5 * (2 + 0.5 * 8), 2 + 0.5 * (4 + 0.5 * 16), 4 + 0.5 * 16])


def test_both_agree_where_nothing_is_truncated():
    reward, discount, value = trajectory()
    n, ended = 4, discount == 0
    whole = returns.n_step_returns(reward, discount, value, n)
    for t in range(len(reward)):
        index = np.minimum(np.arange(t, t + n), len(reward) - 1)
        available = jnp.broadcast_to((np.arange(t, t + n) < len(reward))[:, None], (n, 4))
        total, left, last = returns.n_step_transition(reward[index], ended[index], ended[index], available, 0.9)
        np.testing.assert_allclose(total + left * value[t + last, jnp.arange(4)], whole[t], rtol=1e-5, atol=1e-6)
