"""Returns of reward sequences in which episodes may end.

Two facts end an episode: a termination ends the value, a truncation only the recording (the value goes on from the last
true observation).

Shapes: `T` time, `n` steps, `B` batch.
"""

import jax.numpy as jnp

from jaxdl.types import Array


def n_step_transition(reward: Array, terminated: Array, done: Array, available: Array, gamma: float | Array
                      ) -> tuple[Array, Array, Array]:
    """Consecutive steps as one: what they paid, how the value after them is discounted, and which step was the last.

        reward = sum_{j < m} gamma^j r_j,    discount = gamma^m * (1 - terminated_{m-1})

    with m the number of steps taken: all that are available, but none after the end of an episode. Sutton (1988), cut
    at truncations and at the newest step, where a shorter return is as valid a target.

    Args:
        reward: [n, B].
        terminated: [n, B] bool.
        done: [n, B] bool, terminated or truncated.
        available: [n, B] bool, true up to some step and false from there on; the first is always taken.
        gamma: discount per step.

    Returns:
        reward [B], discount [B], last int32 [B]: m - 1, the step whose next observation the value is taken of.
    """
    n = reward.shape[0]
    if n == 1:
        return reward[0], gamma * (1.0 - terminated[0]), jnp.zeros(reward.shape[1], jnp.int32)
    goes_on = jnp.cumprod(~done[:-1] & available[1:], axis=0, dtype=jnp.int32)
    last = goes_on.sum(0, dtype=jnp.int32)
    taken = jnp.concatenate([jnp.ones_like(goes_on[:1]), goes_on]) > 0
    powers = jnp.asarray(gamma, reward.dtype) ** jnp.arange(n, dtype=reward.dtype)
    total = jnp.where(taken, powers[:, None] * reward, 0).sum(0)
    ended = jnp.take_along_axis(terminated, last[None], 0)[0]
    return total, gamma * powers[last] * (1.0 - ended), last


def n_step_returns(reward: Array, discount: Array, value: Array, n: int) -> Array:
    """Returns that bootstrap after n steps, or after fewer where the sequence ends (Sutton 1988).

        G_t = r_t + discount_t * (r_{t+1} + discount_{t+1} * (... + discount * value after the last step))

    An episode that is truncated inside the sequence is not seen here: `n_step_transition` cuts at it.

    Args:
        reward: [T, ...].
        discount: [T, ...], gamma or 0 after a termination.
        value: [T, ...] of the true observation after step t.
        n: steps, at least 1.

    Returns:
        [T, ...].
    """
    length = reward.shape[0]
    pad = [(0, n)] + [(0, 0)] * (reward.ndim - 1)
    reward_padded, discount_padded = jnp.pad(reward, pad), jnp.pad(discount, pad, constant_values=1)
    last = jnp.minimum(jnp.arange(length) + n - 1, length - 1)
    target = value[last]
    for j in reversed(range(n)):  # past the end of the sequence rewards are 0 and discounts 1: nothing happens
        target = reward_padded[j : j + length] + discount_padded[j : j + length] * target
    return target
