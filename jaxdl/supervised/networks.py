"""Networks by name, for learners of inputs and targets: dense, convolutional, and those of `nn.cnn`, as published.

Shapes: `B` batch, `...` one input, `F` features, `K` outputs.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl import nn
from jaxdl.core.errors import UserError
from jaxdl.core.types import Array, DataSpec, Key, PyTree
from jaxdl.nn import cnn
from jaxdl.nn.hierarchical import Tree
from jaxdl.ops.pixels import to_unit

Name = Literal["mlp", "conv", "lenet", "alexnet", "vgg", "inception", "resnet", "densenet", "squeezenet"]
POOLED = ("lenet", "vgg")  # what has pools over 2x2, which may be fractional


class Variables(NamedTuple):
    """What a trained network is."""

    params: PyTree
    stats: PyTree  # running statistics of normalization, {} where there are none
    fold: Array | None = None  # int32 (): the fold that it did not learn from, of a cross-validation


class Net(NamedTuple):
    """A network as functions of its variables. Inputs are as the dataset has them."""

    init: Callable[[Key], Variables]
    apply: Callable[..., Array]  # (variables, inputs [B, ...], key=None: what is random is so) -> outputs [B, K]
    features: Callable[[Variables, Array], Array]  # (variables, inputs) -> [B, F]
    learn: Callable[..., tuple[Array, PyTree]]  # (variables, inputs, key, labels=None) -> outputs and new statistics


class Network(linen.Module):
    """[B, ...] -> features [B, F] and outputs [B, K]."""

    network: Name
    num_outputs: int
    hidden_sizes: tuple[int, ...] = (128,)  # of mlp and conv
    conv_channels: tuple[int, ...] = (32, 64)  # of conv
    depth: int | None = None
    narrower: int | None = None
    activation: str = "relu"
    norm: Literal["batch", "layer", "group"] | None = None
    pool: Literal["max", "fractional"] = "max"
    dropout: float | Array | None = None
    input_dropout: float | Array | None = None
    stochastic_depth: float | Array | None = None
    tree: Tree | None = None  # of a hierarchical softmax, whose outputs are log-probabilities
    axis_name: str | None = None
    dtype: Any = "float32"
    small: bool | None = None  # the form of networks of `nn.cnn`: that of the images it was made for, whatever it is given

    @linen.compact
    def __call__(self, x: Array, train: bool = False, labels: Array | None = None) -> tuple[Array, Array]:
        """With `labels` [B] the outputs of a hierarchical softmax are those of the labels alone, [B]."""
        x = nn.dropout_in(self, x, self.input_dropout)
        if self.network in cnn.ARCHITECTURES:
            features, outputs = cnn.CNN(
                self.network, None if self.tree else self.num_outputs, self.depth, self.narrower, self.activation, self.dropout,
                self.stochastic_depth, self.norm, self.pool, self.axis_name, self.dtype, self.small, name="cnn")(
                    x, train)
        else:
            features, outputs = self._dense(x, train), None
        if self.tree:
            return features, nn.HierarchicalHead(self.tree, name="head")(features, labels)
        return features, nn.Dense(self.num_outputs, name="head")(features) if outputs is None else outputs

    def _dense(self, x: Array, train: bool) -> Array:
        """Dense layers, for conv above convolutions of stride 2."""
        act = nn.activation(self.activation)
        if self.network == "conv":
            x = nn.ConvEncoder(self.conv_channels, self.activation, dtype=self.dtype)(x)
        x = x.reshape(len(x), -1)
        for size in self.hidden_sizes:
            shifted = self.norm == "batch"  # which takes a bias away again
            x = nn.Dense(nn.pieces(self.activation) * size, not shifted, nn.he_uniform, self.dtype)(x)
            x = x if self.norm is None else nn.normalized(x, self.norm, train, self.axis_name)
            x = nn.dropout_in(self, act(x), self.dropout)
        return x


def check(network: Name, spec: DataSpec) -> None:
    """Refuse inputs that a network cannot take.

    Raises:
        UserError: it needs pictures, and the dataset has none.
    """
    if network != "mlp" and len(spec.shape) != 3:
        raise UserError(f"network={network} needs pictures [H, W, C], and an input of the dataset {spec.name} has the shape "
                        f"{list(spec.shape)}; use network=mlp")


def as_numbers(inputs: Array) -> Array:
    """Bytes as numbers in [0, 1]; other numbers as float32."""
    return to_unit(inputs) if inputs.dtype == jnp.uint8 else inputs.astype(jnp.float32)


def make(network: Network, shape: tuple[int, ...], initial: nn.Initial | None = None) -> Net:
    """The functions of a network whose inputs have this shape."""
    network = network.clone(small=len(shape) == 3 and min(shape[:2]) < cnn.SMALL)
    learning = network  # computes in the network's dtype while it learns, and in float32 afterwards
    trained = network.clone(dtype="float32")

    def both(variables: Variables, inputs: Array, key: Key | None = None) -> tuple[Array, Array]:
        rngs = None if key is None else {"dropout": key}
        return trained.apply(joined(variables), as_numbers(inputs), rngs=rngs)

    def learn(variables: Variables, inputs: Array, key: Key, labels: Array | None = None) -> tuple[Array, PyTree]:
        (_, outputs), new = learning.apply(joined(variables), as_numbers(inputs), True, labels, rngs={"dropout": key},
                                           mutable=["batch_stats"])
        return outputs, new.get("batch_stats", {})

    init = functools.partial(begin, trained.clone(axis_name=None), initial, (jnp.zeros((1, *shape)),))
    return Net(init, lambda variables, inputs, key=None: both(variables, inputs, key)[1],
               lambda variables, inputs: both(variables, inputs)[0], learn)


def begin(network: linen.Module, initial: nn.Initial | None, inputs: tuple, key: Key) -> Variables:
    """The variables with which a network of these inputs begins."""
    made = nn.init(network, key, *inputs, initial=initial)
    return Variables({"params": made["params"]}, made.get("batch_stats", {}))


def joined(variables: Variables) -> PyTree:
    """Parameters and statistics as flax takes them."""
    return variables.params | ({"batch_stats": variables.stats} if jax.tree.leaves(variables.stats) else {})
