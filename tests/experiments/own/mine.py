"""Everything that a person can bring: an agent, two models, a dataset, an environment; `tell` beside it is a command."""

from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.experimental.functional import FuncEnv

from jaxdl import optim
from jaxdl.core.config import config
from jaxdl.core.task import Curve, Sampler, Score
from jaxdl.core.types import Learner, Mean, UpdateResult
from jaxdl.data import minibatches
from jaxdl.generative.task import model_algorithm
from jaxdl.optim import Config as OptimConfig
from jaxdl.rl import agent_config, on_policy, policy, rollout
from jaxdl.rl.task import agent_algorithm
from jaxdl.runtime.dataset_task import dataset_algorithm

# --- An environment: the number that is seen is the action that is rewarded.


class Echo(FuncEnv):
    observation_space = gymnasium.spaces.Box(0, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    max_episode_steps = 5

    def initial(self, rng, params=None):
        return jax.random.bernoulli(rng).astype(jnp.int32)

    def transition(self, state, action, rng, params=None):
        return jax.random.bernoulli(rng).astype(jnp.int32)

    def observation(self, state, rng, params=None):
        return jax.nn.one_hot(state, 2)

    def reward(self, state, action, next_state, rng, params=None):
        return (action == state).astype(jnp.float32)

    def terminal(self, state, rng, params=None):
        return jnp.asarray(False)


# --- An agent: the score function without a baseline, with an optimizer for the policy and another that is there for its name.


@config
class AgentConfig(on_policy.Config):
    env_id: str = "mine:Echo"
    total_steps: int = 2_000
    rollout_steps: int = 5
    optim: OptimConfig = OptimConfig(learning_rate=0.05)
    other_optim: OptimConfig = OptimConfig(learning_rate=0.5)


def agent(config: AgentConfig, spec: Any, axis_name: str | None = None) -> Any:
    model = policy.make(config.policy, spec, "mine")
    optimizer = optim.make(config.optim, horizon=on_policy.planned_updates(config))

    def init(key):
        params = model.init(key)
        return on_policy.State(params, optimizer.init(params), model.moments)

    def update(state, trajectory, key):
        def loss_fn(params):
            out = model.unroll(params, trajectory.carry, trajectory.obs, trajectory.first)
            return -(model.actions.log_prob(out.dist, trajectory.choice.action) * (trajectory.reward - 0.5)).mean()

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        params, opt = optimizer.step(grads, state.opt, state.params, axis_name)
        return on_policy.State(params, opt, state.moments), UpdateResult({"loss": Mean.of(loss)})

    return on_policy.make_agent(model, init, update)


def validate(config: AgentConfig) -> None:
    on_policy.validate(config)
    rollout.check_sizes(config.total_steps, config.num_envs, config.rollout_steps)


AGENT = agent_algorithm("mine:AGENT", "the score function", AgentConfig, validate, agent, *on_policy.runs(agent))
assert issubclass(AgentConfig, agent_config.Config)


# --- Two models: the mean image, drawn with noise; and the mean of each class, the nearest of which is the guess.


@config
class ModelConfig(minibatches.Config):
    dataset: str = "mine:stripes"
    batch_size: int = 16
    rate: float = 0.1


class Model(NamedTuple):
    learner: Learner
    measure: Any
    sample: Any = None


def mean_image(config: ModelConfig, spec: Any, axis_name: str | None = None) -> Model:
    def update(state, examples, key):
        error = examples.images / 255 - state
        state = state + config.rate * error.mean(0)
        return state, UpdateResult({"mse": Mean.of(error**2)})

    def measure(params, examples, key):
        return {"mse": Mean.of((examples.images / 255 - params) ** 2)}

    def sample(params, key, n, labels=None):
        return jnp.clip(params + 0.1 * jax.random.normal(key, (n, *spec.shape)), 0, 1)

    return Model(Learner(lambda key: jnp.zeros(spec.shape), update, lambda state: state), measure, sample)


def nearest_mean(config: ModelConfig, spec: Any, axis_name: str | None = None) -> Model:
    def guess(params, images):
        return ((images[:, None] / 255 - params) ** 2).sum((2, 3, 4)).argmin(1)

    def update(state, examples, key):
        mine = jax.nn.one_hot(examples.labels, spec.num_classes).T  # [Y, B]
        means = jnp.einsum("yb,bhwc->yhwc", mine, examples.images / 255) / jnp.maximum(mine.sum(1), 1)[:, None, None, None]
        wrong = Mean.of(guess(state, examples.images) != examples.labels)
        return state + config.rate * (means - state), UpdateResult({"error": wrong})

    def measure(params, examples, key):
        return {"error": Mean.of(guess(params, examples.images) != examples.labels)}

    return Model(Learner(lambda key: jnp.zeros((spec.num_classes, *spec.shape)), update, lambda state: state), measure)


MODEL = model_algorithm(
    "mine:MODEL", "the mean image", ModelConfig, minibatches.validate, mean_image, minibatches.run_maker(mean_image),
    minibatches.total_steps, Score("mse", False, "squared error of my model"),
    (Curve("mse", False, "squared error of my model", "eval/mse"),),
    lambda config, spec, model: {Sampler: Sampler(model.sample)})
GUESS = dataset_algorithm(
    "mine:GUESS", "the nearest mean", ModelConfig, minibatches.validate, nearest_mean, minibatches.run_maker(nearest_mean),
    minibatches.total_steps, Score("error", False, "wrong guesses of mine"),
    (Curve("error", False, "wrong guesses of mine", "eval/error"),))


# --- A dataset: stripes, down or across.


def stripes(split: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(split == "test")
    labels = np.arange(64) % 2
    lines = np.where(np.arange(6) % 2, 255, 0)
    across = np.broadcast_to(lines, (6, 6))
    images = np.where(labels[:, None, None] == 0, across, across.T) * (rng.random((64, 6, 6)) < 0.9)
    return {"images": images.astype(np.uint8), "labels": labels}
