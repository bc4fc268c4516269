"""K-FAC: the natural gradient, with a Fisher matrix that is a Kronecker product for each dense or convolutional layer.

    F = A (x) G,    (F + damping)^-1 grad W  is about  (A + pi sqrt(damping) I)^-1  grad W  (G + sqrt(damping) / pi I)^-1
    A = E[a a^T]    of the layer's inputs with a 1 for its bias
    G = E[g g^T]    of the loss's gradients at its outputs, where targets are drawn from the model (`ops.targets`)
    pi^2 = (tr A / dim A) / (tr G / dim G)

Martens & Grosse, "Optimizing neural networks with Kronecker-factored approximate curvature" (2015), sections 3 to 6;
convolutions as in Grosse & Martens, "A Kronecker-factored approximate Fisher matrix for convolution layers" (2016): A sums over
the places of an image the products of patches, G is a mean over places. Layers that are applied to many places or steps of an
example count as such. Both factors are moving averages, and a step is made shorter where the Kullback-Leibler divergence that
it is expected to cost would pass `max_kl` (Ba, Grosse & Martens 2017, section 5). Momentum is of preconditioned gradients.

How this differs: damping is a setting and does not adapt; every step inverts every factor; the loss may be any that goes
through `ops.losses` (of others the data's own targets make an empirical Fisher matrix).

What a layer gets and gives is found by flax's interception: its inputs are recorded, and zeros are added to its outputs, at
which the gradient is taken. Layers are known by their kernel, which must be a leaf of `params` as it is. What is within a scan
or `remat`, what has a mask or is no `Dense` or `Conv`, and all that is no layer (scales, embeddings) steps along its gradient.

Shapes: `B` batch, `R` rows (places of all examples), `I` inputs of a layer and 1 if it has a bias, `O` outputs.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen
from flax.core.tracers import current_trace
from jax import lax

from jaxdl import nn
from jaxdl.core import axis
from jaxdl.core.types import Array, Key, PyTree
from jaxdl.nn.kernels import as_matrix
from jaxdl.ops import targets
from jaxdl.optim.config import Config
from jaxdl.optim.gradients import gradients, microbatches

_DENSE = (nn.Dense, linen.Dense)
_CONV = (nn.Conv, linen.Conv)


class Factors(NamedTuple):
    """The two factors of a layer."""

    inputs: Array  # A [I, I]
    outputs: Array  # G [O, O]


class State(NamedTuple):
    """State of the optimizer."""

    factors: dict[str, Factors]  # by the path of the layer's kernel
    count: Array  # int32 (): updates done
    before: PyTree
    after: PyTree


def kfac(config: Config, rate: Callable[[Array], Array], before: optax.GradientTransformation,
         after: optax.GradientTransformation) -> tuple[Callable, Callable]:
    """`init` and `descend` (`Optimizer`).

    Args:
        config: its `damping`, `curvature_decay` and `max_kl`.
        rate: updates done -> learning rate, by which steps are judged.
        before: changes gradients (clipping, penalties).
        after: makes updates of preconditioned gradients (momentum, the learning rate).
    """
    def init(params: PyTree) -> State:
        return State({name: _zeros(kernel, bias) for name, (kernel, bias) in _layers(params).items()},
                     jnp.zeros((), jnp.int32), before.init(params), after.init(params))

    def descend(loss_fn: Callable, params: PyTree, opt: State, batch: PyTree, key: Key, axis_name: str | None,
                batch_axis: PyTree) -> tuple[PyTree, State, Any]:
        grads, aux = gradients(loss_fn, params, batch, key, config, batch_axis)
        found, _ = microbatches(lambda params, batch, key: (factors_of(loss_fn, params, batch, key, batch_axis), None), params,
                                batch, key, config.grad_accumulation, batch_axis)
        grads, found = axis.mean_over((grads, found), axis_name)
        count = opt.count + 1
        keep = jnp.minimum(1 - 1 / count.astype(jnp.float32), config.curvature_decay)  # Martens & Grosse, section 5
        factors = opt.factors | jax.tree.map(lambda old, new: keep * old + (1 - keep) * new,
                                             {name: opt.factors[name] for name in found}, found)
        grads, before_state = before.update(grads, opt.before, params)
        natural = _precondition(grads, {name: factors[name] for name in found}, config.damping)
        natural = _bounded(natural, grads, rate(opt.count), config.max_kl)
        updates, after_state = after.update(natural, opt.after, params)
        return jax.tree.map(jnp.add, params, updates), State(factors, count, before_state, after_state), aux

    return init, descend


def factors_of(loss_fn: Callable, params: PyTree, batch: PyTree, key: Key, batch_axis: PyTree = 0) -> dict[str, Factors]:
    """The factors of all layers that a loss, a mean over the batch, goes through, by the paths of their kernels."""
    size = _batch_size(batch, batch_axis)
    leaves = {id(leaf): jax.tree_util.keystr(path) for path, leaf in jax.tree_util.tree_leaves_with_path(params)}

    def run(taps: dict[str, list[Array]] | None) -> tuple[Array, tuple[dict, dict]]:
        """The loss with `taps` added to the outputs of layers; their inputs, and their outputs."""
        inputs: dict[str, list[Array]] = {}
        outputs: dict[str, list[Array]] = {}
        trace = current_trace()

        def tap(call: Callable, args: tuple, kwargs: dict, context: linen.module.InterceptorContext) -> Any:
            out = call(*args, **kwargs)
            layer = context.module
            if context.method_name != "__call__" or not _is_known(layer) or current_trace() != trace:
                return out
            name = leaves.get(id(layer.get_variable("params", "kernel")))
            if name is None:
                return out
            i = len(inputs.setdefault(name, []))
            inputs[name].append(_rows(layer, lax.stop_gradient(args[0].astype(jnp.float32))))
            outputs.setdefault(name, []).append(out)
            return out if taps is None else out + taps[name][i].astype(out.dtype)

        with targets.drawn(jax.random.fold_in(key, 1)), linen.intercept_methods(tap):
            loss, _ = loss_fn(params, batch, key)
        return loss, (inputs, outputs)

    _, (_, shapes) = jax.eval_shape(lambda: run(None))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), shapes)
    slopes, (inputs, _) = jax.grad(run, has_aux=True)(zeros)
    biased = {name: bias is not None for name, (_, bias) in _layers(params).items()}

    def of_layer(name: str) -> Factors:
        a = jnp.concatenate(inputs[name])  # [R, I]
        g = jnp.concatenate([x.reshape(-1, x.shape[-1]) for x in slopes[name]])  # [R, O]
        a = jnp.concatenate([a, jnp.ones((len(a), 1))], 1) if biased[name] else a
        return Factors(a.T @ a / size, g.T @ g * (size**2 / len(g)))  # the loss is a mean: an example's slope is `size` times

    return {name: of_layer(name) for name in inputs if name in biased}


def _layers(params: PyTree) -> dict[str, tuple[Array, Array | None]]:
    """Kernels [I, O] and [h, w, C, O] of a tree, by their paths, and the biases beside them."""
    leaves = dict(jax.tree_util.tree_leaves_with_path(params))
    beside = {(path[:-1], getattr(path[-1], "key", None)): leaf for path, leaf in leaves.items() if path}
    return {jax.tree_util.keystr(path): (leaf, beside.get((path[:-1], "bias"))) for path, leaf in leaves.items()
            if path and getattr(path[-1], "key", None) == "kernel" and leaf.ndim in (2, 4)}


def _zeros(kernel: Array, bias: Array | None) -> Factors:
    size, features = math.prod(kernel.shape[:-1]) + (bias is not None), kernel.shape[-1]
    return Factors(jnp.zeros((size, size)), jnp.zeros((features, features)))


def _is_known(layer: linen.Module) -> bool:
    if isinstance(layer, _DENSE):
        return True
    if not isinstance(layer, _CONV) or getattr(layer, "mask", None) is not None or len(layer.kernel_size) != 2:
        return False
    plain = getattr(layer, "feature_group_count", 1) == 1 and layer.padding not in ("CIRCULAR", "CAUSAL", "REFLECT")
    return plain and all(getattr(layer, f, 1) in (1, None, (1, 1)) for f in ("kernel_dilation", "input_dilation"))


def _rows(layer: linen.Module, x: Array) -> Array:
    """What a layer's kernel is multiplied by, [R, I]: inputs, or patches in the order of the kernel's axes."""
    if isinstance(layer, _DENSE):
        return x.reshape(-1, x.shape[-1])
    h, w = layer.kernel_size
    strides = (layer.strides,) * 2 if isinstance(layer.strides, int) else layer.strides or (1, 1)
    patches = lax.conv_general_dilated_patches(x.reshape(-1, *x.shape[-3:]), (h, w), strides, layer.padding,
                                               dimension_numbers=("NHWC", "HWIO", "NHWC"))
    patches = patches.reshape(-1, x.shape[-1], h * w)  # lax puts channels first
    return patches.swapaxes(1, 2).reshape(len(patches), -1)


def _precondition(grads: PyTree, factors: dict[str, Factors], damping: float | Array) -> PyTree:
    """Gradients with those of known layers multiplied by the inverse of their Fisher matrix."""
    found: dict[str, Array] = {}
    for name, (kernel, bias) in _layers(grads).items():
        if name not in factors:
            continue
        a, g = factors[name]
        matrix = as_matrix(kernel)
        matrix = matrix if bias is None else jnp.concatenate([matrix, bias[None]])
        pi = jnp.sqrt(jnp.maximum(jnp.trace(a) / len(a), 1e-12) / jnp.maximum(jnp.trace(g) / len(g), 1e-12))
        left, right = a + pi * jnp.sqrt(damping) * jnp.eye(len(a)), g + jnp.sqrt(damping) / pi * jnp.eye(len(g))
        matrix = jax.scipy.linalg.solve(left, matrix, assume_a="pos")
        matrix = jax.scipy.linalg.solve(right, matrix.T, assume_a="pos").T
        found[name] = (matrix if bias is None else matrix[:-1]).reshape(kernel.shape)
        if bias is not None:
            found[name.removesuffix("['kernel']") + "['bias']"] = matrix[-1]
    return jax.tree_util.tree_map_with_path(lambda path, g: found.get(jax.tree_util.keystr(path), g), grads)


def _bounded(natural: PyTree, grads: PyTree, rate: Array, max_kl: float | Array) -> PyTree:
    """Natural gradients d, shorter where the divergence that a step costs, about rate^2 d . grad / 2, is above `max_kl`."""
    dots = jax.tree.map(lambda d, g: jnp.vdot(d, g), natural, grads)
    cost = rate**2 * sum(jax.tree.leaves(dots)) / 2
    return jax.tree.map(lambda d: d * jnp.minimum(1.0, jnp.sqrt(max_kl / jnp.maximum(cost, 1e-30))), natural)


def _batch_size(batch: PyTree, batch_axis: PyTree) -> int:
    sizes = jax.tree.map(lambda axis, part: jax.tree.leaves(jax.tree.map(lambda x: x.shape[axis], part)), batch_axis, batch)
    return jax.tree.leaves(sizes)[0]
