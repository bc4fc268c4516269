"""CIDEr-D, a consensus of texts: how far the n-grams of a text, weighted by how rare they are, are those of its references.

    CIDEr-D = 10 / 4 sum_n mean_j exp(-(l - l_j)^2 / 72) min(g_n, g_nj) . g_nj / (|g_n| |g_nj|)

with g_n the counts of n-grams times log(pictures / pictures that have it in a reference), l a length. Vedantam, Zitnick and
Parikh, "CIDEr: consensus-based image description evaluation" (2015), with the counts as they are, as in its published code.
N-grams are compared two by two, so that the score of short texts is a formula of arrays, which a program on the device can
have as a reward.

Shapes: `L` tokens of a text, `R` references of a picture, `D` cells of a table.
"""

import jax.numpy as jnp

from jaxdl.core.types import Array
from jaxdl.ops import hashing

ORDERS = 4
_SIGMA = 6.0  # of lengths


def ngrams(tokens: Array) -> Array:
    """Hashes of the n-grams that begin at each token of texts [..., L], uint32 [..., 4, L]; 0 where there is none."""
    tokens = tokens.astype(jnp.uint32)
    found, whole, code = [], tokens > 0, tokens
    for n in range(ORDERS):
        if n:
            later = jnp.concatenate([tokens[..., n:], jnp.zeros_like(tokens[..., :n])], -1)
            whole, code = whole & (later > 0), hashing.mix(code, later)
        found.append(jnp.where(whole, jnp.maximum(hashing.mix(code, jnp.uint32(n + 1)), 1), 0))
    return jnp.stack(found, -2)


def cider(text: Array, text_rarity: Array, references: Array, reference_rarity: Array) -> Array:
    """CIDEr-D of a text.

    Args:
        text: `ngrams` [4, L].
        text_rarity: log(pictures / pictures that have it) of each [4, L].
        references: `ngrams` [R, 4, L'].
        reference_rarity: as for the text.
    """
    there, theirs = text > 0, references > 0
    own = ((text[:, :, None] == text[:, None]) & there[:, None]).sum(-1)  # how often the text has each of its n-grams
    other = ((text[:, :, None] == references[:, :, None]) & theirs[:, :, None]).sum(-1)  # [R, 4, L]: and each reference
    among = ((references[..., None] == references[..., None, :]) & theirs[..., None, :]).sum(-1)
    squares = jnp.where(there, text_rarity**2, 0)
    product = (jnp.minimum(own, other) * other * squares / jnp.maximum(own, 1)).sum(-1)  # [R, 4]
    norm = jnp.sqrt((own * squares).sum(-1))
    norms = jnp.sqrt((among * jnp.where(theirs, reference_rarity**2, 0)).sum(-1))
    alike = jnp.where(norm * norms > 0, product / jnp.maximum(norm * norms, 1e-12), 0)
    apart = there[1].sum() - theirs[:, 1].sum(-1)  # of their numbers of pairs
    return 10 * (alike.mean(-1) * jnp.exp(-(apart**2) / (2 * _SIGMA**2))).mean()


def counted(table: Array, references: Array) -> Array:
    """A table [D] of how many pictures have each n-gram, with those of more pictures [B, R, 4, L]; cells by hash."""
    grams = references.reshape(len(references), -1)
    ordered = jnp.sort(grams, -1)
    once = jnp.concatenate([jnp.ones_like(ordered[:, :1], bool), ordered[:, 1:] != ordered[:, :-1]], -1) & (ordered > 0)
    cells = jnp.where(once, ordered % len(table), len(table)).astype(jnp.int32)
    return table.at[cells.ravel()].add(1.0, mode="drop")


def rarity(table: Array, pictures: Array, grams: Array) -> Array:
    """log(pictures / pictures that have it) of n-grams, by a table."""
    return jnp.log(jnp.maximum(pictures, 1)) - jnp.log(jnp.maximum(table[(grams % len(table)).astype(jnp.int32)], 1))
