"""Rules that need the loss, and SOAP: against closed forms, optax, numpy, and on several shards."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen
from jax.flatten_util import ravel_pytree
from tools import assert_close

from jaxdl import nn, optim
from jaxdl.core.errors import UserError
from jaxdl.core.types import Mean
from jaxdl.ops import losses
from jaxdl.optim import Config
from jaxdl.optim.kfac import factors_of
from jaxdl.optim.second_order import solve

KEY = jax.random.key(0)


def rosenbrock(params, batch, key):
    x, y = params["w"]
    loss = (1 - x) ** 2 + 100 * (y - x**2) ** 2 + 0 * batch.sum()
    return loss, {"loss": Mean.of(loss)}


@pytest.mark.parametrize(("name", "updates"), [("lbfgs", 45), ("newton_cg", 30)])
def test_curvature_crosses_rosenbrocks_valley(name, updates):
    config = Config(optimizer=name, damping=1e-6)
    optimizer = optim.make(config, updates)

    @jax.jit
    def run(params):
        def body(carry, _):
            params, opt, aux = optim.minimize(optimizer, rosenbrock, *carry, jnp.zeros(1), KEY, config)
            return (params, opt), aux["loss"].total

        return jax.lax.scan(body, (params, optimizer.init(params)), None, updates)

    (params, _), falls = run({"w": jnp.array([-1.2, 1.0])})
    np.testing.assert_allclose(params["w"], [1, 1], atol=1e-3)
    np.testing.assert_allclose(falls[0], 24.2, rtol=1e-6)  # of the parameters before the update
    assert np.all(np.diff(falls) <= 1e-6)


def test_conjugate_gradients_solve_and_stop_where_the_loss_curves_down():
    a = np.array(jax.random.normal(KEY, (6, 6)))
    a, g = jnp.array(a @ a.T + np.eye(6)), jnp.arange(1.0, 7.0) / 1e4
    d = solve(lambda v: a @ v, g, 50)
    assert np.linalg.norm(a @ d + g) <= np.sqrt(np.linalg.norm(g)) * np.linalg.norm(g)
    np.testing.assert_allclose(d, -np.linalg.solve(a, g), rtol=0.05, atol=1e-6)
    np.testing.assert_allclose(solve(lambda v: -v, g, 50), -g)  # the gradient itself
    exact = solve(lambda v: jnp.array([1.0, -1.0]) * v, jnp.array([1.0, 0.1]), 50)
    assert exact @ jnp.array([1.0, 0.1]) < 0
    np.testing.assert_allclose(solve(lambda v: a @ v, g, 1), -g * (g @ g) / (g @ a @ g), rtol=1e-5)  # steepest descent


class Net(linen.Module):
    """A convolution, a dense layer, and a scale that is no layer."""

    @linen.compact
    def __call__(self, x):
        x = jnp.tanh(nn.Conv(3, (3, 3), (2, 2))(x))
        return nn.Dense(4)(x.reshape(len(x), -1) * self.param("gain_scale", linen.initializers.ones, ()))


NET = Net()
IMAGES = jax.random.normal(jax.random.key(1), (12, 5, 5, 2))
BATCH = {"x": IMAGES, "y": jax.random.randint(jax.random.key(2), (12,), 0, 4)}
PARAMS = NET.init(KEY, IMAGES)


def loss_fn(params, batch, key):
    loss = losses.cross_entropy(NET.apply(params, batch["x"]), batch["y"])
    return loss.mean(), {"loss": Mean.of(loss)}


RULES = {"lbfgs": {}, "newton_cg": {"damping": 0.1}, "kfac": {"learning_rate": 0.1, "max_kl": 0.1}}


@pytest.mark.parametrize("name", RULES)
def test_rules_lower_a_loss_and_are_the_same_on_shards_and_in_microbatches(name):
    def run(n=1, axis_name=None, batch=BATCH):
        config = Config(optimizer=name, l2=1e-3, grad_accumulation=n, **RULES[name])
        optimizer = optim.make(config, 5)

        def body(carry, _):
            params, opt, aux = optim.minimize(optimizer, loss_fn, *carry, batch, KEY, config, axis_name)
            return (params, opt), aux["loss"].total / aux["loss"].count

        return jax.lax.scan(body, (PARAMS, optimizer.init(PARAMS)), None, 5 if n == 1 and axis_name is None else 2)

    (_, losses_of_whole) = jax.jit(run)()
    assert losses_of_whole[-1] < 0.75 * losses_of_whole[0]
    if name == "kfac":  # its targets are drawn, others for each part
        return
    (params, _), in_parts = jax.jit(functools.partial(run, 3))()
    np.testing.assert_allclose(in_parts, losses_of_whole[:2], rtol=1e-4)
    shards = jax.tree.map(lambda x: x.reshape(2, 6, *x.shape[1:]), BATCH)
    (shared, _), _ = jax.jit(jax.vmap(lambda batch: run(1, "shards", batch), axis_name="shards"))(shards)
    for shard in range(2):
        assert_close(jax.tree.map(lambda x: x[shard], shared), params, rtol=1e-3, atol=1e-4)  # noqa: B023


def test_l2_is_a_part_of_what_is_minimized():
    """A quadratic with a penalty has its minimum in closed form."""
    target = jnp.array([[1.0, -2.0], [3.0, 0.5]])

    def quadratic(params, batch, key):
        return losses.squared(params["kernel"] - target).sum() + losses.squared(params["bias"] - 1).sum(), {}

    for biases in (False, True):
        config = Config(optimizer="lbfgs", l2=3.0, penalize_biases=biases)
        optimizer = optim.make(config, 1)
        params = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
        update = jax.jit(lambda params, opt, optimizer=optimizer, config=config: optim.minimize(
            optimizer, quadratic, params, opt, jnp.zeros(1), KEY, config))
        opt = optimizer.init(params)
        for _ in range(6):
            params, opt, _ = update(params, opt)
        np.testing.assert_allclose(params["kernel"], target / 4, rtol=1e-4)
        np.testing.assert_allclose(params["bias"], 1 / 4 if biases else 1, rtol=1e-4)


@pytest.mark.parametrize("kind", ["ours", "flax"])
def test_factors_multiply_to_the_square_of_an_examples_gradient(kind):
    """Of a dense layer on one example, and of a convolution with one place, the Kronecker product is exact."""
    dense, conv = (nn.Dense, nn.Conv) if kind == "ours" else (linen.Dense, linen.Conv)
    x = IMAGES[:1, :3, :3]

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            return conv(4, (3, 3), padding="VALID")(x)[0, 0, 0], dense(4)(x.reshape(-1))

    params = Net().init(KEY, x)

    def squares(params):
        """Of each layer and label, the products of an example's gradient with itself."""
        jacobian = jax.jacrev(lambda p: [jnp.stack([losses.cross_entropy(logits, jnp.array(k)) for k in range(4)])
                                         for logits in Net().apply(p, x)])(params)
        for i, layer in enumerate(("Conv_0", "Dense_0")):
            grads = jacobian[i]["params"][layer]
            matrix = jnp.concatenate([grads["kernel"].reshape(4, -1, 4), grads["bias"][:, None]], 1)
            yield layer, jnp.einsum("bij,bkl->bikjl", matrix, matrix)

    def likelihood(params, batch, key):
        conv, dense = Net().apply(params, batch)
        return losses.cross_entropy(jnp.stack([conv, dense]), jnp.zeros(2, jnp.int32)).sum(), {}

    found, expected = jax.jit(lambda: factors_of(likelihood, params, x, KEY))(), dict(squares(params))
    assert len(found) == 2
    for name, (a, g) in found.items():
        product = np.einsum("ik,jl->ikjl", a, g)
        (of_labels,) = (square for layer, square in expected.items() if layer in name)
        assert min(np.abs(product - square).max() for square in of_labels) < 1e-5 * np.abs(product).max()  # one was drawn


def test_kfacs_fisher_matrix_is_the_mean_over_draws():
    """A dense layer's G: the mean over draws of (p - onehot)(p - onehot)^T is diag(p) - p p^T."""
    layer, x = nn.Dense(4), jax.random.normal(KEY, (4000, 3))
    params = layer.init(KEY, x)

    def likelihood(params, batch, key):
        return losses.cross_entropy(layer.apply(params, batch), jnp.zeros(4000, jnp.int32)).mean(), {}

    (factors,) = jax.jit(lambda: factors_of(likelihood, params, x, KEY))().values()
    ones = np.concatenate([x, np.ones((4000, 1))], 1)
    np.testing.assert_allclose(factors.inputs, ones.T @ ones / 4000, rtol=1e-4, atol=1e-4)
    p = np.array(jax.nn.softmax(layer.apply(params, x)))
    np.testing.assert_allclose(factors.outputs, (np.eye(4) * p.mean(0)) - p.T @ p / 4000, atol=0.02)


def test_a_first_step_of_kfac_is_the_damped_natural_gradient():
    layer, x, y = nn.Dense(4), jax.random.normal(KEY, (12, 3)), BATCH["y"]
    params = layer.init(KEY, x)

    def likelihood(params, batch, key):
        return losses.cross_entropy(layer.apply(params, batch), y).mean(), {}

    config = Config(optimizer="kfac", learning_rate=0.5, momentum=0.9, damping=0.01, max_kl=1e6)
    optimizer = optim.make(config, 1)
    new, _, _ = optim.minimize(optimizer, likelihood, params, optimizer.init(params), x, KEY, config)
    (factors,) = factors_of(likelihood, params, x, KEY).values()
    grads = jax.grad(lambda p: likelihood(p, x, KEY)[0])(params)["params"]
    a, g = np.array(factors.inputs, np.float64), np.array(factors.outputs, np.float64)
    pi = np.sqrt((np.trace(a) / 4) / (np.trace(g) / 4))
    matrix = np.concatenate([grads["kernel"], grads["bias"][None]])
    step = np.linalg.inv(a + pi * 0.1 * np.eye(4)) @ matrix @ np.linalg.inv(g + 0.1 / pi * np.eye(4))
    moved = jax.tree.map(jnp.subtract, new, params)["params"]
    np.testing.assert_allclose(np.concatenate([moved["kernel"], moved["bias"][None]]), -0.5 * step, rtol=1e-3, atol=1e-4)
    bounded, _, _ = optim.minimize(optim.make(Config(optimizer="kfac", learning_rate=0.5, damping=0.01, max_kl=1e-4), 1),
                                   likelihood, params, optimizer.init(params), x, KEY, config)
    short, full = (ravel_pytree(jax.tree.map(jnp.subtract, p, params))[0] for p in (bounded, new))
    scale = np.sqrt(1e-4 / (0.25 * np.sum(step * matrix) / 2))
    np.testing.assert_allclose(short, scale * full, rtol=1e-3, atol=1e-6)


def test_layers_within_a_scan_step_along_their_gradient():
    cell, tokens = nn.RNN(3), jax.random.normal(KEY, (5, 2, 4))
    params = cell.init(KEY, jnp.zeros((2, 3)), cell.init_with_output(KEY, tokens, method="project")[0][0], method="step")
    params = {"params": params["params"] | cell.init(KEY, tokens, method="project")["params"]}

    def loss(params, batch, key):
        return losses.squared(nn.unroll(cell, params, nn.zero_carry("rnn", 3, 2), tokens)[1] - 1).mean(), {}

    assert list(factors_of(loss, params, jnp.zeros(2), KEY)) == ["['params']['inputs']['kernel']"]


def test_soap_is_adam_in_a_basis_that_does_not_depend_on_the_axes():
    """Rotating the inputs and outputs of a kernel rotates SOAP's path, and not Adam's."""
    turn, other = (jnp.linalg.qr(jax.random.normal(jax.random.key(i), (2, 2)))[0] for i in (1, 2))
    target = jax.random.normal(jax.random.key(3), (2, 2))
    scales = jnp.array([10.0, 1.0])[:, None]

    def path(name, turn, other):
        tx = optim.transform(Config(optimizer=name, learning_rate=0.1, beta2=0.9, soap_every=2), 9)
        params = {"kernel": jnp.zeros((2, 2))}
        state = tx.init(params)
        for _ in range(6):
            grads = {"kernel": turn @ (scales * (turn.T @ params["kernel"] @ other - target)) @ other.T}
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return turn.T @ params["kernel"] @ other

    plain, turned = path("soap", jnp.eye(2), jnp.eye(2)), path("soap", turn, other)
    np.testing.assert_allclose(turned, plain, atol=2e-2)  # 1e-3 to 6e-3 by how a processor rounds
    assert np.abs(path("adam", turn, other) - path("adam", jnp.eye(2), jnp.eye(2))).max() > 0.2


@pytest.mark.parametrize("correction", [True, False])
def test_soap_without_a_basis_to_find_is_adam(correction):
    """The gradients of a one by one kernel have no direction but their sign; what is no kernel is Adam's."""
    how = {"learning_rate": 0.1, "beta1": 0.7, "beta2": 0.9, "bias_correction": correction}
    params = {"kernel": jnp.full((2, 1, 1), 0.5), "bias": jnp.array([1.0, -3.0])}

    def end(name):
        tx = optim.transform(Config(optimizer=name, **how), 1)
        x, state = params, tx.init(params)
        if name == "soap":  # its first update moves no kernel
            _, state = tx.update(jax.tree.map(jnp.ones_like, x), state, x)
            state = (state[0]._replace(adam=tx.init(params)[0].adam), *state[1:])
        for i in range(9):
            updates, state = tx.update(jax.tree.map(lambda p: jnp.sin(p + i), x), state, x)  # noqa: B023
            x = optax.apply_updates(x, updates)
        return x

    assert_close(end("soap"), end("adam"), rtol=1e-4)


def test_adam_without_its_correction_begins_with_too_long_steps():
    """Kingma & Ba, section 3: the mean of squares begins at zero, so its root is sqrt(1 - b2) too small, the mean 1 - b1."""
    tx = optim.transform(Config(learning_rate=1.0, bias_correction=False, eps=1e-30), 1)
    params, grads = {"w": jnp.zeros(3)}, {"w": jnp.array([1e-3, -1.0, 30.0])}
    updates, state = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(updates["w"], -np.sign(grads["w"]) * 0.1 / np.sqrt(0.001), rtol=1e-5)
    m, v = 0.1, 0.001
    for _ in range(5):
        m, v = 0.9 * m + 0.1, 0.999 * v + 0.001
        updates, state = tx.update(grads, state, params)
        np.testing.assert_allclose(updates["w"], -np.sign(grads["w"]) * m / np.sqrt(v), rtol=1e-5)


@pytest.mark.parametrize("growth", [1.0, 2.0])
def test_cycles_restart(growth):
    config = Config(schedule="cyclic", learning_rate=2.0, final_fraction=0.1, lr_cycles=3, lr_cycle_growth=growth)
    rate = jax.jit(lambda c, n: optim.learning_rate(c, 2100)(n))
    ends = {1.0: [0, 700, 1400, 2100], 2.0: [0, 300, 900, 2100]}[growth]
    for begin, end in itertools.pairwise(ends):
        np.testing.assert_allclose(rate(config, jnp.array([begin, (begin + end) / 2])), [2, 1.1], rtol=1e-3)
        assert float(rate(config, end - 0.01)) == pytest.approx(0.2, rel=1e-3)
    assert float(rate(config, 10**6)) == pytest.approx(0.2)


def test_max_norm_shortens_the_incoming_weights_of_each_unit():
    params = {"dense": {"kernel": jnp.array([[3.0, 0.1], [4.0, 0.2]]), "bias": jnp.array([9.0, 9.0])},
              "conv": {"kernel": jnp.ones((3, 3, 4, 2))}, "layers": {"kernel": jnp.stack([jnp.eye(2), 9 * jnp.eye(2)])}}
    optimizer = optim.make(Config(optimizer="sgd", max_norm=2.0), 1)
    new, _ = optimizer.step(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    np.testing.assert_allclose(new["dense"]["kernel"], [[1.2, 0.1], [1.6, 0.2]], rtol=1e-6)
    np.testing.assert_allclose(new["dense"]["bias"], 9)
    np.testing.assert_allclose(new["conv"]["kernel"], 2 / 6, rtol=1e-6)
    np.testing.assert_allclose(new["layers"]["kernel"], [np.eye(2), 2 * np.eye(2)], rtol=1e-6)


def test_max_norm_holds_for_kfac_too():
    layer, x, y = nn.Dense(4), jax.random.normal(KEY, (12, 3)), BATCH["y"]
    params = jax.tree.map(lambda w: 9 * w, layer.init(KEY, x))
    config = Config(optimizer="kfac", max_norm=0.5)
    optimizer = optim.make(config, 1)
    new, _, _ = optim.minimize(optimizer, lambda p, batch, key: (losses.cross_entropy(layer.apply(p, batch), y).mean(), {}),
                               params, optimizer.init(params), x, KEY, config)
    np.testing.assert_allclose(jnp.linalg.norm(new["params"]["kernel"], axis=0), 0.5, rtol=1e-5)


def test_biases_are_penalized_when_asked():
    params = {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.full(2, 3.0), "scale": jnp.full(2, 5.0)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    for more in ({"optimizer": "sgd", "l2": 0.1, "l1": 0.5}, {"optimizer": "adamw", "weight_decay": 0.1}):
        tx = optim.transform(Config(learning_rate=1.0, penalize_biases=True, **more), 1)
        updates, _ = tx.update(zeros, tx.init(params), params)
        one = 0.5 if "l1" in more else 0
        np.testing.assert_allclose(updates["kernel"], -0.2 - one, rtol=1e-6)
        np.testing.assert_allclose(updates["bias"], -0.3 - one, rtol=1e-6)
        assert not updates["scale"].any()


@pytest.mark.parametrize("name", RULES)
def test_rules_that_need_the_loss_are_refused_where_there_is_none(name):
    with pytest.raises(UserError, match=f"optimizer={name} .*adam"):
        optim.validate(Config(optimizer=name))
    optim.validate(Config(optimizer=name), minimizes=True)
    with pytest.raises(UserError, match=f"optimizer={name} .*minimize"):
        optim.transform(Config(optimizer=name), 1)
    with pytest.raises(UserError, match="penalize_biases=True"):
        optim.validate(Config(penalize_biases=True))


def test_a_part_of_the_dataset_is_warned_of():
    sentence = optim.warn_stochastic(Config(optimizer="lbfgs"), 100, 1500)
    for word in ("optimizer=lbfgs", "batch_size=100", "batch_size=1500"):
        assert word in sentence
    assert optim.warn_stochastic(Config(optimizer="newton_cg"), 1500, 1500) is None
    assert optim.warn_stochastic(Config(optimizer="kfac"), 100, 1500) is None
