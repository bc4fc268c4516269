"""Stochastic policies with a value: the networks and the actors of policy-gradient methods.

A network is a torso (`nn.encode` and an MLP), a recurrent cell if asked for, and two heads: numbers that make a
distribution of actions (`rl.actions`), and the value of the observation. Policy and value have torsos and cells of their
own or share them. Kernels begin with variance 2 / fan_in, those of the policy's head a hundredth of that size, so that the
first policy hardly prefers any action (Andrychowicz et al. 2021, "What matters for on-policy deep actor-critic methods?").

Observations are normalized by running statistics that belong to the learner. They are constant during a rollout and the
update from it, and are then updated once.

Shapes: `T` time, `B` sequences side by side, `P` parameters of the distribution of an action.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
from flax import linen

from jaxdl import nn
from jaxdl.core.config import config as settings
from jaxdl.core.config import require, require_positive
from jaxdl.core.errors import UserError
from jaxdl.core.types import Array, Key, PyTree
from jaxdl.ops.running_stats import Moments
from jaxdl.rl import actions, envs, observations
from jaxdl.rl.types import Actor, EnvSpec


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
    init: nn.Initial = nn.Initial()
    """Initial weights."""


def validate(config: Config) -> None:
    """Refuse settings that make no sense.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    require(config, "hidden_sizes", all(n > 0 for n in config.hidden_sizes), "widths above 0")
    require_positive(config, "recurrent_size")
    require(config, "log_std", abs(config.log_std) <= 20, "between -20 and 20")
    nn.activation(config.activation)
    config.init.validate()


class Policy(NamedTuple):
    """Parameters to act with."""

    network: PyTree
    moments: Moments | None  # of the observations, where they are normalized


class ActionInfo(NamedTuple):
    """An action, and the distribution it was drawn from."""

    action: Array  # [..., *shape] before it is clipped to bounds or squashed into them
    dist: Array  # [..., P] parameters of the distribution


class Unrolled(NamedTuple):
    """Outputs of a network for `T` steps."""

    dist: Array  # [T, B, P]
    value: Array  # [T, B]
    carries: PyTree  # [T, B, ...] after each step


class Model(NamedTuple):
    """A policy and a value as pure functions of the network's parameters."""

    actions: actions.Actions
    init: Callable[[Key], PyTree]  # (key) -> parameters
    moments: Moments | None  # of no observations, where they are normalized
    unroll: Callable[..., Unrolled]  # (params, carry [B, ...], obs [T, B, ...], first [T, B], dtype="float32") -> Unrolled
    value_after: Callable[..., Array]  # (params, carries [T, B, ...], next_obs [T, B, ...]) -> [T, B]
    explore: Actor  # draws; its extras are an ActionInfo
    greedy: Actor  # the most likely action
    outputs: Callable[[Policy, PyTree, Array], Array]  # (policy, carry, obs [N, ...]) -> [N, K]: logits, or means of actions
    value: Callable[[Policy, PyTree, Array], Array]  # (policy, carry, obs [N, ...]) -> [N]


class Torso(linen.Module):
    """Observations [B, ...] -> features [B, F]."""

    hidden_sizes: tuple[int, ...]
    activation: str
    form: nn.Form
    dtype: str = "float32"

    @linen.compact
    def __call__(self, obs: Array) -> Array:
        x = nn.encode(obs, self.form, self.dtype)
        return nn.MLP(self.hidden_sizes, activation=self.activation, kernel_init=nn.he_uniform, dtype=self.dtype)(x)


class Network(linen.Module):
    """Torsos, cells and heads. The policy and the value have a branch each, or share one."""

    torso: Torso
    shared: bool
    recurrent: Literal["none", "gru", "lstm"]
    recurrent_size: int
    size: int  # parameters of a distribution that depend on the observation
    free: int  # parameters that do not
    log_std: float | Array
    dtype: str = "float32"

    def setup(self) -> None:
        """Make the layers."""
        branches = range(1 if self.shared else 2)
        self.torsos = [self.torso.clone(dtype=self.dtype) for _ in branches]
        if self.recurrent != "none":
            self.cells = [nn.CELLS[self.recurrent](self.recurrent_size, self.dtype) for _ in branches]
        self.policy = nn.Dense(self.size, kernel_init=nn.Uniform(2e-4, "in"))
        self.value = nn.Dense(1)
        if self.free:
            self.spread = self.param("spread", lambda key: jnp.full(self.free, self.log_std, jnp.float32))

    def features(self, obs: Array) -> list[Array]:
        """Observations [N, ...] -> each branch's features, or the gates of its cell, [N, F]."""
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


def observation_stats(normalize_obs: bool, spec: EnvSpec) -> Moments | None:
    """Statistics of no observations, to normalize them by; None where they are not normalized.

    Raises:
        UserError: observations are not of floating-point numbers.
    """
    if not normalize_obs:
        return None
    space = spec.observation_space
    if space.dtype.kind != "f":
        raise UserError(f"normalize_obs is for observations of floating-point numbers, and {spec.id} has {space}")
    return Moments.init(space.shape)


def normalize(moments: Moments | None, obs: Array) -> Array:
    """Observations [..., *shape] normalized by the statistics; as they are where there are none."""
    return obs if moments is None else moments.normalize(obs)


def make(config: Config, spec: EnvSpec, algorithm: str) -> Model:
    """The policy and value of an environment.

    Raises:
        EnvError: the observations or actions are of a kind that policies do not support.
        UserError: the observations cannot be normalized, or the actions not squashed.
    """
    space = spec.observation_space
    envs.check_spaces(spec, algorithm, actions=(
        gymnasium.spaces.Discrete, gymnasium.spaces.MultiDiscrete, gymnasium.spaces.MultiBinary, gymnasium.spaces.Box),
        observations=observations.SPACES)
    moments = observation_stats(config.normalize_obs, spec)
    distribution = actions.for_space(spec.action_space, squash=config.squash, env_id=spec.id)
    torso = Torso(config.hidden_sizes, config.activation, observations.form(spec))
    network = Network(torso, config.shared, config.recurrent, config.recurrent_size, distribution.size, distribution.free,
                      config.log_std)
    recurrent = config.recurrent != "none"

    def initial_carry(n: int) -> list[PyTree] | None:
        if not recurrent:
            return None
        return [nn.zero_carry(config.recurrent, config.recurrent_size, n) for _ in range(1 if config.shared else 2)]

    def init(key: Key) -> PyTree:
        obs = jnp.zeros((1, *space.shape), jax.dtypes.canonicalize_dtype(space.dtype))
        return nn.init(network, key, initial_carry(1), obs, initial=config.init)

    def rows(x: Array) -> Array:
        """[T, B, ...] -> [T * B, ...]."""
        return x.reshape(-1, *x.shape[2:])

    def unroll(params: PyTree, carry: PyTree, obs: Array, first: Array, dtype: str = "float32") -> Unrolled:
        apply = network.clone(dtype=dtype).apply

        def grid(x: Array) -> Array:
            return x.reshape(*obs.shape[:2], *x.shape[1:])

        features, carries = jax.tree.map(grid, apply(params, rows(obs), method="features")), None
        if recurrent:
            carries, features = nn.unroll_steps(
                lambda carry, gates: apply(params, carry, gates, method="step"), carry, features, first)
        return Unrolled(*apply(params, features, method="heads"), carries)

    def value_after(params: PyTree, carries: PyTree, next_obs: Array) -> Array:
        value = network.apply(params, jax.tree.map(rows, carries), rows(next_obs))[2]
        return value.reshape(next_obs.shape[:2])

    def act(policy: Policy, carry: PyTree, obs: Array) -> tuple[PyTree, Array]:
        carry, dist, _ = network.apply(policy.network, carry, normalize(policy.moments, obs))
        return carry, dist

    def explore(policy: Policy, carry: PyTree, obs: Array, noise: Array, t: Array) -> tuple[PyTree, Array, ActionInfo]:
        del t
        carry, dist = act(policy, carry, obs)
        action = distribution.sample(noise, dist)
        return carry, distribution.to_env(action), ActionInfo(action, dist)

    def greedy(policy: Policy, carry: PyTree, obs: Array, key: Key, t: Array) -> tuple[PyTree, Array, dict]:
        del key, t
        carry, dist = act(policy, carry, obs)
        return carry, distribution.to_env(distribution.mode(dist)), {}

    def outputs(policy: Policy, carry: PyTree, obs: Array) -> Array:
        return act(policy, carry, obs)[1][:, : distribution.size]

    def value(policy: Policy, carry: PyTree, obs: Array) -> Array:
        return network.apply(policy.network, carry, normalize(policy.moments, obs))[2]

    return Model(distribution, init, moments, unroll, value_after, Actor(
        initial_carry, explore, lambda key, n: distribution.noise(key, (n,))), Actor(initial_carry, greedy), outputs, value)
