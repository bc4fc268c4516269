"""Returns of reward sequences in which episodes may end.

Two facts end an episode: a termination ends the value, a truncation only the recording (the value goes on from the last
true observation).

Fragments `[T, ...]` may hold several episodes. The functions over them take, for each step t:

    reward      r_t
    discount    d_t = gamma * (1 - terminated_t)
    continues   bool, step t+1 belongs to the same episode: not (terminated_t or truncated_t). Nothing follows the last
                step, whatever `continues` says of it
    value       V(obs_t)
    next_value  v'_t = V(next_obs_t) of the true successor, also where the episode is truncated at t. Where it continues
                that is `value` of step t+1

The functions stop no gradients: stop them at the inputs or the outputs where targets are to be constants.

Shapes: `T` time, `n` steps, `B` batch, `...` any trailing axes, the same for all arrays: an array of another shape raises
AssertionError when the program is traced, since broadcasting would hide it.
"""

import chex
import jax
import jax.numpy as jnp

from jaxdl.core.types import Array


def n_step_transition(reward: Array, terminated: Array, done: Array, available: Array, gamma: float | Array
                      ) -> tuple[Array, Array, Array]:
    """Consecutive steps as one transition: their discounted reward, the discount of the value after them, the last step.

        reward = sum_{j < m} gamma^j r_j,    discount = gamma^m * (1 - terminated_{m-1})

    with m the number of steps taken: all that are available, but none after the end of an episode (Sutton 1988). At
    truncations and at the newest step the return is shorter, which is as valid a target.

    Args:
        reward: [n, B].
        terminated: [n, B] bool.
        done: [n, B] bool, terminated or truncated.
        available: [n, B] bool, true up to some step and false from there on; the first is always taken.
        gamma: discount per step.

    Returns:
        reward [B], discount [B], last int32 [B]: m - 1, the step whose next observation the value is taken of.
    """
    chex.assert_rank([reward, terminated, done, available], 2)
    chex.assert_equal_shape([reward, terminated, done, available])
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


def n_step_returns(reward: Array, discount: Array, continues: Array, next_value: Array, n: int) -> Array:
    """Returns that bootstrap after n steps, or earlier where the episode or the fragment ends (Sutton 1988).

        G_t = r_t + d_t * (r_{t+1} + d_{t+1} * (... + d_{t+m-1} * v'_{t+m-1})),    m <= n

    Args:
        reward: [T, ...].
        discount: [T, ...].
        continues: [T, ...] bool.
        next_value: [T, ...].
        n: steps, at least 1; static.

    Returns:
        [T, ...].
    """
    chex.assert_equal_shape([reward, discount, continues, next_value])
    carries = _carries(continues)
    one_step = reward + discount * next_value
    target = one_step
    for _ in range(min(n, reward.shape[0]) - 1):
        target = jnp.where(carries, reward + discount * jnp.roll(target, -1, axis=0), one_step)
    return target


def lambda_returns(reward: Array, discount: Array, continues: Array, next_value: Array, lam: float | Array) -> Array:
    """The geometric mixture of all n-step returns, TD(lambda)'s target (Sutton 1988; Sutton & Barto 2018, section 12.1).

        G_t = r_t + d_t * ((1 - lam) * v'_t + lam * (G_{t+1} if continues_t and t < T-1 else v'_t))

    lam = 0 is the one-step target, lam = 1 the Monte Carlo return, which bootstraps at truncations and at the end of the
    fragment only.

    Args:
        reward: [T, ...].
        discount: [T, ...].
        continues: [T, ...] bool.
        next_value: [T, ...].
        lam: scalar in [0, 1].

    Returns:
        [T, ...].
    """
    chex.assert_equal_shape([reward, discount, continues, next_value])
    carries = _carries(continues)
    bootstrap = jnp.where(carries, (1.0 - lam) * next_value, next_value)
    return _backward(reward + discount * bootstrap, jnp.where(carries, discount * lam, 0.0))


def gae(reward: Array, discount: Array, continues: Array, value: Array, next_value: Array, lam: float | Array) -> Array:
    """Generalised advantage estimation (Schulman et al. 2016, https://arxiv.org/abs/1506.02438).

        A_t = delta_t + d_t * lam * continues_t * A_{t+1},    delta_t = r_t + d_t * v'_t - V_t,    A_T = 0

    which is `lambda_returns` - value. Unlike the paper's, the sum also ends at truncations, with the true successor's value.

    Args:
        reward: [T, ...].
        discount: [T, ...].
        continues: [T, ...] bool.
        value: [T, ...].
        next_value: [T, ...].
        lam: scalar in [0, 1].

    Returns:
        Advantages [T, ...].
    """
    chex.assert_equal_shape([reward, discount, continues, value, next_value])
    return _backward(reward + discount * next_value - value, jnp.where(continues, discount * lam, 0.0))


def vtrace(reward: Array, discount: Array, continues: Array, value: Array, next_value: Array, log_rho: Array,
           lam: float | Array = 1.0, clip_rho: float | Array = 1.0, clip_c: float | Array = 1.0,
           clip_pg_rho: float | Array = 1.0) -> tuple[Array, Array]:
    """Off-policy targets and advantages by clipped importance weights (Espeholt et al. 2018, https://arxiv.org/abs/1802.01561).

        vs_t = V_t + e_t,    e_t = min(clip_rho, rho_t) * delta_t + d_t * c_t * continues_t * e_{t+1},    e_T = 0
        A_t  = min(clip_pg_rho, rho_t) * (r_t + d_t * q_t - V_t)

    with delta_t as in `gae`, c_t = lam * min(clip_c, rho_t) and q_t = lam * vs_{t+1} + (1 - lam) * V_{t+1} where the episode
    continues, else v'_t. This is the paper's equation 1, by its remark 1, and the advantage of its section 4.2; lam is the
    paper's remark 2, in q_t as rlax has it. Where pi = mu (and no clip is below 1) the targets are `lambda_returns` and
    the advantages `gae`.

    Args:
        reward: [T, ...].
        discount: [T, ...].
        continues: [T, ...] bool.
        value: [T, ...].
        next_value: [T, ...].
        log_rho: [T, ...], log pi(action | obs) - log mu(action | obs) of the learned policy pi and the one that acted, mu.
        lam: scalar in [0, 1].
        clip_rho: sets the policy whose value the targets' fixed point is, from mu's (near 0) to pi's (infinity).
        clip_c: limits how far corrections reach back; sets speed and variance, not the fixed point.
        clip_pg_rho: limits the weight of an advantage.

    Returns:
        Targets [T, ...] for the value, advantages [T, ...] for the policy gradient, their weight within.
    """
    chex.assert_equal_shape([reward, discount, continues, value, next_value, log_rho])
    rho = jnp.exp(log_rho)
    delta = reward + discount * next_value - value
    decay = jnp.where(continues, discount * lam, 0.0)
    error = _backward(jnp.minimum(rho, clip_rho) * delta, decay * jnp.minimum(rho, clip_c))
    next_error = jnp.concatenate([error[1:], jnp.zeros_like(error[:1])])
    # V_{t+1} is v'_t where the episode continues, so q_t = v'_t + lam * e_{t+1}
    return value + error, jnp.minimum(rho, clip_pg_rho) * (delta + decay * next_error)


def _carries(continues: Array) -> Array:
    """Where the next row is a later step of the same episode: nowhere in the last row."""
    return jnp.concatenate([continues[:-1], jnp.zeros_like(continues[:1])])


def _backward(term: Array, weight: Array) -> Array:
    """x_t = term_t + weight_t * x_{t+1}, with x_T = 0."""
    return jax.lax.scan(_add, jnp.zeros_like(term[0]), (term, weight), reverse=True)[1]


def _add(x: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:  # out here, that scan knows it again outside of jit
    x = row[0] + row[1] * x
    return x, x
