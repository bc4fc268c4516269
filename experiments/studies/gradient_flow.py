"""gradient_flow: how far gradients reach through time in recurrent cells, and what clipping does to them

    J_T = d h_T / d h_0 = prod_t d h_t / d h_t-1,    |J_T| <= (s max|f'|)^T

with s the largest singular value of the recurrent kernel: below 1 the norm of J_T vanishes, above 1 it may explode (Bengio et
al., "Learning long-term dependencies with gradient descent is difficult", 1994; Pascanu et al., "On the difficulty of training
recurrent neural networks", 2013). An LSTM's cell has a way through time whose factor is the forget gate f alone, which its bias
opens: f = sigmoid(b + ...) at the start (Hochreiter & Schmidhuber 1997; Gers et al. 2000; Jozefowicz et al. 2015). Clipping
bounds the step that is taken and not the gradient's reach: it saves what explodes, and does nothing for what has vanished.

Norms are spectral, of the exact Jacobian; of an LSTM's whole state (c, h). All numbers are medians over kernels and inputs.

Shapes: `T` time, `H` size of a state, `F` features of an input, `S` seeds.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxdl import nn
from jaxdl.core.types import Array, Key, PyTree
from jaxdl.experiments.commands.common import check_between
from jaxdl.experiments.studies import common

if TYPE_CHECKING:
    from matplotlib.figure import Figure

F = 4
SINGULAR = (0.9, 1.0, 1.1)  # of the kernels U = s Q, Q orthogonal: every singular value of U is s
CLIP, RATE = 1.0, 0.1
_MOST = float(np.finfo(np.float32).max)  # stands for what is beyond it
CASES = {  # -> cell, largest singular value, what is added to the biases of forget gates, what is said of it, its colour
    **{f"linear_{s}": ("linear", s, 0.0, f"no nonlinearity, s = {s}: s^T", "0.55") for s in SINGULAR},
    **{f"rnn_{s}": ("rnn", s, 0.0, f"RNN, tanh, s = {s}", color)
       for s, color in zip((*SINGULAR, 1.5), ("#56B4E9", "#0072B2", "#004A75", "black"), strict=True)},
    **{f"rnn_relu_{s}": ("rnn_relu", s, 0.0, f"RNN, ReLU, s = {s}", color)
       for s, color in zip((1.0, 1.5), ("#E69F00", "#9A6A00"), strict=True)},
    **{f"lstm_{b}": ("lstm", 1.0, b - 1.0, f"LSTM, bias of forget gates {b:g}", color)
       for b, color in zip((0.0, 1.0, 3.0), ("#D9A3C4", "#CC79A7", "#7A2F5C"), strict=True)},
}


@dataclass(frozen=True, kw_only=True)
class Args(common.Args):
    """Flags of the study."""

    steps: int = 100
    """T: steps through time."""
    size: int = 24
    """H: size of a state."""
    seeds: int = 8
    """Kernels and inputs, of which medians are taken."""


def orthogonal(key: Key, n: int) -> Array:
    """An orthogonal matrix [n, n], uniform among all (Mezzadri 2007)."""
    q, r = jnp.linalg.qr(jax.random.normal(key, (n, n)))
    return q * jnp.sign(jnp.diagonal(r))


def made(kind: str, s: float | Array, forget: float | Array, size: int, key: Key) -> tuple[Callable[..., PyTree], PyTree]:
    """A step of a cell whose recurrent kernel has singular values s (that of each gate of an LSTM), and its zero state.

    The step is `(state, x, change of the kernel) -> state`.

    Args:
        forget: what is added to the biases of an LSTM's forget gates, which begin at 1.
    """
    k_init, k_kernel = jax.random.split(key)
    zero = nn.zero_carry(kind if kind == "lstm" else "rnn", size, 1)
    if kind == "linear":
        kernel = s * orthogonal(k_kernel, size)
        return lambda h, x, change=0.0: h @ (kernel + change), zero
    cell = nn.CELLS[kind](size)
    params = cell.init(k_init, zero, jnp.zeros((1, F)), method=lambda cell, carry, x: cell.step(carry, cell.project(x)))
    gates = 4 if kind == "lstm" else 1
    hidden = params["params"]["hidden"]
    kernel = jnp.concatenate([s * orthogonal(k, size) for k in jax.random.split(k_kernel, gates)], 1)
    bias = hidden["bias"].at[size : 2 * size].add(forget) if gates == 4 else hidden["bias"]

    def step(carry: PyTree, x: Array, change: Array | float = 0.0) -> PyTree:
        moved = {"params": params["params"] | {"hidden": {"kernel": kernel + change, "bias": bias}}}
        return cell.apply(moved, carry, x, method=lambda cell, carry, x: cell.step(carry, cell.project(x)))[0]

    return step, zero


def norms(kind: str, s: float | Array, forget: float | Array, size: int, steps: int, key: Key) -> Array:
    """The spectral norm of d state_T / d state_0 at `times(steps)`; the state is h, and of an LSTM c and h together."""
    k_cell, k_input = jax.random.split(key)
    step, state = made(kind, s, forget, size, k_cell)
    flat, unravel = ravel_pytree(state)

    def flat_step(v: Array, x: Array) -> Array:
        return ravel_pytree(step(unravel(v), x))[0]

    def body(now: tuple[Array, Array], x: Array) -> tuple[tuple[Array, Array], Array]:
        v, so_far = now
        so_far = jax.jacobian(flat_step)(v, x) @ so_far
        return (flat_step(v, x), so_far), so_far

    _, jacobians = jax.lax.scan(body, (flat, jnp.eye(len(flat))), inputs(k_input, steps))
    return jnp.linalg.norm(jacobians[times(steps) - 1], 2, (1, 2))


def a_step(kind: str, s: float | Array, forget: float | Array, size: int, steps: int, key: Key) -> tuple[Array, Array]:
    """What one step of gradient descent at rate `RATE` on the kernel does to a loss of the last output, 1/2 |h_T - target|^2.

    Returns:
        The norm of its gradient by the recurrent kernel (); and the loss after the step over the loss before, without clipping
        and with the gradient clipped to `CLIP`, [2].
    """
    k_cell, k_input, k_target = jax.random.split(key, 3)
    step, zero = made(kind, s, forget, size, k_cell)
    xs, target = inputs(k_input, steps), jax.random.normal(k_target, (size,))

    def loss(change: Array) -> Array:
        """By what is added to the recurrent kernel: h U becomes h (U + change), before the gates."""
        def moved(state: PyTree, x: Array) -> tuple[PyTree, None]:
            return step(state, x, change), None

        state, _ = jax.lax.scan(moved, zero, xs)
        return 0.5 * jnp.square(jax.tree.leaves(state)[-1] - target).sum()

    nothing = jnp.zeros((size, (4 if kind == "lstm" else 1) * size))
    before, gradient = jax.value_and_grad(loss)(nothing)
    norm = jnp.linalg.norm(gradient)
    after = [loss(-RATE * gradient), loss(-RATE * gradient * jnp.minimum(1, CLIP / norm))]
    return norm, jnp.stack(after) / before


def times(steps: int) -> np.ndarray:
    """The T at which norms are taken, 1 to `steps`."""
    return np.unique(np.geomspace(1, steps, 20).round().astype(int))


def inputs(key: Key, steps: int) -> Array:
    """Of a single sequence, [T, 1, F]."""
    return 0.5 * jax.random.normal(key, (steps, 1, F))


def measure(steps: int, size: int, seeds: int, seed: int) -> dict[str, Any]:
    """Of each case medians: norms at `times(steps)`, their growth a step in the second half, and what `a_step` finds."""
    keys, found, at = jax.random.split(jax.random.key(seed), seeds), {}, times(steps)

    @functools.cache
    def program(kind: str) -> Callable[..., tuple]:
        def of_one(s: Array, forget: Array, key: Key) -> tuple:
            how = kind, s, forget, size, steps, key
            return norms(*how), *a_step(*how)

        return jax.jit(lambda s, forget, keys: jax.lax.map(lambda key: of_one(s, forget, key), keys))

    for name, (kind, s, forget, *_) in CASES.items():
        each, gradient, after = program(kind)(s, forget, keys)
        each, gradient, after = (np.median(np.nan_to_num(np.asarray(x, np.float64), nan=_MOST, posinf=_MOST), 0)
                                 for x in (each, gradient, after))
        half = np.searchsorted(at, steps / 2)
        rate = (each[-1] / each[half]) ** (1 / max(at[-1] - at[half], 1))
        found[name] = {"norm": [float(f"{x:.4g}") for x in each], "rate": float(rate), "gradient": float(gradient),
                       "loss_after_a_step": float(after[0]), "clipped": float(after[1])}
    return found


def draw(found: dict[str, Any]) -> "Figure":
    """The picture of what was found."""
    from matplotlib.figure import Figure

    steps, found = found["steps"], found["cases"]
    figure = Figure(figsize=(12, 5), dpi=100)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    axes, bars = figure.subplots(1, 2, width_ratios=(3, 2))
    for name, numbers in found.items():
        kind, *_, label, color = CASES[name]
        line = {"linear": ":", "rnn_relu": "--"}.get(kind, "-")
        axes.plot(times(steps), np.maximum(numbers["norm"], 1e-12), line, color=color, label=label,
                  linewidth=1.2 if kind == "linear" else 1.8)
    axes.set(yscale="log", ylim=(1e-8, 1e13), xlabel="T: steps through time", ylabel="|d state_T / d state_0|, spectral norm",
             title="How much of a state is left after T steps")
    axes.legend(frameon=False, fontsize=8, loc="upper left", ncols=2)
    names = [name for name in found if not name.startswith("linear")]
    place = np.arange(len(names))
    for k, (key, label, color) in enumerate((("loss_after_a_step", "as it is", "#0072B2"),
                                             ("clipped", f"clipped to norm {CLIP:g}", "#E69F00"))):
        bars.barh(place + (k - 0.5) * 0.4, [found[n][key] for n in names], 0.38, color=color, label=label)
    bars.axvline(1, color="black", linestyle=":", linewidth=1)
    bars.set(xscale="log", xlim=(0.2, 10), xlabel=f"loss after a step of rate {RATE:g}, over the loss before",
             title=f"What clipping saves, T = {steps}")
    bars.set_yticks(place, [f"{CASES[n][3]}\n|gradient| {found[n]['gradient']:.2g}" for n in names], fontsize=8)
    bars.invert_yaxis()
    bars.legend(frameon=False, fontsize=8, loc="lower right")
    for each in (axes, bars):
        each.grid(alpha=0.25, linewidth=0.6)
        each.set_axisbelow(True)
        each.spines[["top", "right"]].set_visible(False)
    return figure


def run(args: Args) -> dict[str, Any]:
    """Measure, draw, and write the numbers."""
    for field in ("steps", "size", "seeds"):
        check_between(field, getattr(args, field), 1, 10_000)
    common.check_folder(args)
    cases = measure(args.steps, args.size, args.seeds, args.seed)
    print(f"{'':31}{f'norm, T={args.steps}':>13}{'times a step':>14}{'|gradient|':>12}{'loss after':>12}{'clipped':>9}")
    for name, of in cases.items():
        print(f"{CASES[name][3]:31}{of['norm'][-1]:13.3g}{of['rate']:14.4f}{of['gradient']:12.3g}{of['loss_after_a_step']:12.3g}"
              f"{of['clipped']:9.3g}")
    found = {"seeds": args.seeds, "steps": args.steps, "size": args.size, "times": times(args.steps).tolist(), "cases": cases}
    return common.finish("gradient_flow", args, found, draw)
