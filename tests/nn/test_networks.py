"""Networks: shapes, what heads compute, precision, and initial values that are what they are said to be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from scipy import stats
from tools import products

from jaxdl import nn
from jaxdl.core.errors import UserError


def shapes(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


class Net(linen.Module):
    """Everything at once: a torso made in setup, nested modules, a head, other initializers."""

    depth: int = 1
    kernel_init: linen.initializers.Initializer = nn.lecun_uniform

    def setup(self):
        self.torso = nn.MLP((64,) * self.depth, kernel_init=self.kernel_init)
        self.head = nn.QHead(5, dueling=True)
        self.other = linen.Dense(7, kernel_init=linen.initializers.orthogonal(0.01))

    def __call__(self, x):
        x = self.torso(x)
        return self.head(x), self.other(x)


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid", "silu", "swish", "gelu", "elu", "leaky_relu"])
def test_an_mlp_ends_in_its_activation(name):
    x = jax.random.normal(jax.random.key(0), (4, 3))
    mlp = nn.MLP((6, 2), activation=name)
    params = mlp.init(jax.random.key(1), x)
    layers = params["params"]
    act = nn.activation(name)
    h = act(x @ layers["Dense_0"]["kernel"] + layers["Dense_0"]["bias"])
    np.testing.assert_allclose(mlp.apply(params, x), act(h @ layers["Dense_1"]["kernel"]), rtol=1e-5, atol=1e-6)


def test_activations_by_hand():
    x = jnp.array([-1.0, 0.0, 2.0])
    np.testing.assert_allclose(nn.activation("relu")(x), [0, 0, 2])
    np.testing.assert_allclose(nn.activation("tanh")(x), np.tanh(x), rtol=1e-6)
    np.testing.assert_allclose(nn.activation("silu")(x), x / (1 + np.exp(-x)), rtol=1e-6)
    np.testing.assert_allclose(nn.activation("elu")(x), [np.exp(-1) - 1, 0, 2], rtol=1e-6)
    np.testing.assert_allclose(nn.activation("leaky_relu")(x), [-0.01, 0, 2])


def test_an_unknown_activation_is_refused_by_name():
    with pytest.raises(UserError, match=r"no activation 'rellu'; did you mean 'relu'"):
        nn.activation("rellu")
    with pytest.raises(UserError, match=r"'xyz'; known are: elu, gelu, leaky_relu, maxout, prelu, relu"):
        nn.activation("xyz")


def test_the_nature_torso_has_its_published_shape():
    images = jnp.zeros((2, 84, 84, 4), jnp.uint8)
    params = jax.eval_shape(nn.NatureConv().init, jax.random.key(0), images)
    count = (8 * 8 * 4 + 1) * 32 + (4 * 4 * 32 + 1) * 64 + (3 * 3 * 64 + 1) * 64
    assert sum(x.size for x in jax.tree.leaves(params)) == count
    assert jax.eval_shape(nn.NatureConv().apply, params, images).shape == (2, 7 * 7 * 64)


def test_images_of_bytes_are_scaled_and_floats_are_not():
    torso = nn.NatureConv(channels=(3,), kernels=(2,), strides=(1,))
    images = jax.random.randint(jax.random.key(0), (2, 5, 5, 1), 0, 256).astype(jnp.uint8)
    params = torso.init(jax.random.key(1), images)
    np.testing.assert_allclose(torso.apply(params, images), torso.apply(params, images / 255), rtol=1e-5, atol=1e-6)
    assert torso.apply(params, images).shape == (2, 4 * 4 * 3)


def test_a_decoder_is_cropped_at_the_bottom_and_right():
    small, whole = (nn.ConvDecoder(shape, (3, 2)) for shape in ((5, 6, 1), (8, 8, 1)))  # both begin with 2 x 2
    z = jnp.ones((1, 4))
    params = nn.init(whole, jax.random.key(0), z)
    np.testing.assert_allclose(small.apply(params, z), whole.apply(params, z)[:, :5, :6], rtol=1e-5, atol=1e-6)


def test_a_dueling_head_is_value_plus_centred_advantage():
    x = jax.random.normal(jax.random.key(0), (6, 3))
    head = nn.QHead(4, dueling=True)
    params = head.init(jax.random.key(1), x)
    (advantage, value) = (params["params"][name]["kernel"] for name in ("Dense_0", "Dense_1"))
    assert (advantage.shape, value.shape) == ((3, 4), (3, 1))
    q = head.apply(params, x)
    np.testing.assert_allclose(q.mean(-1), (x @ value)[:, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(q - q[:, :1], x @ advantage - (x @ advantage)[:, :1], rtol=1e-4, atol=1e-5)


def test_dueling_distributions_have_the_mean_over_actions_atom_by_atom():
    head, x = nn.QHead(4, dueling=True, atoms=3), jax.random.normal(jax.random.key(0), (6, 5))
    params = head.init(jax.random.key(1), x)
    advantage, value = (params["params"][f"Dense_{i}"]["kernel"] for i in range(2))
    assert (advantage.shape, value.shape) == ((5, 12), (5, 3))
    q = head.apply(params, x)
    np.testing.assert_allclose(q.mean(1), x @ value, rtol=1e-5, atol=1e-6)
    of_action = (x @ advantage).reshape(6, 4, 3)
    np.testing.assert_allclose(q - q[:, :1], of_action - of_action[:, :1], rtol=1e-4, atol=1e-5)


def test_plain_heads_are_linear():
    x = jax.random.normal(jax.random.key(0), (6, 3))
    for head, count in ((nn.QHead(4), 1), (nn.CategoricalHead(4), 1), (nn.GaussianHead(4), 2)):
        params = head.init(jax.random.key(1), x)
        out = jax.tree.leaves(head.apply(params, x))
        assert [o.shape for o in out] == [(6, 4)] * count
        assert [o.dtype for o in out] == [jnp.float32] * count
    gaussian = head.init(jax.random.key(1), x)["params"]
    mean, log_var = head.apply({"params": gaussian}, x)
    np.testing.assert_allclose(mean, x @ gaussian["mean"]["kernel"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(log_var, x @ gaussian["log_var"]["kernel"], rtol=1e-5, atol=1e-6)


X = jnp.linspace(-1, 1, 24).reshape(4, 6)


@pytest.mark.parametrize(("network", "x"), [
    (nn.MLP((32, 8)), X), (nn.MLP((8,), noisy=0.5), X), (nn.ConvDecoder((6, 5, 2), (3, 2)), X),
    (nn.NatureConv((4,), (3,), (2,)), jnp.arange(98, dtype=jnp.uint8).reshape(2, 7, 7, 1)),
    (nn.ConvEncoder((3, 2)), jnp.linspace(-1, 1, 98).reshape(2, 7, 7, 1)),
], ids=lambda x: type(x).__name__ if hasattr(x, "apply") else "")
def test_layers_multiply_in_bfloat16_and_parameters_and_outputs_are_float32(network, x):
    params, half = network.init(jax.random.key(0), x), network.clone(dtype="bfloat16")
    assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    assert products(jax.make_jaxpr(network.apply)(params, x).jaxpr) == {"float32"}
    last = {"float32"} if isinstance(network, nn.ConvDecoder) else set()
    assert products(jax.make_jaxpr(half.apply)(params, x).jaxpr) == {"bfloat16"} | last
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=0.03, strict=True),
                 half.apply(params, x), network.apply(params, x))


@pytest.mark.parametrize(("initializer", "variance"), [
    (nn.lecun_uniform, 1 / 100), (nn.he_uniform, 2 / 100), (nn.glorot_uniform, 2 / 400),
])
def test_uniform_initializers_have_their_published_variance(initializer, variance):
    kernel = initializer(jax.random.key(0), (5, 5, 4, 12))  # fan-in 100, fan-out 300
    bound = np.sqrt(3 * variance)
    assert stats.kstest(kernel.ravel(), stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-3
    oracle = {nn.lecun_uniform: linen.initializers.lecun_uniform, nn.he_uniform: linen.initializers.he_uniform,
              nn.glorot_uniform: linen.initializers.glorot_uniform}[initializer]()
    np.testing.assert_allclose(kernel, oracle(jax.random.key(0), (5, 5, 4, 12)), rtol=1e-5, atol=1e-7)


def test_init_has_flaxs_tree_and_distribution():
    x = jnp.zeros((1, 40))
    net = Net(depth=2, kernel_init=nn.he_uniform)
    params = jax.jit(lambda k: nn.init(net, k, x))(jax.random.key(0))
    reference = net.init(jax.random.key(0), x)
    assert shapes(params) == shapes(reference)
    for layer, variance in (("Dense_0", 2 / 40), ("Dense_1", 2 / 64)):
        kernel, bound = params["params"]["torso"][layer]["kernel"], np.sqrt(3 * variance)
        assert stats.kstest(kernel.ravel(), stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-3
        assert not params["params"]["torso"][layer]["bias"].any()
    assert abs(np.asarray(params["params"]["head"]["Dense_0"]["kernel"])).max() <= np.sqrt(3 / 64)
    # what does not begin uniform is flax's own
    np.testing.assert_allclose(params["params"]["other"]["kernel"], reference["params"]["other"]["kernel"], atol=1e-6)


def test_init_draws_every_kernel_anew():
    params = nn.init(nn.MLP((50, 50, 50)), jax.random.key(0), jnp.zeros((1, 50)))["params"]
    a, b, c = (np.asarray(params[f"Dense_{i}"]["kernel"]).ravel() for i in range(3))
    np.testing.assert_allclose(np.corrcoef([a, b, c]), np.eye(3), atol=0.08)
    other = nn.init(nn.MLP((50, 50, 50)), jax.random.key(1), jnp.zeros((1, 50)))["params"]
    assert not np.allclose(a, np.asarray(other["Dense_0"]["kernel"]).ravel())


def test_init_under_vmap_and_jit_is_init():
    def make(key):
        return nn.init(Net(), key, jnp.zeros((1, 4)))

    keys = jax.random.split(jax.random.key(5), 3)
    together = jax.jit(jax.vmap(make))(keys)
    alone = jax.tree.map(lambda *xs: jnp.stack(xs), *(jax.jit(make)(k) for k in keys))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7), together, alone)


class Lifted(linen.Module):
    """Four layers with stacked parameters: their kernels' leading axis is no window."""

    @linen.compact
    def __call__(self, x):
        stack = linen.vmap(linen.Dense, {"params": 0}, {"params": True}, in_axes=None, axis_size=4)
        return stack(30, kernel_init=nn.lecun_uniform)(x)


def test_layers_of_a_lifted_module_begin_apart_and_by_the_fan_of_one():
    (kernel,) = (x for x in jax.tree.leaves(nn.init(Lifted(), jax.random.key(0), jnp.zeros((1, 20)))) if x.ndim == 3)
    assert kernel.shape == (4, 20, 30)
    bound = (3 / 20) ** 0.5
    assert 0.99 * bound < jnp.abs(kernel).max() <= bound
    assert jnp.std(kernel, (1, 2)) == pytest.approx(np.full(4, 20**-0.5), rel=0.06)
    assert np.abs(np.corrcoef(kernel.reshape(4, -1)) - np.eye(4)).max() < 0.2


def test_init_compiles_one_draw_whatever_the_depth():
    def loops(init, depth):  # each hash of a key is a loop on a CPU
        net = nn.MLP((8,) * depth)
        lowered = jax.jit(lambda k: init(net, k, jnp.zeros((1, 4)))).lower(jax.random.key(0))
        return lowered.compile().as_text().count(" while(")

    assert loops(nn.init, 2) == loops(nn.init, 5) > 0
    assert loops(lambda net, k, x: net.init(k, x), 5) > 3 * loops(nn.init, 5)
