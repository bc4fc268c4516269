"""Policies under attack: each observation is changed, within a ball, so that another action is chosen.

    discrete    the cross-entropy of the action that is chosen without the change, by logits or action values, rises
                (Huang et al., "Adversarial attacks on neural network policies", 2017)
    Box         the squared distance of the means from those without the change rises (Zhang et al. 2020, MAD)

The environment goes on from its true state: what the agent sees is all that changes. Sizes are of pixels in [0, 1] where
observations are pictures, and else of standard deviations of each number over episodes of the policy itself.

Shapes: `N` environments, `...` one observation, `K` outputs.
"""

from typing import Literal

import gymnasium
import jax.numpy as jnp

from jaxdl.adversarial import attacks, ball
from jaxdl.core.errors import UserError
from jaxdl.core.types import Array, Key, PyTree
from jaxdl.ops import losses
from jaxdl.ops.pixels import to_unit
from jaxdl.rl import observations
from jaxdl.rl.types import Actor, Agent, EnvSpec

Attack = Literal["noise", "fgsm", "pgd"]


def as_numbers(spec: EnvSpec, obs: Array) -> Array:
    """Observations as networks take them and gradients are of: pictures in [0, 1], other numbers as they are; float32.

    Raises:
        UserError: they are classes, or bytes that are no pictures.
    """
    form = observations.form(spec)
    if form.classes is not None or (form.scaled and not form.picture):
        raise UserError(f"observations of {spec.id} are {spec.observation_space}, which cannot be changed a little; attacks "
                        "and explanations are of pictures and of numbers")
    return to_unit(obs) if obs.dtype == jnp.uint8 else obs.astype(jnp.float32)


def under_attack(agent: Agent, spec: EnvSpec, attack: Attack, norm: ball.Norm, steps: int, deviation: Array | None) -> Actor:
    """The greedy policy whose observations are attacked; its parameters are `(params, epsilon)`.

    Args:
        agent: whose greedy policy it is.
        spec: of the environment.
        attack: noise is a random point of the ball, fgsm one step, pgd `steps` from a random point.
        norm: of the changes.
        steps: of pgd.
        deviation: of each number of an observation that is no picture [...]; None for pictures.

    Raises:
        UserError: observations cannot be changed a little.
    """
    discrete = not isinstance(spec.action_space, gymnasium.spaces.Box)

    def act(params: tuple[PyTree, Array], carry: PyTree, obs: Array, key: Key, t: Array) -> tuple[PyTree, Array, PyTree]:
        params, epsilon = params
        seen, scale = as_numbers(spec, obs), 1 if deviation is None else deviation
        near, project = seen / scale, ball.unbounded if deviation is not None else ball.project
        f = lambda x: agent.outputs(params, carry, scale * x)  # noqa: E731
        said = f(near)
        chosen = said.argmax(-1)

        def loss(x: Array) -> Array:
            return losses.cross_entropy(f(x), chosen) if discrete else jnp.square(f(x) - said).sum(-1)

        start = near if attack == "fgsm" and discrete else ball.random(key, near, epsilon, norm, project)
        num = {"noise": 0, "fgsm": 1, "pgd": steps}[attack]
        length = epsilon if attack == "fgsm" else 2.5 * epsilon / max(steps, 1)
        moved = attacks.ascended(loss, start, near, epsilon, norm, num, length, project)
        return agent.greedy.act(params, carry, scale * moved, key, t)

    return Actor(agent.greedy.init, act)

