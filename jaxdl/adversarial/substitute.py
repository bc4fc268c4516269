"""A substitute for a network that only answers: trained on its answers, then attacked in its place (Papernot et al., "Practical
black-box attacks against machine learning", 2017).

A few inputs are asked about. Then in rounds the substitute is trained on all answers so far, and each input is joined by
another, which is asked about too: a step along the sign of the gradient of the class that was answered (Jacobian-based
augmentation),

    x' = x + lambda sign(d z_y(x) / dx)                  z: outputs of the substitute, y: what was answered of x

Each round trains a new network (their algorithm 1) for as many passes over what there is. Steps are clipped to [0, 1], and
lambda changes its sign from round to round (their "periodical step size").

Shapes: `N` inputs, `...` one input, `Y` classes, `B` a minibatch.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen

from jaxdl import nn
from jaxdl.adversarial.attacks import Function
from jaxdl.core.types import Array, Key, PyTree
from jaxdl.ops import losses


class Network(linen.Module):
    """Inputs [N, ...] to logits [N, Y]: of pictures two convolutions and a dense layer, else two dense layers."""

    num_classes: int

    @linen.compact
    def __call__(self, x: Array) -> Array:
        if x.ndim == 4:
            x = nn.ConvEncoder((16, 32))(x)
        sizes = (128,) if x.ndim == 4 else (128, 128)
        return nn.Dense(self.num_classes, name="head")(nn.MLP(sizes, "relu")(x.reshape(len(x), -1)))


class Substitute(NamedTuple):
    """What was trained."""

    apply: Callable[[PyTree, Array], Array]  # (params, inputs [N, ...]) -> logits [N, Y]
    params: PyTree
    queries: int  # how many inputs were asked about
    x: Array  # [queries, ...]: those
    labels: Array  # [queries]: what was answered

    def f(self, x: Array) -> Array:
        """Logits of inputs."""
        return self.apply(self.params, x)


def substitute(ask: Function, x: Array, num_classes: int, key: Key, rounds: int = 5, passes: int = 50, step: float = 0.1,
               batch_size: int = 64, rate: float = 1e-3) -> Substitute:
    """Train a substitute.

    Args:
        ask: inputs [M, ...] -> the classes that are said of them, [M] int: all that is known of the other network.
        x: the inputs [N, ...] to begin with.
        num_classes: Y.
        rounds: of training; each but the last doubles the inputs.
        passes: over the inputs, in each round.
        step: lambda.
        rate: of Adam.
    """
    network, num = Network(num_classes), len(x)
    most = num * 2 ** (rounds - 1)
    known = jnp.zeros((most, *x.shape[1:])).at[:num].set(x)
    labels, optimizer = jnp.zeros(most, jnp.int32).at[:num].set(ask(x)), optax.adam(rate)

    @jax.jit
    def train(known: Array, labels: Array, count: Array, key: Key) -> PyTree:
        k_init, k_draw = jax.random.split(key)
        params = nn.init(network, k_init, x[:1])

        def update(i: Array, carry: tuple) -> tuple:
            params, state = carry
            index = jax.random.randint(jax.random.fold_in(k_draw, i), (batch_size,), 0, count)
            loss = lambda p: losses.cross_entropy(network.apply(p, known[index]), labels[index]).mean()  # noqa: E731
            updates, state = optimizer.update(jax.grad(loss)(params), state)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, -(-passes * count // batch_size), update, (params, optimizer.init(params)))[0]

    @jax.jit
    def ahead(params: PyTree, known: Array, labels: Array, step: Array) -> Array:
        own = lambda x: jnp.take_along_axis(network.apply(params, x), labels[:, None], 1).sum()  # noqa: E731
        return jnp.clip(known + step * jnp.sign(jax.grad(own)(known)), 0, 1)

    keys = jax.random.split(key, rounds)
    for i in range(rounds):
        params = train(known, labels, jnp.int32(num), keys[i])
        if i < rounds - 1:
            new = ahead(params, known[:num], labels[:num], step * (-1) ** i)
            known = known.at[num : 2 * num].set(new)
            labels, num = labels.at[num : 2 * num].set(ask(new)), 2 * num
    return Substitute(network.apply, params, num, known, labels)
