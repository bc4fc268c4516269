"""What `jaxdl train` can train: algorithms by name, and presets of them. A module is imported when it is asked for."""

import dataclasses
from typing import Any, NamedTuple

from jaxdl.core.config import suggest
from jaxdl.core.errors import UserError
from jaxdl.core.imports import is_name, load_object
from jaxdl.core.task import Algorithm

ALGORITHMS = {
    "dqn": "jaxdl.agents.dqn:ALGORITHM",
    "reinforce": "jaxdl.agents.reinforce:ALGORITHM",
    "actor_critic": "jaxdl.agents.actor_critic:ALGORITHM",
    "ppo": "jaxdl.agents.ppo:ALGORITHM",
    "vae": "jaxdl.generative.vae:ALGORITHM",
    "vqvae": "jaxdl.generative.vqvae:ALGORITHM",
    "autoencoder": "jaxdl.generative.autoencoder:ALGORITHM",
    "pixelcnn": "jaxdl.generative.pixel.pixelcnn:ALGORITHM",
    "pixelrnn": "jaxdl.generative.pixel.pixelrnn:ALGORITHM",
    "gan": "jaxdl.generative.gan:ALGORITHM",
    "language_model": "jaxdl.generative.text.language_model:ALGORITHM",
    "classifier": "jaxdl.supervised.classifier:ALGORITHM",
    "regressor": "jaxdl.supervised.regressor:ALGORITHM",
    "seq2seq": "jaxdl.supervised.seq2seq:ALGORITHM",
    "segmenter": "jaxdl.supervised.segmenter:ALGORITHM",
    "localizer": "jaxdl.supervised.localizer:ALGORITHM",
    "detector": "jaxdl.supervised.detector:ALGORITHM",
    "captioner": "jaxdl.supervised.captioner:ALGORITHM",
    "vqa": "jaxdl.supervised.vqa:ALGORITHM",
    "attention_reader": "jaxdl.supervised.attention_reader:ALGORITHM",
}


class Preset(NamedTuple):
    """Settings of an algorithm under a name of their own; they replace defaults."""

    algo: str
    config: dict[str, Any]  # a dict within is for the settings within
    train: dict[str, Any]
    summary: str


PRESETS = {
    "cartpole": Preset("dqn", {}, {"eval_every": 10_000, "stop_at": 490.0},
                       "dqn on CartPole-v1 until an evaluation reaches 490"),
    "double_dqn": Preset("dqn", {"double": True}, {}, "dqn with double Q-learning"),
    "rainbow": Preset("dqn", {"double": True, "dueling": True, "n_steps": 3, "prioritized": True, "noisy": True,
                              "distribution": "c51"}, {},
                      "dqn with all of its options: Rainbow (Hessel et al. 2018)"),
    "atari": Preset("dqn", {"env_id": "ALE/Pong-v5", "total_steps": 10_000_000, "hidden_sizes": (512,), "clip_reward": True,
                            "buffer_size": 400_000, "learning_starts": 80_000, "batch_size": 32, "gradient_steps": 2,
                            "tau": 1.0, "target_update_interval": 1_000, "exploration_fraction": 0.1,
                            "exploration_final_eps": 0.01, "loss": "huber", "optim": {"learning_rate": 1e-4}},
                    {"checkpoint_memory": False, "eval_episodes": 10},
                    "dqn on Atari games with the settings of CleanRL, an update for 4 steps; --env-id ALE/...-v5"),
    "ppo_cartpole": Preset("ppo", {"rollout_steps": 32, "total_steps": 100_000, "optim": {"learning_rate": 3e-3}},
                           {"quick_compile": True, "eval_every": 8_192, "stop_at": 475.0},
                           "ppo on CartPole-v1 until an evaluation reaches 475"),
    "ppo_continuous": Preset("ppo", {"total_steps": 500_000, "rollout_steps": 256, "num_minibatches": 32, "num_epochs": 10,
                                     "ent_coef": 0.0, "normalize_reward": True, "policy": {"normalize_obs": True},
                                     "optim": {"learning_rate": 3e-4}}, {},
                             "ppo for continuous actions with CleanRL's settings, 8 environments; --env-id HalfCheetah-v5"),
    "ppo_minatar": Preset("ppo", {"env_id": "Breakout-MinAtar", "num_envs": 64, "total_steps": 10_000_000,
                                  "num_minibatches": 8, "policy": {"activation": "relu"},
                                  "optim": {"learning_rate": 5e-3}}, {},
                          "ppo on MinAtar's small games with the settings of PureJaxRL; --env-id ...-MinAtar"),
    "minatar": Preset("dqn", {"env_id": "Breakout-MinAtar", "total_steps": 1_000_000, "hidden_sizes": (128,),
                              "learning_starts": 5_000, "batch_size": 32,
                              "optim": {"learning_rate": 5e-4, "schedule": "linear", "final_fraction": 0.05}}, {},
                      "dqn on MinAtar's small games with the network of Young & Tian (2019); --env-id ...-MinAtar"),
}


def load(name: str) -> Algorithm:
    """The algorithm called `name`, or the one that `package.module:NAME` names.

    Raises:
        UserError: there is none; names the closest one.
    """
    if name in ALGORITHMS:
        return load_object(ALGORITHMS[name], "algorithm")
    if not is_name(name):
        raise UserError(f"there is no algorithm '{name}'{suggest(name, ALGORITHMS)}")
    found = load_object(name, "algorithm")
    if not isinstance(found, Algorithm):
        raise UserError(f"the algorithm '{name}' must be a jaxdl.core.task.Algorithm, got {type(found).__name__}")
    return found


def find(name: str) -> tuple[str, Preset | None]:
    """The name of an algorithm, and the preset of it, where `name` is a preset's.

    Raises:
        UserError: it is neither; names the closest one.
    """
    if name in PRESETS:
        return PRESETS[name].algo, PRESETS[name]
    if name in ALGORITHMS or is_name(name):
        return name, None
    raise UserError(f"there is no algorithm or preset '{name}'{suggest(name, [*ALGORITHMS, *PRESETS])}")


def replaced(config: Any, values: dict[str, Any]) -> Any:
    """A config with other values of some of its fields."""
    return dataclasses.replace(config, **{
        name: replaced(getattr(config, name), value) if isinstance(value, dict) else value for name, value in values.items()})
