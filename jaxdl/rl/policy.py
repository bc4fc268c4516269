"""Stochastic policies with a value: the networks, the actors and the arithmetic that policy-gradient methods share.

A network is a torso (`nn.encode` and an MLP), a recurrent cell if asked for, and two heads: numbers that make a
distribution of actions (`jaxdl.actions`), and the value of the observation. Policy and value have torsos and cells of their
own or share them. Kernels begin with variance 2 / fan_in, those of the policy's head a hundredth of that size, so that the
first policy hardly prefers any action (Andrychowicz et al. 2021, "What matters for on-policy deep actor-critic methods?").

Observations are normalized by running statistics that are the learner's: frozen while it plays and learns from what was
played, and brought up to date once an update.

Shapes: `T` time, `B` sequences side by side, `P` parameters of the distribution of an action.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
from flax import linen

from jaxdl import nn
from jaxdl.core.config import config as settings
from jaxdl.core.config import require, require_positive
from jaxdl.core.errors import UserError
from jaxdl.core.types import Array, Key, Mean, Metrics, PyTree
from jaxdl.ops.running_stats import Moments
from jaxdl.rl import actions, envs
from jaxdl.rl.types import Actor, EnvSpec, Trajectory


@settings
class Config:
    """Settings of the policy and its value."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers (Schulman et al. 2017)."""
    activation: str = "tanh"
    """Nonlinearity of the hidden layers (Schulman et al. 2017)."""
    shared: bool = False
    """One torso for the policy and the value, in place of one for each."""
    recurrent: Literal["none", "gru", "lstm"] = "none"
    """A recurrent cell between torso and heads; gradients go back to the beginning of a rollout."""
    recurrent_size: int = 64
    """Size of its state."""
    squash: bool = False
    """Box actions: a Gaussian squashed into the bounds by tanh, in place of one that is clipped to them."""
    log_std: float = 0.0
    """Box actions: logarithm of the Gaussian's standard deviation at the beginning; it is learned (SB3)."""
    normalize_obs: bool = False
    """Subtract the mean of the observations and divide by their standard deviation; both are learned along the way."""


def validate(config: Config) -> None:
    """Refuse settings that make no sense.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    require(config, "hidden_sizes", all(n > 0 for n in config.hidden_sizes), "widths above 0")
    require_positive(config, "recurrent_size")
    require(config, "log_std", abs(config.log_std) <= 20, "between -20 and 20")
    nn.activation(config.activation)


class Policy(NamedTuple):
    """What acts."""

    network: PyTree
    moments: Moments | None


class Choice(NamedTuple):
    """What a policy says of its action."""

    action: Array  # [..., *shape] before it is clipped to bounds or squashed into them
    dist: Array  # [..., P] parameters of the distribution it was drawn from


class Unrolled(NamedTuple):
    """What a network says of `T` steps."""

    dist: Array  # [T, B, P]
    value: Array  # [T, B]
    carries: PyTree  # [T, B, ...] after each step


class Model(NamedTuple):
    """A policy and a value as pure functions of the network's parameters."""

    actions: actions.Actions
    init: Callable[[Key], PyTree]  # (key) -> parameters
    moments: Moments | None  # of no observations, where they are normalized
    normalize: Callable[[Moments | None, Array], Array]  # (moments, obs [..., *shape]) -> obs
    unroll: Callable[..., Unrolled]  # (params, carry [B, ...], obs [T, B, ...], first [T, B]) -> Unrolled
    value_after: Callable[..., Array]  # (params, carries [T, B, ...], next_obs [T, B, ...]) -> [T, B]
    explore: Actor  # draws; its extras are a Choice
    greedy: Actor  # the most likely action


class Torso(linen.Module):
    """Observations [B, ...] -> features [B, F]."""

    hidden_sizes: tuple[int, ...]
    activation: str
    stacked: bool
    categories: int | None

    @linen.compact
    def __call__(self, obs: Array) -> Array:
        x = nn.encode(obs, self.stacked, self.categories)
        return nn.MLP(self.hidden_sizes, activation=self.activation, kernel_init=nn.he_uniform)(x)


class Network(linen.Module):
    """Torsos, cells and heads. A branch is the policy's or the value's; where they share there is one."""

    torso: Torso
    shared: bool
    recurrent: Literal["none", "gru", "lstm"]
    recurrent_size: int
    size: int  # numbers of a distribution that depend on the observation
    free: int  # numbers that do not
    log_std: float | Array

    def setup(self) -> None:
        """Make the layers."""
        branches = range(1 if self.shared else 2)
        self.torsos = [self.torso.clone() for _ in branches]
        if self.recurrent != "none":
            cell = nn.GRU if self.recurrent == "gru" else nn.LSTM
            self.cells = [cell(self.recurrent_size) for _ in branches]
        self.policy = linen.Dense(self.size, kernel_init=nn.Uniform(2e-4, "in"))
        self.value = linen.Dense(1, kernel_init=nn.lecun_uniform)
        if self.free:
            self.spread = self.param("spread", lambda key: jnp.full(self.free, self.log_std, jnp.float32))

    def features(self, obs: Array) -> list[Array]:
        """Observations [N, ...] -> of each branch the features, or the gates of its cell, [N, F]."""
        features = [torso(obs) for torso in self.torsos]
        return features if self.recurrent == "none" else [
            cell.project(x) for cell, x in zip(self.cells, features, strict=True)]

    def step(self, carry: list[PyTree], gates: list[Array]) -> tuple[list[PyTree], list[Array]]:
        """States and gates [B, ...] of each branch -> states, features [B, H]."""
        return tuple(map(list, zip(*(c.step(h, x) for c, h, x in zip(self.cells, carry, gates, strict=True)), strict=True)))

    def heads(self, features: list[Array]) -> tuple[Array, Array]:
        """Features [..., F] of each branch -> dist [..., P], value [...]."""
        dist, value = self.policy(features[0]), self.value(features[-1])[..., 0]
        if self.free:
            dist = jnp.concatenate([dist, jnp.broadcast_to(self.spread, (*dist.shape[:-1], self.free))], -1)
        return dist, value

    def __call__(self, carry: list[PyTree] | None, obs: Array) -> tuple[list[PyTree] | None, Array, Array]:
        """One step: carry, obs [B, ...] -> carry, dist [B, P], value [B]."""
        features = self.features(obs)
        if self.recurrent != "none":
            carry, features = self.step(carry, features)
        return carry, *self.heads(features)


def make(config: Config, spec: EnvSpec, algorithm: str) -> Model:
    """The policy and value of an environment.

    Raises:
        UserError: observations or actions are of a kind that it cannot serve, or cannot be normalized or squashed.
    """
    space = spec.observation_space
    envs.check_spaces(spec, algorithm, actions=(
        gymnasium.spaces.Discrete, gymnasium.spaces.MultiDiscrete, gymnasium.spaces.MultiBinary, gymnasium.spaces.Box),
        observations=(gymnasium.spaces.Box, gymnasium.spaces.Discrete, gymnasium.spaces.MultiBinary), action_starts=True)
    if config.normalize_obs and space.dtype.kind != "f":
        raise UserError(f"normalize_obs is for observations of floating-point numbers, and {spec.id} has {space}")
    of_actions = actions.of(spec.action_space, squash=config.squash, env_id=spec.id)
    torso = Torso(config.hidden_sizes, config.activation, spec.stack is not None,
                  int(space.n) if isinstance(space, gymnasium.spaces.Discrete) else None)
    network = Network(torso, config.shared, config.recurrent, config.recurrent_size, of_actions.size, of_actions.free,
                      config.log_std)
    recurrent = config.recurrent != "none"

    def initial(n: int) -> list[PyTree] | None:
        if not recurrent:
            return None
        return [nn.zero_carry(config.recurrent, config.recurrent_size, n) for _ in range(1 if config.shared else 2)]

    def init(key: Key) -> PyTree:
        return nn.init(network, key, initial(1), jnp.zeros((1, *space.shape), jax.dtypes.canonicalize_dtype(space.dtype)))

    def normalize(moments: Moments | None, obs: Array) -> Array:
        return obs if moments is None else moments.normalize(obs)

    def rows(x: Array) -> Array:
        """[T, B, ...] -> [T * B, ...]."""
        return x.reshape(-1, *x.shape[2:])

    def unroll(params: PyTree, carry: PyTree, obs: Array, first: Array) -> Unrolled:
        def grid(x: Array) -> Array:
            return x.reshape(*obs.shape[:2], *x.shape[1:])

        features, carries = jax.tree.map(grid, network.apply(params, rows(obs), method="features")), None
        if recurrent:
            carries, features = nn.unroll_steps(
                lambda carry, gates: network.apply(params, carry, gates, method="step"), carry, features, first)
        return Unrolled(*network.apply(params, features, method="heads"), carries)

    def value_after(params: PyTree, carries: PyTree, next_obs: Array) -> Array:
        value = network.apply(params, jax.tree.map(rows, carries), rows(next_obs))[2]
        return value.reshape(next_obs.shape[:2])

    def act(policy: Policy, carry: PyTree, obs: Array) -> tuple[PyTree, Array]:
        carry, dist, _ = network.apply(policy.network, carry, normalize(policy.moments, obs))
        return carry, dist

    def explore(policy: Policy, carry: PyTree, obs: Array, noise: Array, t: Array) -> tuple[PyTree, Array, Choice]:
        del t
        carry, dist = act(policy, carry, obs)
        action = of_actions.sample(noise, dist)
        return carry, of_actions.to_env(action), Choice(action, dist)

    def greedy(policy: Policy, carry: PyTree, obs: Array, key: Key, t: Array) -> tuple[PyTree, Array, dict]:
        del key, t
        carry, dist = act(policy, carry, obs)
        return carry, of_actions.to_env(of_actions.mode(dist)), {}

    return Model(of_actions, init, Moments.init(space.shape) if config.normalize_obs else None, normalize, unroll,
                 value_after, Actor(initial, explore, lambda key, n: of_actions.noise(key, (n,))), Actor(initial, greedy))


class Batch(NamedTuple):
    """A trajectory as a learner reads it, [T, B, ...]: observations normalized, ends as numbers."""

    obs: Array
    next_obs: Array
    discount: Array  # gamma, and 0 after a termination
    continues: Array  # bool: the next row is of the same episode
    weight: Array  # float32: 0 where nothing happened, else such that the mean over all shards is 1


def read(model: Model, moments: Moments | None, trajectory: Trajectory, gamma: float | Array, axis_name: str | None
         ) -> Batch:
    """The trajectory, read with the statistics it was played with."""
    return Batch(
        model.normalize(moments, trajectory.obs), model.normalize(moments, trajectory.next_obs),
        gamma * (1.0 - trajectory.terminated), ~(trajectory.terminated | trajectory.truncated),
        weights(trajectory.valid, axis_name))


def observed(moments: Moments | None, trajectory: Trajectory, axis_name: str | None) -> Moments | None:
    """The statistics with the observations of a trajectory more."""
    if moments is None:
        return None
    return moments.add(trajectory.obs.reshape(-1, *moments.mean.shape), axis_name, trajectory.valid.reshape(-1))


def weights(valid: Array, axis_name: str | None) -> Array:
    """float32, 0 where not `valid`, and of mean 1 over all shards: means of what it weighs are those of what is valid."""
    share = valid.mean(dtype=jnp.float32)
    if axis_name is not None:
        share = jax.lax.pmean(share, axis_name)
    return valid / jnp.maximum(share, 1e-8)


def standardized(x: Array, weight: Array, axis_name: str | None) -> Array:
    """`(x - mean) / (standard deviation + 1e-8)` of weighted numbers, over all shards."""
    mean, variance = _moments(x, weight, axis_name)
    return (x - mean) / (jnp.sqrt(variance) + 1e-8)


def explained_variance(value: Array, target: Array, weight: Array, axis_name: str | None) -> Mean:
    """How much of the targets' variance the values foretell: 1 is all, 0 no more than their mean would."""
    left, whole = _moments(target - value, weight, axis_name)[1], _moments(target, weight, axis_name)[1]
    return Mean.of(1.0 - left / jnp.maximum(whole, 1e-8))


def _moments(x: Array, weight: Array, axis_name: str | None) -> tuple[Array, Array]:
    """Mean and variance: the mean over all shards first, then that of the squared deviations."""
    mean = (weight * x).mean()
    if axis_name is not None:
        mean = jax.lax.pmean(mean, axis_name)
    variance = (weight * jnp.square(x - mean)).mean()
    return mean, variance if axis_name is None else jax.lax.pmean(variance, axis_name)


def means(values: list[Array], weight: Array) -> Mean:
    """Of several arrays of the shape of `weight` the means where it is not 0, as one `Mean` of totals [k].

    One sum of them together: in a loop each number that is kept costs kernels.
    """
    counts = weight > 0
    stacked = jnp.stack([jnp.where(counts, x, 0.0).reshape(-1) for x in values])
    return Mean(stacked.sum(1), counts.sum(dtype=jnp.float32))


def named(names: Sequence[str], means: Mean) -> Metrics:
    """The means of `means` by their names, or of a stack of them [n, k] all together."""
    total, count = means.total.reshape(-1, len(names)).sum(0), means.count.sum()
    return {name: Mean(total[i], count) for i, name in enumerate(names)}


def sequences(tree: PyTree) -> PyTree:
    """Arrays [T, B, ...] -> [B, T, ...] and back."""
    return jax.tree.map(lambda x: x.swapaxes(0, 1), tree)


def steps(tree: PyTree) -> PyTree:
    """Arrays [T, B, ...] -> [T * B, 1, ...]: every step a sequence of its own."""
    return jax.tree.map(lambda x: x.reshape(-1, 1, *x.shape[2:]), tree)

