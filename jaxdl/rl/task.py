"""Agents as algorithms of the command line: an agent's module says what it is, this module gives it environments.

ALGORITHM = agent_algorithm("dqn", "deep Q-learning ...", Config, validate, make, make_run, make_host_run)
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxdl.core import processes, stdio, task
from jaxdl.core.axis import check_share
from jaxdl.core.config import config as settings
from jaxdl.core.config import require_positive
from jaxdl.core.errors import EnvError, UserError
from jaxdl.core.task import Algorithm, Curve, Film, Score, Task
from jaxdl.core.types import PyTree, Run
from jaxdl.rl import envs, evaluate, observations, video
from jaxdl.rl.host_driver import make_host_driver
from jaxdl.rl.types import Agent, EnvSpec, HostRun
from jaxdl.runtime import fit
from jaxdl.runtime.device_driver import make_device_driver

RETURN = Score("return_mean", True, "mean return of greedy episodes")
CURVES = (
    Curve("eval/return_mean", True, "mean return of evaluation episodes (reward)", short="return"),
    Curve("episode_return", True, "mean return of training episodes (reward)", "eval/return_mean", short="return"),
    Curve("loss", False, "loss", "eval/loss", 0.05, short="loss"),
)


@settings
class TrainConfig(fit.Config):
    """How the run of an agent is driven."""

    eval_episodes: int = 100
    """Episodes of one evaluation."""


@dataclass(frozen=True)
class Options(task.Options):
    """Settings of an agent's evaluation."""

    episodes: int = 100
    """Greedy episodes."""

    def validate(self) -> None:
        """Refuse a number of episodes that is none."""
        if self.episodes < 1:
            raise UserError(f"episodes must be above 0, got {self.episodes}")


def with_spread(mean: float, spread: float) -> str:
    """'475.2 +- 30.1': both with as many digits as the spread, or without one the mean, needs to be told from 0."""
    size = abs(spread) or abs(mean) or 1.0
    digits = min(max(1, 1 - math.floor(math.log10(size))), 9) if math.isfinite(size) else 1
    return f"{mean:.{digits}f} +- {spread:.{digits}f}"


def agent_algorithm(
    name: str,
    summary: str,
    config: type,
    validate: Callable[[Any], None],
    make: Callable[[Any, EnvSpec], Agent],
    make_run: Callable[..., Run],
    make_host_run: Callable[..., HostRun],
    warn: Callable[[Any, dict[str, Any]], str | None] = lambda config, values: None,
) -> Algorithm:
    """The algorithm of an agent.

    Args:
        config: has `env_id`, `env`, `backend`, `vectorization`, `num_envs` and `total_steps`.
        validate: refuses settings that make no sense.
        make: (config, spec) -> the learner with its policies.
        make_run: (config, env=None, axis_name=, shards=) -> the run on the device; it makes environments that are not given.
        make_host_run: (config, spec, axis_name=, shards=) -> the run with environments on the host.
        warn: (config, a row of metrics) -> what the user should know of it, or None.
    """

    def opened(config: Any, train: fit.Config) -> Task:
        return _open(config, train, make, make_run, make_host_run, warn)

    return Algorithm(name, summary, config, validate, opened, RETURN, CURVES, "env_id", "environment steps", TrainConfig)


def _open(config: Any, train: fit.Config, make: Callable, make_run: Callable, make_host_run: Callable, warn: Callable) -> Task:
    require_positive(train, "eval_episodes")
    backend = envs.resolve_backend(config.env_id, config.backend, config.env)
    spec = envs.spec(config.env_id, config.env)
    agent = make(config, spec)
    if sentence := observations.doubt(spec):
        stdio.say(f"jaxdl: {sentence}")
    if train.devices > 1 and backend == "device" and spec.lives == "emulator":
        raise UserError(f"devices={train.devices} cannot share {config.env_id}, which runs in an emulator outside of JAX; use "
                        "backend=host")

    def drive(configs: Sequence[Any], seeds: Sequence[int], train: fit.Config, written_by: int | None = None) -> Any:
        if len(seeds) > 1 and (backend == "host" or spec.lives == "emulator"):
            where = "on the host" if backend == "host" else "outside of JAX"
            raise UserError(f"a population of {len(seeds)} (num_seeds, sweep) needs an environment in JAX, and {config.env_id} "
                            f"runs {where}; train its members one after the other")
        how = {"quick": train.quick_compile, "devices": train.devices, "written_by": written_by}
        if backend == "device":
            env = envs.make_device(config.env_id, config.env, config.num_envs)  # once: a program makes its run again and again
            return make_device_driver(lambda c, **axis: make_run(c, env=env, **axis), list(configs), None, seeds, **how)
        check_share("num_envs", config.num_envs, processes.count())
        venv = envs.make_host(config.env_id, config.num_envs // processes.count(), config.vectorization, config.env)
        try:
            return make_host_driver(lambda c, **axis: make_host_run(c, spec, **axis), configs[0], venv, seeds[0], **how)
        except BaseException:
            with contextlib.suppress(EnvError):
                venv.close()
            raise

    on_host = backend == "host" and spec.lives == "host"

    def evaluated(params: PyTree, options: Options) -> dict[str, Any]:
        options.validate()
        result = evaluate.evaluate(agent.greedy, params, config.env_id, episodes=options.episodes, seed=options.seed,
                                   settings=config.env, vectorization=config.vectorization if on_host else "auto",
                                   alone=on_host and config.num_envs == 1)
        return {"episodes": result.episodes, "return_mean": result.return_mean, "return_std": result.return_std}

    def film(params: PyTree, seed: int, path: Path) -> None:
        video.record(agent.greedy, params, config.env_id, path, seed=seed, settings=config.env)

    def describe(found: dict[str, Any]) -> str:
        whose = "Gymnasium's own " if envs.is_gymnasiums(config.env_id) else ""
        return (f"mean return over {found['episodes']} greedy episodes in {whose}{config.env_id}: "
                f"{with_spread(found['return_mean'], found['return_std'])}")

    return Task(config.env_id, config.total_steps, agent.learner, drive, evaluated, Options(train.seed, train.eval_episodes),
                {Agent: agent, Film: Film(film)}, {"policy.gif": film}, describe, (1, "environment steps"),
                make_run if backend == "device" else None, warn=lambda values: warn(config, values))
