"""Convolutional networks have the published numbers of layers, parameters and multiplications, and a small form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import assert_close, jit

from jaxdl import nn
from jaxdl.nn import cnn

PUBLISHED = [  # name, depth, side, classes, parameters, multiplications in millions
    ("lenet", None, 32, 10, 61_706, 0.42),
    ("alexnet", None, 227, 1000, 62_378_344, 1_135),
    ("vgg", 16, 224, 1000, 138_357_544, 15_470),
    ("inception", None, 224, 1000, 6_998_552, 1_583),
    ("resnet", 18, 224, 1000, 11_689_512, 1_814),
    ("resnet", 50, 224, 1000, 25_557_032, 3_858),
    ("resnet", 20, 32, 10, 272_474, 41),
    ("densenet", 121, 224, 1000, 7_978_856, 2_834),
    ("densenet", 40, 32, 10, 1_020_186, 265),
    ("squeezenet", None, 224, 1000, 1_248_424, 819),
]


def shape(side, channels=3):
    return jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)


@pytest.mark.parametrize(("name", "depth", "side", "classes", "parameters", "millions"), PUBLISHED)
def test_a_network_costs_what_was_published(name, depth, side, classes, parameters, millions):
    found = cnn.cost(cnn.CNN(name, classes, depth=depth), shape(side, 1 if name == "lenet" else 3))
    assert found.parameters == parameters
    assert found.products == pytest.approx(1e6 * millions, rel=0.01)


class Depth:
    """The number of weight layers on the longest way, found by following values: each layer adds one."""

    def __init__(self, network, side):
        self.of = {}
        jaxpr = jax.make_jaxpr(lambda p, x: network.apply(p, x)[1])(
            jax.eval_shape(network.init, jax.random.key(0), shape(side)), shape(side))
        self.longest = max(self.follow(jaxpr.jaxpr, [0] * len(jaxpr.jaxpr.invars)))

    def follow(self, jaxpr, depths):
        of = dict(zip(jaxpr.invars, depths, strict=True)) | dict.fromkeys(jaxpr.constvars, 0)
        for eqn in jaxpr.eqns:
            inputs = [0 if hasattr(v, "val") else of[v] for v in eqn.invars]
            inner = [p.jaxpr if hasattr(p, "jaxpr") else p for p in eqn.params.values() if hasattr(p, "eqns") or
                     hasattr(getattr(p, "jaxpr", None), "eqns")]
            if eqn.primitive.name in ("conv_general_dilated", "dot_general"):
                outs = [max(inputs) + 1] * len(eqn.outvars)
            elif len(inner) == 1 and len(inner[0].invars) == len(inputs):
                outs = self.follow(inner[0], inputs)
            else:
                outs = [max(inputs, default=0)] * len(eqn.outvars)
            of |= dict(zip(eqn.outvars, outs, strict=True))
        return [0 if hasattr(v, "val") else of[v] for v in jaxpr.outvars]


@pytest.mark.parametrize(("name", "depth", "layers"), [
    ("lenet", None, 5), ("alexnet", None, 8), ("vgg", 16, 16), ("inception", None, 22), ("resnet", 20, 20), ("resnet", 50, 50),
    ("densenet", 40, 40), ("squeezenet", None, 18)])
def test_layers_are_those_on_the_longest_way(name, depth, layers, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")  # where a layer is one convolution
    side = 227 if name == "alexnet" else 224
    if depth in (20, 40) or name == "lenet":
        side = 32
    assert Depth(cnn.CNN(name, 10, depth=depth), side).longest == layers


@pytest.mark.parametrize("name", cnn.ARCHITECTURES)
def test_small_images_have_a_form_of_their_own(name):
    network = cnn.CNN(name, 7, depth=10 if name == "densenet" else None)
    features, logits = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x)[0], jnp.zeros((2, 28, 36, 1)))
    assert logits.shape == (2, 7)
    assert features.ndim == 2
    assert cnn.cost(network, shape(28, 1)).products < 1e8


def test_normalization_is_by_the_batch_while_it_learns_and_by_running_statistics_afterwards():
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (64, 4, 4, 3))
    norm = nn.BatchNorm(True)
    variables = norm.init(jax.random.key(1), x)
    y, new = norm.apply(variables, x, mutable=["batch_stats"])
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var((0, 1, 2)), 1, rtol=1e-4)
    stats = new["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(stats["mean"], 0.1 * x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * x.var((0, 1, 2)), rtol=1e-5)
    undone = {"BatchNorm_0": {"scale": jnp.sqrt(stats["var"] + 1e-5), "bias": stats["mean"]}}
    assert_close(nn.BatchNorm(False).apply({"params": undone} | new, x), x, rtol=1e-4, atol=1e-5)  # the identity
    shards = jax.vmap(lambda part: nn.BatchNorm(True, "shards").apply(variables, part, mutable=["batch_stats"]),
                      axis_name="shards")(x.reshape(4, 16, *x.shape[1:]))
    assert_close(shards[0].reshape(x.shape), y, rtol=1e-4, atol=1e-5)
    assert_close(jax.tree.map(lambda s: s[2], shards[1]), new)


@pytest.mark.parametrize(("depth", "blocks"), [(8, 3), (5, 1)])
def test_a_residual_network_begins_as_its_first_layer(depth, blocks, monkeypatch):
    """Blocks of the same shape are the identity: the scale of their last normalization is zero."""
    monkeypatch.setitem(cnn.BOTTLENECKS, 5, (1,))  # one block of three layers
    network, x = cnn.CNN("resnet", 3, depth=depth, narrower=4), jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    variables = jit(network.init)(jax.random.key(1), x)
    scales = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"]) if "scale" in str(path[-1])]
    assert sum(not s.any() for s in scales) == blocks  # one a block


def test_what_goes_into_dense_layers_is_dropped_while_it_learns_alone():
    network, x = cnn.CNN("lenet", 10, dropout=0.5), jax.random.uniform(jax.random.key(0), (4, 28, 28, 1))
    variables = jit(network.init)(jax.random.key(1), x)
    apply = jit(network.apply)
    assert_close(apply(variables, x), jit(cnn.CNN("lenet", 10).apply)(variables, x))
    one, other = (apply(variables, x, rngs={"dropout": jax.random.key(i)})[1] for i in range(2))
    assert np.abs(one - other).max() > 0.05
