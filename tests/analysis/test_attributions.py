"""Attributions: closed forms on linear functions and small networks, rules of ReLUs, and how far each can be trusted."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from tools import assert_close, jit, random_like

from jaxdl import nn
from jaxdl.analysis import attributions, layers, measures, relus
from jaxdl.core.errors import UserError

N, SIDE, K = 3, 8, 4
X = jax.random.uniform(jax.random.key(0), (N, SIDE, SIDE, 2))
TARGET = jnp.array([1, 3, 0])


class Net(linen.Module):
    """Two convolutions and two dense layers."""

    @linen.compact
    def __call__(self, x):
        x = jax.nn.relu(nn.Conv(3, (3, 3))(x))
        x = jax.nn.relu(nn.Conv(5, (3, 3))(x))
        x = jax.nn.relu(nn.Dense(6)(x.reshape(len(x), -1)))
        return nn.Dense(K)(x)


PARAMS = random_like(jit(Net().init)(jax.random.key(1), X))


def net(x):
    return Net().apply(PARAMS, x)


WEIGHTS = jax.random.normal(jax.random.key(2), (SIDE * SIDE * 2, K))


def linear(x):
    return x.reshape(len(x), -1) @ WEIGHTS + 1


def of_target():
    return WEIGHTS.T[TARGET].reshape(X.shape)


def test_of_a_linear_function_all_methods_know_the_weights():
    assert_close(attributions.gradient(linear, X, TARGET), of_target())
    assert_close(attributions.saliency(linear, X, TARGET), jnp.abs(of_target()).max(-1))
    for method in (attributions.gradient_x_input, attributions.integrated_gradients):
        assert_close(method(linear, X, TARGET), X * of_target(), rtol=1e-4, atol=1e-5)
    assert_close(attributions.smoothgrad(linear, X, TARGET, jax.random.key(0), num=3), of_target(), rtol=1e-4, atol=1e-5)
    one = attributions.occlusion(linear, X, TARGET, (1, 1), (1, 1))
    assert_close(one, (X * of_target()).sum(-1), rtol=1e-3, atol=1e-4)


def test_integrated_gradients_sum_to_the_difference_of_outputs():
    baseline = 0.3
    found = jit(lambda x: attributions.integrated_gradients(net, x, TARGET, baseline, steps=200))(X)
    whole = attributions.chosen(net, TARGET)
    np.testing.assert_allclose(found.sum((1, 2, 3)), whole(X) - whole(jnp.full_like(X, baseline)), rtol=2e-3, atol=2e-4)


def test_windows_hide_what_they_cover_and_their_mean_is_told():
    found = attributions.occlusion(net, X, TARGET, (3, 2), (2, 2), baseline=0.5)
    before, total, times = net(X), np.zeros((N, SIDE, SIDE)), np.zeros((SIDE, SIDE))
    for top in range(0, SIDE - 3 + 2, 2):
        for left in range(0, SIDE - 2 + 1, 2):
            hidden = X.at[:, top : top + 3, left : left + 2].set(0.5)
            lost = np.take_along_axis(np.asarray(before - net(hidden)), np.asarray(TARGET)[:, None], 1)[:, 0]
            total[:, top : top + 3, left : left + 2] += lost[:, None, None]
            times[top : top + 3, left : left + 2] += 1
    np.testing.assert_allclose(found, total / np.maximum(times, 1), rtol=1e-3, atol=1e-5)


def chain(rule):
    """The gradient of `net` by hand, with ReLUs of a rule."""
    p = PARAMS["params"]

    def back(dy, x):
        return {"plain": dy * (x > 0), "deconvnet": jnp.maximum(dy, 0), "guided": jnp.maximum(dy, 0) * (x > 0)}[rule]

    conv = [functools.partial(nn.Conv(f, (3, 3)).apply, {"params": p[f"Conv_{i}"]}) for i, f in enumerate((3, 5))]
    dense = [p[f"Dense_{i}"] for i in range(2)]
    a = conv[0](X)
    b = conv[1](jax.nn.relu(a))
    c = jax.nn.relu(b).reshape(N, -1) @ dense[0]["kernel"] + dense[0]["bias"]
    dy = dense[1]["kernel"].T[TARGET]
    dy = back(dy, c) @ dense[0]["kernel"].T
    dy = back(dy.reshape(b.shape), b)
    dy = back(jax.vjp(conv[1], jax.nn.relu(a))[1](dy)[0], a)
    return jax.vjp(conv[0], X)[1](dy)[0]


@pytest.mark.parametrize("rule", ["plain", "deconvnet", "guided"])
def test_relus_have_the_gradient_of_their_rule(rule):
    f = net if rule == "plain" else relus.with_rule(net, rule)
    assert_close(f(X), net(X))
    assert_close(attributions.gradient(f, X, TARGET), chain(rule), rtol=1e-4, atol=1e-7)
    assert relus.count(net, X) == 3
    assert_close(jit(lambda x: attributions.gradient(f, x, TARGET))(X), chain(rule), rtol=1e-4, atol=1e-7)


def test_grad_cam_is_the_weighted_sum_of_maps():
    assert list(layers.of(net, X)) == ["Conv_0", "Conv_1", "Dense_0", "Dense_1"]
    maps, grads = layers.gradients(lambda x: attributions.chosen(net, TARGET)(x).sum(), "Conv_1", X)
    want = jax.nn.relu(jnp.einsum("nhwc,nc->nhw", maps, grads.mean((1, 2))))
    assert_close(attributions.grad_cam(net, X, TARGET), want, rtol=1e-4, atol=1e-7)
    first = attributions.grad_cam(net, X, TARGET, "Conv_0")
    assert first.shape == (N, SIDE, SIDE)
    assert np.abs(first - want).max() > 1e-6
    both = attributions.guided_grad_cam(net, X, TARGET)
    assert_close(both, attributions.guided(net, X, TARGET) * want[..., None], rtol=1e-4, atol=1e-7)


def test_a_layer_that_is_not_there_or_gives_no_maps_is_refused():
    with pytest.raises(UserError, match=r"Conv_2.*did you mean 'Conv_"):
        attributions.grad_cam(net, X, TARGET, "Conv_2")
    with pytest.raises(UserError, match="Dense_0 gives"):
        attributions.grad_cam(net, X, TARGET, "Dense_0")
    with pytest.raises(UserError, match="no maps"):
        attributions.grad_cam(linear, X, TARGET)


def test_layers_are_kept_and_moved_without_touching_the_network():
    out, kept = layers.activations(net, ["Dense_0"])(X)
    assert_close(out, net(X))
    p = PARAMS["params"]["Dense_1"]
    assert_close(jax.nn.relu(kept["Dense_0"]) @ p["kernel"] + p["bias"], out, rtol=1e-4)
    by = jnp.ones((N, K))
    assert_close(layers.moved(net, {"Dense_1": by})(X), net(X) + 1, rtol=1e-5)


def test_areas_are_those_of_the_curve():
    """Of a sum of pixels: the order of their sizes is the best, both ways."""
    def total(x):
        return x.reshape(len(x), -1).sum(-1)[:, None] * jnp.ones((1, K))

    shade = X[..., :1]
    best, worst = shade[..., 0], -shade[..., 0]
    for area, better in ((measures.deletion, -1), (measures.insertion, 1)):
        good, bad = (area(total, shade, TARGET, order) for order in (best, worst))
        assert (better * (good - bad) > 0).all()
        np.testing.assert_allclose(good + bad, total(shade)[:, 0], rtol=0.02)  # the one is the other from the end
    curve = measures.curve(total, shade, TARGET, best, steps=SIDE * SIDE)
    np.testing.assert_allclose(curve[1], total(shade)[:, 0] - shade.max((1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(curve[-1], 0, atol=1e-6)


def test_a_faithful_attribution_has_no_infidelity():
    x = X.reshape(N, -1)
    by_weights = WEIGHTS.T[TARGET]
    f = lambda x: x @ WEIGHTS  # noqa: E731
    assert float(measures.infidelity(f, x, TARGET, by_weights, jax.random.key(0)).max()) < 1e-5
    assert float(measures.infidelity(f, x, TARGET, by_weights[:, ::-1], jax.random.key(0)).min()) > 0.1


def test_guided_backpropagation_fails_the_sanity_check_that_gradients_pass():
    """Pictures with an edge: what guided backpropagation shows is the picture's, whatever the last layers are."""
    pictures = jnp.zeros((N, SIDE, SIDE, 2)).at[:, 2:6, 3:5].set(1.0) + 0.05 * X
    names = ("Dense_1", "Dense_0")

    def similar(method):
        def explain(p):
            return method(lambda x: Net().apply(p, x), pictures, TARGET)

        found = [measures.sanity(explain, PARAMS, names, jax.random.key(i)) for i in range(8)]
        return float(np.nanmean(np.asarray(found)[:, -1]))

    assert similar(attributions.guided) > similar(attributions.gradient) + 0.1
