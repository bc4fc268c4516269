"""Activations that learn or take several numbers, initial weights by name, and that all networks take them."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from scipy import stats

from jaxdl import nn
from jaxdl.agents import dqn, ppo
from jaxdl.core.compile import TRAIN_OPTIONS
from jaxdl.core.errors import UserError
from jaxdl.core.types import DataSpec
from jaxdl.generative import autoencoder, gan, vae, vqvae
from jaxdl.generative.pixel import pixelcnn
from jaxdl.rl import policy
from jaxdl.rl.types import EnvSpec

KEY = jax.random.key(0)


def test_prelu_learns_its_slope_and_maxout_takes_the_larger_half():
    x = jnp.array([[-1.0, 2.0, -3.0, 4.0]])
    np.testing.assert_allclose(nn.activation("maxout")(x), [[-1, 4]])

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            return nn.activation("prelu")(x)

    params = Net().init(KEY, x)
    np.testing.assert_allclose(Net().apply(params, x), [[-0.25, 2, -0.75, 4]])
    slope = jax.grad(lambda p: Net().apply(p, x).sum())(params)["params"]["PReLU_0"]["slope"]
    np.testing.assert_allclose(slope, [-1, 0, -3, 0])


@pytest.mark.parametrize("name", ["maxout", "prelu"])
def test_widths_are_of_what_comes_out(name):
    x = jnp.ones((2, 8, 8, 1))
    for module, shape in ((nn.MLP((6, 2), activation=name), (2, 8, 8, 2)), (nn.ConvEncoder((4, 6), name), (2, 2, 2, 6))):
        out, params = jax.eval_shape(lambda module=module: module.init_with_output(KEY, x))
        assert out.shape == shape
        widths = [leaf.shape[-1] for path, leaf in jax.tree_util.tree_leaves_with_path(params) if "kernel" in str(path)]
        assert widths == [nn.pieces(name) * width for width in module.__dict__.get("features", None) or module.channels]
    out = jax.eval_shape(lambda: nn.ConvDecoder((8, 8, 1), (6, 4), name).init_with_output(KEY, jnp.ones((2, 3)))[0])
    assert out.shape == (2, 8, 8, 1)


DISTRIBUTIONS = {"normal": stats.norm(0, 0.3), "xavier": stats.uniform(-np.sqrt(6 / 500), 2 * np.sqrt(6 / 500)),
                 "he": stats.uniform(-np.sqrt(6 / 300), 2 * np.sqrt(6 / 300)),
                 "lecun": stats.uniform(-np.sqrt(3 / 300), 2 * np.sqrt(3 / 300))}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_kernels_have_the_distribution_of_their_name(name):
    layer = nn.Dense(200)
    given = nn.Initial(initializer=name, init_scale=0.3 if name == "normal" else None, bias_init=0.1)
    params = nn.init(layer, KEY, jnp.zeros((1, 300)), initial=given)["params"]
    assert stats.kstest(np.ravel(params["kernel"])[::7], DISTRIBUTIONS[name].cdf).pvalue > 1e-3
    np.testing.assert_allclose(params["bias"], 0.1)
    alone = nn.initializer(name, 0.3)(KEY, (300, 200))
    assert stats.kstest(np.ravel(alone)[::7], DISTRIBUTIONS[name].cdf).pvalue > 1e-3


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (2, 2, 3, 4), (4, 4)])
def test_orthogonal_kernels_keep_lengths(shape):
    kernel = np.reshape(nn.initializer("orthogonal", 2.0)(KEY, shape), (-1, shape[-1]))
    small = kernel if kernel.shape[0] >= kernel.shape[1] else kernel.T
    np.testing.assert_allclose(small.T @ small, 4 * np.eye(small.shape[1]), atol=1e-5)


def test_one_draw_serves_layers_of_every_kind():
    """Orthogonal ones in a stack are so one by one, and no two layers are alike."""
    class Layer(linen.Module):
        @linen.compact
        def __call__(self, x, _):
            return nn.Dense(4)(x), None

    stack = linen.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)()
    kernels = nn.init(stack, KEY, jnp.zeros((1, 4)), None, initial=nn.Initial(initializer="orthogonal"))
    kernels = kernels["params"]["Dense_0"]["kernel"]
    np.testing.assert_allclose(kernels.mT @ kernels, np.stack([np.eye(4)] * 3), atol=1e-5)
    assert np.abs(kernels[0] - kernels[1]).max() > 0.1


class Net(linen.Module):
    """Layers whose initial weights are usual, and such whose own are meant."""

    @linen.compact
    def __call__(self, x):
        x = nn.Dense(3)(linen.Dense(3)(x))
        x = linen.BatchNorm(use_running_average=True)(x)
        return nn.Dense(2, kernel_init=nn.Uniform(2e-4, "in"), name="small")(x)


def test_what_is_meant_to_be_small_stays():
    usual = nn.init(Net(), KEY, jnp.ones((1, 3)))
    zero = nn.init(Net(), KEY, jnp.ones((1, 3)), initial=nn.Initial(initializer="zeros", bias_init=0.5))["params"]
    assert not zero["Dense_0"]["kernel"].any()
    assert not zero["Dense_1"]["kernel"].any()
    np.testing.assert_allclose(zero["Dense_1"]["bias"], 0.5)
    assert not zero["BatchNorm_0"]["bias"].any()
    assert 0 < np.abs(zero["small"]["kernel"]).max() < 0.02
    assert not zero["small"]["bias"].any()
    same = nn.init(Net(), KEY, jnp.ones((1, 3)), initial=nn.Initial())
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), usual, same))


IMAGES = DataSpec("digits", 100, (8, 8, 1), 10)
SPEC = EnvSpec("two actions", gymnasium.spaces.Box(-1, 1, (3,), np.float32), gymnasium.spaces.Discrete(2), None)
NETWORKS = {
    "dqn": lambda how: dqn.make(dqn.Config(init=how, hidden_sizes=(4,)), SPEC),
    "ppo": lambda how: ppo.make(ppo.Config(policy=policy.Config(init=how, hidden_sizes=(4,), recurrent="gru")), SPEC),
    "vae": lambda how: vae.make(vae.Config(init=how, hidden_sizes=(4,)), IMAGES),
    "autoencoder": lambda how: autoencoder.make(autoencoder.Config(init=how, conv_channels=(2,), hidden_sizes=(4,)), IMAGES),
    "vqvae": lambda how: vqvae.make(vqvae.Config(init=how, conv_channels=(2,)), IMAGES),
    "gan": lambda how: gan.make(gan.Config(init=how, width=2, hidden_size=None), IMAGES),
    "pixelcnn": lambda how: pixelcnn.make(pixelcnn.Config(init=how, width=2, num_blocks=1, head_features=2), IMAGES)}
MEANT = {"ppo": 1}  # kernels that stay: the policy's last layer


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_takes_them(name):
    learner = NETWORKS[name](nn.Initial(initializer="zeros", bias_init=0.25)).learner
    state = jax.jit(learner.init, compiler_options=TRAIN_OPTIONS)(KEY)
    trees = (state.generator["params"], state.discriminator) if name == "gan" else (state.params,)
    leaves = [(str(path[-1].key), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(trees)]
    kernels = [leaf for last, leaf in leaves if last == "kernel"]
    assert len(kernels) >= 2
    assert sum(bool(kernel.any()) for kernel in kernels) == MEANT.get(name, 0)
    assert any((leaf == 0.25).all() for last, leaf in leaves if last == "bias")


def test_what_makes_no_sense_is_refused():
    with pytest.raises(UserError, match="init_scale must be above 0, got -1"):
        vae.validate(vae.Config(init=nn.Initial(initializer="normal", init_scale=-1.0)))
    with pytest.raises(UserError, match=r"init_scale=0\.1 is of initializer=normal or orthogonal"):
        ppo.validate(ppo.Config(policy=policy.Config(init=nn.Initial(initializer="he", init_scale=0.1))))
    with pytest.raises(UserError, match="bias_init must be a finite number"):
        dqn.validate(dqn.Config(init=nn.Initial(bias_init=float("nan"))))
    with pytest.raises(UserError, match="activation 'rellu'"):
        vqvae.validate(vqvae.Config(activation="rellu"))
