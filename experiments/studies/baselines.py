"""baselines: what the baselines of REINFORCE save, the variance of its gradient on a problem whose gradient is known

`Steps` is small enough for exact values and an exact gradient (`values`, `gradient`). `estimates` has the real learner
estimate that gradient from the real rollouts, many times at one policy: an estimate is what one update of plain gradient
ascent at rate 1 adds to the parameters. Their variance is the trace of their covariance.

Shapes: `S` states, `A` actions, `K` estimators, `M` batches, `P` = (1 + S) * A parameters of the policy.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.experimental.functional import FuncEnv
from jax.flatten_util import ravel_pytree

from jaxdl.agents import reinforce
from jaxdl.core.compile import TRAIN_OPTIONS
from jaxdl.core.types import Array, Key, PyTree
from jaxdl.experiments.commands.common import check_between
from jaxdl.experiments.studies import common
from jaxdl.optim import Config as OptimConfig
from jaxdl.rl import policy, rollout
from jaxdl.rl.envs.functional import adapt
from jaxdl.rl.policy import Config as PolicyConfig
from jaxdl.rl.types import EnvSpec, Trajectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LIMIT, END, ACTIONS = 3, 7, 3
SPEC = EnvSpec("Steps", gymnasium.spaces.Discrete(END + 1), gymnasium.spaces.Discrete(ACTIONS), LIMIT)
BASE = reinforce.Config(num_envs=8, total_steps=2**30, rollout_steps=LIMIT, learn_from="complete", gamma=1.0, ent_coef=0.0,
                        policy=PolicyConfig(hidden_sizes=()),
                        optim=OptimConfig(optimizer="sgd", learning_rate=1.0, schedule="constant", max_grad_norm=None))


def _tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First [S], successors [S, A, S] and rewards [S, A, S], the same always."""
    rng = np.random.default_rng(7)
    successors, rewards = np.zeros((END + 1, ACTIONS, END + 1)), np.zeros((END + 1, ACTIONS, END + 1))
    successors[END, :, END] = 1
    for here, there in (((0, 1), (2, 3, 4, END)), ((2, 3, 4), (5, 6, END)), ((5, 6), (END,))):
        for state in here:
            successors[state][:, there] = rng.dirichlet([1] * (len(there) - 1) + [0.4], ACTIONS)
            rewards[state] = 2 + rng.normal() + rng.normal(size=(ACTIONS, END + 1))
    return np.array([0.6, 0.4] + [0] * (END - 1)), successors, rewards


FIRST, SUCCESSORS, REWARDS = _tables()


class Steps(FuncEnv):
    """Three steps, by states 0-1, 2-4 and 5-6 to the end, 7, which may come before: all ends are terminations.

    Chance has a part in every step, and a step pays 2 on average, so that what a return is compared to matters.
    """

    def initial(self, rng, params=None):
        return jax.random.choice(rng, END + 1, p=jnp.asarray(FIRST, jnp.float32)).astype(jnp.int32)

    def transition(self, state, action, rng, params=None):
        return jax.random.choice(rng, END + 1, p=jnp.asarray(SUCCESSORS, jnp.float32)[state, action]).astype(jnp.int32)

    def observation(self, state, rng, params=None):
        return state

    def reward(self, state, action, next_state, rng, params=None):
        return jnp.asarray(REWARDS, jnp.float32)[state, action, next_state]

    def terminal(self, state, rng, params=None):
        return state == END


@jax.jit
def probabilities(params: PyTree) -> Array:
    """Of the actions in all states, [S, A]."""
    obs = jnp.arange(END + 1, dtype=jnp.int32)[None]
    out = policy.make(BASE.policy, SPEC, "reinforce").unroll(params, None, obs, jnp.ones_like(obs, bool))
    return jax.nn.softmax(out.dist[0])


@jax.jit
def values(pi: Array, gamma: float) -> tuple[Array, Array]:
    """V [S] and Q [S, A] of a policy [S, A], exactly: one backup for each step that there can be."""
    successors, paid = jnp.asarray(SUCCESSORS, jnp.float32), jnp.asarray((SUCCESSORS * REWARDS).sum(-1), jnp.float32)
    v = jnp.zeros(END + 1)
    for _ in range(LIMIT):
        v = (pi * (paid + gamma * successors @ v)).sum(-1).at[END].set(0)
    return v, paid + gamma * successors @ v


@jax.jit
def gradient(params: PyTree, gamma: float) -> Array:
    """Of the mean (discounted) return of an episode by the policy's parameters, exactly, [P]."""
    return policy_part(jax.grad(lambda p: FIRST.astype(np.float32) @ values(probabilities(p), gamma)[0])(params))


def policy_part(params: PyTree) -> Array:
    """The parameters of the policy, [P]: for each action its bias, then for each state those of its actions."""
    return ravel_pytree(params["params"]["policy"])[0]


def parameters(seed: int) -> PyTree:
    """A policy that prefers some actions, and the value with which learning would begin."""
    key, key_policy = jax.random.split(jax.random.key(seed))
    params = policy.make(BASE.policy, SPEC, "reinforce").init(key)["params"]
    head, preferences = params["policy"], 0.7 * jax.random.normal(key_policy, (END + 2, ACTIONS))
    return {"params": params | {"policy": head | {"bias": 0.3 * preferences[0], "kernel": preferences[1:]}}}


def with_value(params: PyTree, v: Array) -> PyTree:
    """The same policy, with `v` [S] as its value."""
    return {"params": params["params"] | {"value": {"bias": jnp.zeros(1), "kernel": v[:, None]}}}


Entry = tuple[reinforce.Config, PyTree]  # an estimator: its settings and parameters


def estimates(entries: Sequence[Entry], batches: int, seed: int, steps: int = LIMIT, earlier: int = 0
              ) -> tuple[np.ndarray, np.ndarray]:
    """What updates add to the parameters of the policy, all estimators from the same rollouts.

    Args:
        entries: the estimators; of one policy and one `num_envs`.
        batches: M.
        seed: of the rollouts.
        steps: of each environment in a rollout, which begins with a new episode.
        earlier: rollouts that moving averages have seen.

    Returns:
        Estimates [K, M, P], and in how many complete episodes each batch has, [M].
    """
    config, params = entries[0]
    learners = [reinforce.make(config, SPEC).learner for config, _ in entries]
    source = rollout.rollout(adapt(Steps(), SPEC), reinforce.make(config, SPEC).explore,
                             rollout.Settings(config.num_envs, steps, config.gamma, fresh=True))

    def played(key: Key) -> Trajectory:
        keys, t = jax.random.split(key, 1 + source.keys), jnp.zeros((), jnp.int32)
        state, _ = source.collect(source.init(keys[0]), policy.Policy(params, None), keys[1:], t)
        return source.sample(state, key, t)[1]

    def updated(states: list[reinforce.State], trajectory: Trajectory) -> list[reinforce.State]:
        return [learner.update(state, trajectory, jax.random.key(0))[0]
                for learner, state in zip(learners, states, strict=True)]

    def feed(states: list[reinforce.State], key: Key) -> tuple[list[reinforce.State], None]:
        new = updated(states, played(key))
        return [old._replace(average=x.average) for old, x in zip(states, new, strict=True)], None

    def one(states: list[reinforce.State], key: Key) -> tuple[Array, Array]:
        trajectory = played(key)
        added = [policy_part(new.params) - policy_part(old.params)
                 for old, new in zip(states, updated(states, trajectory), strict=True)]
        return jnp.stack(added), trajectory.first[:steps - LIMIT + 1].sum()

    def program(key: Key) -> tuple[Array, Array]:
        states = [learner.init(key)._replace(params=params)
                  for learner, (_, params) in zip(learners, entries, strict=True)]
        key_feed, key = jax.random.split(key)
        if earlier:
            states, _ = jax.lax.scan(feed, states, jax.random.split(key_feed, earlier))
        return jax.lax.map(functools.partial(one, states), jax.random.split(key, batches), batch_size=min(batches, 500))

    found, episodes = jax.device_get(jax.jit(program, compiler_options=TRAIN_OPTIONS)(jax.random.key(seed)))
    return found.swapaxes(0, 1).astype(np.float64), episodes


def variance(found: np.ndarray) -> tuple[float, float]:
    """The trace of the covariance of estimates [M, P], and its standard error."""
    squares = np.square(found - found.mean(0)).sum(1)
    return float(squares.sum() / (len(squares) - 1)), float(squares.std() / len(squares) ** 0.5)


@dataclass(frozen=True, kw_only=True)
class Args(common.Args):
    """Flags of the study."""

    num_envs: int = 8
    """Episodes an update."""
    batches: int = 40_000
    """Updates that are estimated."""


def run(args: Args) -> dict[str, Any]:
    """Measure all, write and draw it."""
    check_between("num_envs", args.num_envs, 1, 10_000)
    check_between("batches", args.batches, 2, 10_000_000)
    common.check_folder(args)
    found = {"num_envs": args.num_envs, "batches": args.batches} | measure(args.num_envs, args.batches, args.seed)
    common.print_table("variance", list(RETURNS), {
        case: [row[kind]["variance"] for kind in RETURNS] for case, row in found["cases"].items()})
    return common.finish("baselines", args, found, draw)


RETURNS = {"to_go": ("returns=to_go: rewards from the action on", "#0072B2"),  # -> what is said of it, its colour
           "episode": ("returns=episode: all rewards of the episode", "#E69F00")}
CASES = {  # -> baseline, what is said of it
    "none": ("none", "none"),
    "constant": ("constant", "constant"),
    "batch": ("batch", "batch, as an estimate\nof {shrunk} of the gradient"),
    "leave_one_out": ("leave_one_out", "leave_one_out"),
    "value_initial": ("value", "value, as initialized"),
    "value_exact": ("value", "value, exact"),
}


def measure(num_envs: int, batches: int, seed: int) -> dict[str, Any]:
    """Of each case and kind of return the variance, its standard error, and the part of the gradient that is the mean."""
    params = parameters(seed)
    exact = np.asarray(gradient(params, BASE.gamma), np.float64)
    true = with_value(params, values(probabilities(params), BASE.gamma)[0])
    names = [(case, kind) for case in CASES for kind in RETURNS]
    found, _ = estimates([(replace(BASE, num_envs=num_envs, baseline=CASES[case][0], returns=kind),
                           true if case == "value_exact" else params) for case, kind in names], batches, seed, earlier=40)
    results: dict[str, dict] = {case: {} for case in CASES}
    for (case, kind), x in zip(names, found, strict=True):
        trace, error = variance(x)
        results[case][kind] = {"variance": trace, "standard_error": error,
                               "mean_along_gradient": float(x.mean(0) @ exact / (exact @ exact))}
    return {"squared_norm_of_gradient": float(exact @ exact), "cases": results}


def draw(found: dict[str, Any]) -> "Figure":
    """The picture of what `run` found."""
    figure, ((axes,),) = common.new_figure(1, 1, 8, 5)
    cases, height, num_envs = found["cases"], 0.38, found["num_envs"]
    for k, (kind, (label, color)) in enumerate(RETURNS.items()):
        numbers = [cases[case][kind]["variance"] for case in CASES]
        errors = [1.96 * cases[case][kind]["standard_error"] for case in CASES]
        bars = axes.barh(np.arange(len(CASES)) + (k - 0.5) * height, numbers, height * 0.94, xerr=errors, color=color,
                         label=label, error_kw={"elinewidth": 1.2, "capsize": 2.5})
        axes.bar_label(bars, [f"{x:.2f}" for x in numbers], padding=5, fontsize=9,
                       bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0})
    line = axes.axvline(found["squared_norm_of_gradient"], color="black", linestyle=":", linewidth=1.2)
    axes.margins(x=0.08)
    axes.set_yticks(range(len(CASES)), [said.format(shrunk=f"{num_envs - 1}/{num_envs}") for _, said in CASES.values()])
    axes.invert_yaxis()
    axes.set_title(f"REINFORCE on a problem of three steps, {num_envs} episodes an update")
    axes.set_xlabel("variance of the gradient's estimate: trace of its covariance, with 95 % intervals")
    axes.grid(axis="x", alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend([*handles, line], [*labels, "squared length of the gradient"], frameon=False, loc="center right")
    return figure
