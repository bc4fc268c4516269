"""Noisy layers: the formula by hand, factorised noise with its statistics, and networks that have none of it without noise."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from tools import jit, products

from jaxdl import nn
from jaxdl.agents import dqn

P_VALUE = 1e-4  # seeds are fixed: the statistical tests hold or not, once and for all
X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


@functools.cache
def layer():
    """A layer of three inputs and five outputs whose parameters are all different, and its output given noise."""
    module = nn.NoisyDense(5)
    params = module.init(jax.random.key(0), X)["params"]
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), params)
    return params, lambda params, noise: module.apply({"params": params} | ({"noise": noise} if noise else {}), X)


def by_hand(params, e_in, e_out):
    """`y = (W + S * f_out f_in^T) x + b + s * f_out`, an example at a time, kernels being [inputs, outputs]."""
    rows = []
    for i, x in enumerate(np.float64(X)):
        f_in, f_out = (np.float64(np.broadcast_to(v, (len(X), v.shape[-1]))[i]) for v in (e_in, e_out))
        kernel = params["mean"]["kernel"] + params["kernel_scale"] * np.outer(f_in, f_out)
        rows.append(x @ kernel + params["mean"]["bias"] + params["bias_scale"] * f_out)
    return np.array(rows)


@pytest.mark.parametrize("lead", [(), (6,)], ids=["one noise for all", "each its own"])
def test_the_formula_by_hand(lead):
    params, apply = layer()
    rng = np.random.default_rng(2)
    e_in, e_out = (rng.normal(size=(*lead, n)).astype(np.float32) for n in (3, 5))
    got = apply(params, {"in": e_in, "out": e_out})
    np.testing.assert_allclose(got, by_hand(jax.tree.map(np.float64, params), e_in, e_out), rtol=1e-5, atol=1e-5)


def test_without_noise_the_means_are_used():
    params, apply = layer()
    np.testing.assert_allclose(apply(params, None), X @ params["mean"]["kernel"] + params["mean"]["bias"], rtol=1e-5, atol=1e-6)
    zero = {"in": np.zeros(3, np.float32), "out": np.zeros(5, np.float32)}
    np.testing.assert_allclose(apply(params, zero), apply(params, None), rtol=1e-6)


def test_scales_have_the_gradient_of_the_noise_and_means_that_of_a_dense_layer():
    params, apply = layer()
    rng = np.random.default_rng(3)
    e_in, e_out = rng.normal(size=3).astype(np.float32), rng.normal(size=5).astype(np.float32)
    grads = jax.grad(lambda p: apply(p, {"in": e_in, "out": e_out}).sum())(params)
    total = X.sum(0)
    np.testing.assert_allclose(grads["kernel_scale"], np.outer(total * e_in, e_out), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(grads["bias_scale"], len(X) * e_out, rtol=1e-5)
    np.testing.assert_allclose(grads["mean"]["kernel"], np.tile(total[:, None], (1, 5)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(grads["mean"]["bias"], len(X))
    without = jax.grad(lambda p: apply(p, None).sum())(params)
    assert not without["kernel_scale"].any()
    assert not without["bias_scale"].any()


@pytest.mark.parametrize("how", ["flax", "ours"])
def test_initial_values_are_those_of_the_paper(how):
    module, x = nn.NoisyDense(200, 0.4), np.zeros((1, 25), np.float32)
    init = module.init if how == "flax" else functools.partial(nn.init, module)
    params = jit(lambda key: init(key, x))(jax.random.key(0))["params"]
    kernel = np.asarray(params["mean"]["kernel"])
    assert stats.kstest(kernel.ravel(), stats.uniform(-1 / 5, 2 / 5).cdf).pvalue > P_VALUE
    assert np.abs(kernel).max() <= 1 / 5
    assert not params["mean"]["bias"].any()
    np.testing.assert_allclose(params["kernel_scale"], np.full((25, 200), 0.4 / 5), rtol=1e-6)
    np.testing.assert_allclose(params["bias_scale"], np.full(200, 0.4 / 5), rtol=1e-6)


# --- Whole networks.


FLAT = nn.Form()


def network(noisy=0.5, form=FLAT, dueling=True, atoms=3):
    return dqn.QNetwork(2, (4, 3), "relu", dueling, atoms, noisy, form)


@functools.cache
def variables():
    return jit(lambda key: nn.init(network(), key, X[:1]))(jax.random.key(0))


def layers(tree, path=()):
    """The noisy layers of a tree of parameters or noise: path -> what it has."""
    if "in" in tree or "kernel_scale" in tree:
        return {path: tree}
    return {p: x for name, sub in tree.items() if isinstance(sub, dict) for p, x in layers(sub, (*path, name)).items()}


@functools.cache
def many():
    """The noise of all layers in 20,000 draws, [20000, p] and [20000, q] a layer."""
    params = variables()
    return layers(jax.device_get(jit(lambda key: nn.noise(params, key, (20_000,)))(jax.random.key(1))))


def test_every_layer_has_noise_of_its_sizes():
    found = {path: (x["in"].shape[1], x["out"].shape[1]) for path, x in many().items()}
    assert found == {path: x["kernel_scale"].shape for path, x in layers(variables()["params"]).items()}
    assert sorted(found.values()) == [(3, 3 * 1), (3, 4), (3, 3 * 2), (4, 3)]


def test_noise_is_the_signed_root_of_a_normal_number():
    """E f = 0, E f^2 = E |e| = sqrt(2 / pi), and `f |f|` is normal."""
    columns = np.concatenate([v for x in many().values() for v in (x["in"], x["out"])], 1)
    assert columns.shape == (20_000, 7 + 7 + 6 + 9)
    n = len(columns)
    assert np.abs(columns.mean(0)).max() < 5 * math.sqrt(math.sqrt(2 / math.pi) / n)
    squares = np.square(columns).mean(0)
    np.testing.assert_allclose(squares, math.sqrt(2 / math.pi), atol=5 * math.sqrt((1 - 2 / math.pi) / n))
    for column in columns.T[::5]:
        assert stats.kstest(column * np.abs(column), stats.norm.cdf).pvalue > P_VALUE


def test_no_two_numbers_of_the_noise_are_the_same_or_go_together():
    columns = np.concatenate([v for x in many().values() for v in (x["in"], x["out"])], 1)
    assert len(np.unique(columns)) > 0.9 * columns.size  # float32 has few numbers near the mode
    apart = np.corrcoef(columns.T) - np.eye(columns.shape[1])
    assert np.abs(apart).max() < 5 / math.sqrt(len(columns))


def test_one_draw_serves_all_layers():
    params = variables()

    def draws(lead):
        return str(jax.make_jaxpr(lambda key: nn.noise(params, key, lead))(jax.random.key(0))).count("random_bits")

    assert draws(()) == draws((6,)) == 1


def test_each_environment_has_noise_of_its_own():
    params = variables()
    noise = nn.noise(params, jax.random.key(5), (6,))
    x = np.tile(X[:1], (6, 1))
    out = np.asarray(network().apply(params | {"noise": noise}, x))
    assert len(np.unique(out.reshape(6, -1), axis=0)) == 6
    for i in range(6):  # and each has what a network with that noise alone says
        own = network().apply(params | {"noise": jax.tree.map(lambda v: v[i], noise)}, x[i : i + 1])  # noqa: B023
        np.testing.assert_allclose(out[i : i + 1], own, rtol=1e-5, atol=1e-6)


def test_noise_goes_through_every_layer():
    """Each layer's noise alone changes what the network says."""
    params = variables()
    noise = nn.noise(params, jax.random.key(5))
    plain = network().apply(params, X)
    for path in layers(noise):
        def only(tree, at=(), path=path):
            if "in" in tree:
                return jax.tree.map(lambda v: v * (at == path), tree)
            return {name: only(sub, (*at, name), path) for name, sub in tree.items()}

        assert np.abs(network().apply(params | {"noise": only(noise)}, X) - plain).max() > 1e-4


def test_there_is_no_noise_where_no_layer_is_noisy():
    params = jit(lambda key: nn.init(network(noisy=None), key, X[:1]))(jax.random.key(0))
    assert nn.noise(params, jax.random.key(0)) == {}
    assert not layers(params["params"])


@pytest.mark.parametrize(("shape", "form"), [
    ((10, 10, 4), nn.Form(picture="HWC")), ((2, 10, 10), nn.Form(stacked=True, picture="HW"))])
def test_convolutions_have_no_noise_and_what_follows_them_has(shape, form):
    images = np.random.default_rng(0).integers(0, 256, (3, *shape)).astype(np.uint8)
    net = network(form=form, atoms=None)
    params = jit(lambda key: nn.init(net, key, images))(jax.random.key(0))
    noise = nn.noise(params, jax.random.key(0), (3,))
    assert set(layers(noise)) == set(layers(params["params"]))
    assert len(layers(noise)) == 4
    assert not any("Conv" in part for path in layers(noise) for part in path)
    assert any("Conv" in name for name in params["params"])
    out = net.apply(params | {"noise": noise}, images)
    assert out.shape == (3, 2)
    assert np.abs(out - net.apply(params, images)).max() > 1e-3


def test_noise_is_multiplied_in_half_precision_too():
    module = nn.NoisyDense(5, dtype=jnp.bfloat16)
    params = module.init(jax.random.key(0), X)
    noise = nn.noise(params, jax.random.key(1))
    out = module.apply(params | {"noise": noise}, X)
    assert out.dtype == jnp.float32
    assert products(jax.make_jaxpr(module.apply)(params | {"noise": noise}, X).jaxpr) == {"bfloat16"}
    exact = nn.NoisyDense(5).apply(params | {"noise": noise}, X)
    np.testing.assert_allclose(np.float32(out), exact, rtol=0.05, atol=0.05)
