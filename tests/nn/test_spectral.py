"""Spectral normalization against singular values, and its gradient by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.nn import spectral

KEYS = jax.random.split(jax.random.key(0), 3)
PARAMS = {"conv": {"kernel": jax.random.normal(KEYS[0], (3, 3, 4, 6)), "bias": jnp.ones(6)},
          "dense": {"kernel": jax.random.normal(KEYS[1], (7, 2))}}


def matrix(kernel):
    return np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1])


def converged(params):
    return jax.jit(lambda params: jax.lax.fori_loop(
        0, 200, lambda _, vectors: spectral.advance(params, vectors), spectral.start(params, KEYS[2])))(params)


def test_kernels_are_divided_by_their_largest_singular_value_and_nothing_else_is():
    found = spectral.normalize(PARAMS, converged(PARAMS))
    for name in PARAMS:
        kernel = PARAMS[name]["kernel"]
        np.testing.assert_allclose(found[name]["kernel"], kernel / np.linalg.svd(matrix(kernel))[1][0], rtol=1e-4)
    np.testing.assert_array_equal(found["conv"]["bias"], PARAMS["conv"]["bias"])


def test_one_step_is_a_step_of_the_power_iteration():
    vectors = spectral.start(PARAMS, KEYS[2])
    after = spectral.advance(PARAMS, vectors)
    for name, old, new in zip(PARAMS, vectors, after, strict=True):
        w = matrix(PARAMS[name]["kernel"])
        left = w @ old.right / np.linalg.norm(w @ old.right)
        np.testing.assert_allclose(new.left, left, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(new.right, w.T @ left / np.linalg.norm(w.T @ left), rtol=1e-4, atol=1e-6)


def test_the_gradient_goes_through_the_kernel_and_not_through_the_vectors():
    """With s = v^T W u, of <G, W / s> it is (G - <G, W> / s v u^T) / s; Miyato et al. (2018), eq. 12."""
    params = {"kernel": PARAMS["dense"]["kernel"]}
    vectors = spectral.start(params, KEYS[2])
    g = jax.random.normal(KEYS[0], (7, 2))
    found, moved = jax.grad(lambda p, v: (spectral.normalize(p, v)["kernel"] * g).sum(), (0, 1))(params, vectors)
    w, (v, u) = matrix(params["kernel"]), vectors[0]
    sigma = v @ w @ u
    np.testing.assert_allclose(found["kernel"], (g - (g * w).sum() / sigma * np.outer(v, u)) / sigma, rtol=1e-4, atol=1e-5)
    assert all((x == 0).all() for x in jax.tree.leaves(moved))
    carried = jax.grad(lambda p: sum(x.sum() for x in jax.tree.leaves(spectral.advance(p, vectors))))(params)
    assert (carried["kernel"] == 0).all()
