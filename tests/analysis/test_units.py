"""Strongest places, neighbours and projections: held to what trying all gives, and to NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
from tools import assert_close, jit

from jaxdl.analysis import units

X = np.asarray(jax.random.uniform(jax.random.key(0), (600, 6, 5, 3)))  # more than two blocks


def maps_of(x):
    return jnp.sin(5 * x[:, 1:, :4]) * jnp.array([1.0, -1.0, 2.0])


def test_the_strongest_places_are_those_that_trying_all_finds():
    found = units.strongest(maps_of, X, 7)
    maps = np.asarray(maps_of(X))
    for k in range(3):
        every = sorted(((maps[n, :, :, k].max(), n, np.unravel_index(maps[n, :, :, k].argmax(), (5, 4)))
                        for n in range(len(X))), key=lambda row: -row[0])[:7]
        np.testing.assert_allclose(found.values[k], [value for value, _, _ in every], rtol=1e-5)
        np.testing.assert_array_equal(found.pictures[k], [n for _, n, _ in every])
        np.testing.assert_array_equal(found.places[k], [place for _, _, place in every])


def test_blocks_of_one_size_give_what_all_at_once_do():
    for num in (1, 256, 257):
        assert_close(units.in_blocks(maps_of, X[:num]), np.asarray(maps_of(X[:num])))


def test_neighbours_are_the_nearest():
    among, at = jnp.asarray(X.reshape(600, -1)[:80]), jnp.array([5, 70, 0])
    found = jit(lambda a: units.nearest(a[at], a, 6, at))(among)
    distance = np.linalg.norm(np.asarray(among)[:, None] - np.asarray(among)[None], axis=-1)
    for row, query in zip(np.asarray(found), np.asarray(at), strict=True):
        order = [n for n in np.argsort(distance[query]) if n != query][:6]
        np.testing.assert_array_equal(row, order)
    np.testing.assert_array_equal(units.nearest(among[at], among, 1)[:, 0], at)  # itself, where it is not left out


def test_pca_is_that_of_numpy():
    x = np.random.default_rng(0).normal(size=(50, 7)) @ np.diag([5, 4, 3, 2, 1, 0.5, 0.1]) + 3
    found, share = jit(lambda x: units.pca(x, 3))(jnp.asarray(x, jnp.float32))
    u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    want = u[:, :3] * s[:3]
    np.testing.assert_allclose(np.abs(found), np.abs(want), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(share, s[:3] ** 2 / (s**2).sum(), rtol=1e-4)
    again, _ = units.pca(-jnp.asarray(x, jnp.float32), 3)
    np.testing.assert_allclose(again, -found, atol=1e-3)  # a direction is no sign of rounding
