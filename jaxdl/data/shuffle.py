"""A shuffled order that is computed where it is asked for: a keyed bijection of [0, n), with no permutation in any state."""

import math

import jax
import jax.numpy as jnp

from jaxdl.core.types import Array, Key
from jaxdl.ops.hashing import mix

# Each changes one half. In 40,000 orders of n = 2 to 16 (the smallest sides mix worst) the places of single examples
# are uniform by chi-square from 6 rounds on, those of pairs from 10 or 12. Where both sides are odd, even permutations
# are more likely than odd ones, whatever the rounds: no batch shows it.
ROUNDS = 12


def shuffled_index(key: Key, epoch: Array | int | None, positions: Array, n: int) -> Array:
    """The examples at `positions` of the shuffled order of `n` examples: a bijection of [0, n) for each key and epoch.

    Args:
        key: the shuffle.
        epoch: int32 (), folded into the key; None takes the key as it is.
        positions: int32 of any shape, each in [0, n); the cost is O(positions).
        n: examples, 1 to 2**31 - 1.

    Returns:
        int32 of the shape of `positions`, each in [0, n).
    """
    key = key if epoch is None else jax.random.fold_in(key, epoch)
    round_keys = jax.random.bits(key, (ROUNDS,), jnp.uint32)
    a, b = _sides(n)
    x = _feistel(round_keys, jnp.asarray(positions).astype(jnp.uint32), a, b)
    if a * b > n:  # ends: the cycle of a position returns to it, below n, after at most a * b - n turns
        x = jax.lax.while_loop(
            lambda x: jnp.any(x >= n), lambda x: jnp.where(x >= n, _feistel(round_keys, x, a, b), x), x)
    return x.astype(jnp.int32)


def _sides(n: int) -> tuple[int, int]:
    # Sides within a factor of about two of each other: a long thin rectangle would be mixed badly, 1 x n only rotated.
    root = math.isqrt(n - 1) + 1
    a = min(range(root, root + max(1, root // 2)), key=lambda a: -(-n // a) * a)
    return a, -(-n // a)


def _feistel(round_keys: Array, x: Array, a: int, b: int) -> Array:
    l, r = x // b, x % b
    for i in range(ROUNDS):
        if i % 2 == 0:
            l = _add_mod(l, mix(r, round_keys[i]), a)
        else:
            r = _add_mod(r, mix(l, round_keys[i]), b)
    return l * b + r


def _add_mod(x: Array, hashed: Array, m: int) -> Array:
    total = x + hashed % m  # below 2 * m: no overflow
    return jnp.where(total >= m, total - m, total)
