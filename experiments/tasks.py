"""From settings to a task, and trained runs read back."""

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.core import files, processes, stdio, streams
from jaxdl.core.errors import JaxdlError, UserError, in_a_sentence
from jaxdl.core.streams import Purpose
from jaxdl.core.task import Sampler, Task
from jaxdl.core.types import PyTree, RunState
from jaxdl.experiments.population import Member, alone, in_words, members
from jaxdl.experiments.run_folder import Settings, open_run, write_config
from jaxdl.rl import envs
from jaxdl.rl.episode_stats import reset_carry
from jaxdl.rl.types import Actor, Agent
from jaxdl.runtime import checkpoint, fit
from jaxdl.runtime.device_driver import Driver


class EvaluationError(JaxdlError):
    """A run is trained to its end, and could not be evaluated."""


def open_task(settings: Settings) -> Task:
    """The task of a run.

    Raises:
        UserError: the environment or the dataset cannot be had, or does not fit the algorithm.
    """
    return settings.algorithm.open(settings.config, settings.train)


def reopen(settings: Settings) -> Task:
    """The task of a run that was trained, for what may need no data: a dataset is read when it is first asked for.

    Raises:
        UserError: as `open_task`.
    """
    algorithm = settings.algorithm
    if settings.spec is None or algorithm.reopen is None:
        return open_task(settings)
    return algorithm.reopen(settings.config, settings.train, settings.spec)


def driver(task: Task, settings: Settings, written_by: int | None = None) -> Driver:
    """The run of a task, compiled.

    Args:
        written_by: how many devices wrote the checkpoint that will be read, if not as many.

    Raises:
        UserError: the devices cannot share the run, or it does not fit into memory.
    """
    of_each = population(settings)
    return task.drive([member.config(settings.config) for member in of_each], [member.seed for member in of_each],
                      settings.train, written_by)


def population(settings: Settings) -> list[Member]:
    """The members that the run trains; one where it is no population."""
    return members(settings.config, settings.train)


def meta(settings: Settings) -> dict[str, Any]:
    """What a checkpoint must agree with to be continued: the settings that shape the state or steer the run."""
    swept = {"sweep": list(settings.train.sweep)} if settings.train.sweep else {}
    return {"algo": settings.algo, "seed": settings.train.seed, "num_seeds": settings.train.num_seeds,
            "config": settings.config} | swept


@dataclass(frozen=True)
class TrainedRun:
    """A trained run, read back.

    An agent acts by `act`. A recurrent policy keeps a hidden state: start with `carry = run.begin(N)`, then call
    `action, carry = run.play(obs, carry)`, which serve every agent. A generative model draws by `sample`.
    """

    folder: Path
    settings: Settings
    params: PyTree  # with a leading axis of members where the run is a population and none was chosen
    step: int
    task: Task
    members: int = 1  # that the parameters have an axis of

    def act(self, obs: np.ndarray) -> np.ndarray:
        """Greedy actions [N, ...] of observations [N, ...], or the action of one observation.

        Raises:
            UserError: the run is no agent's, a population's, the policy is recurrent, or observations of other shapes.
        """
        if self._is_recurrent:
            raise UserError(f"the policy of {self.folder} is recurrent, and run.act would lose its hidden state at every step; "
                            "use carry = run.begin(N), then action, carry = run.play(obs, carry)")
        obs = np.asarray(obs)
        return self.play(obs[None], None)[0][0] if obs.shape == self._obs_shape else self.play(obs, None)[0]

    def begin(self, n: int) -> PyTree:
        """The hidden state of `n` episodes that begin; None where a policy has none."""
        return self._policy.init(n)

    def play(self, obs: np.ndarray, carry: PyTree, first: np.ndarray | None = None) -> tuple[np.ndarray, PyTree]:
        """Greedy actions [N, ...] of observations [N, ...], and the next hidden state.

        Args:
            first: bool [N], where an episode begins with this observation.
        """
        if self._is_recurrent and carry is None:
            raise UserError(f"the policy of {self.folder} is recurrent and needs its hidden state: start with "
                            f"carry = run.begin({len(obs)})")
        obs, shape = np.asarray(obs), self._obs_shape
        if obs.ndim == 0 or obs.shape[1:] != shape or obs.dtype.kind not in "biuf":
            raise UserError(f"observations of {self.task.subject} must be numbers of shape "
                            f"[{', '.join(map(str, ('N', *shape)))}], got {obs.dtype}{list(obs.shape)}; those of Dict and "
                            "Tuple are one vector each")
        obs = jnp.asarray(obs)
        first = jnp.zeros(len(obs), bool) if first is None else jnp.asarray(first, bool)
        action, carry = self._play(self.params, obs, carry, first)
        return np.asarray(action), carry

    def sample(self, n: int, seed: int = 0) -> np.ndarray:
        """`n` images [N, H, W, C] in [0, 1].

        Raises:
            UserError: the run's model draws nothing, it is a population's, or `n` or `seed` is out of range.
        """
        for name, value, low in (("n", n, 1), ("seed", seed, 0)):
            if not isinstance(value, int | np.integer) or not low <= value < 2**32:
                raise UserError(f"{name} must be a whole number from {low} to 2**32 - 1, got {value!r}")
        return np.asarray(self._draw(self.params, streams.key(seed, Purpose.SAMPLES), n))

    @functools.cached_property
    def _policy(self) -> Actor:
        return self._ability(Agent, "a policy").greedy

    @functools.cached_property
    def _obs_shape(self) -> tuple[int, ...]:
        config = self.settings.config
        return envs.spec(config.env_id, config.env).observation_space.shape or ()

    @functools.cached_property
    def _is_recurrent(self) -> bool:
        return bool(jax.tree.leaves(jax.eval_shape(lambda: self._policy.init(1))))

    @functools.cached_property
    def _play(self) -> Callable[..., tuple[jax.Array, PyTree]]:
        actor, key, t = self._policy, jax.random.key(0), jnp.zeros((), jnp.int32)

        @jax.jit
        def step(params: PyTree, obs: jax.Array, carry: PyTree, first: jax.Array) -> tuple[jax.Array, PyTree]:
            carry, action, _ = actor.act(params, reset_carry(actor, carry, first), obs, key, t)
            return action, carry

        return step

    @functools.cached_property
    def _draw(self) -> Callable[..., jax.Array]:
        return jax.jit(self._ability(Sampler, "a sampler").draw, static_argnums=2)

    def _ability(self, kind: type, what: str) -> Any:
        if self.members > 1:
            raise UserError(f"{self.folder} is a population of {self.members}; load one of them with member=0 to "
                            f"{self.members - 1}")
        if kind not in self.task.abilities:
            raise UserError(f"{self.folder} is a run of {self.settings.algo}, which has not {what}")
        return self.task.abilities[kind]


def train(folder: Path, settings: Settings, task: Task, driver: Driver, resume: bool = False) -> dict[str, Any]:
    """Train in a run folder until the end, and leave its summary and pictures there. Returns the summary."""
    from jaxdl.experiments import run_report  # draws, and so imports much

    def goes_on() -> None:
        if resume and processes.is_first():
            write_config(folder, settings)
            (folder / "summary.json").unlink(missing_ok=True)  # was of the run up to here

    def evaluated(params: PyTree) -> dict[str, Any]:
        return task.evaluate(params, task.options)

    result = fit.fit(
        driver, settings.train, task.total_steps, folder=folder, meta=meta(settings), resume=resume,
        evaluate=task.choose or evaluated, score=settings.algorithm.score_of(settings.config),
        callbacks=fit.Callbacks(ready=goes_on, warn=task.warn, show_progress=stdio.is_terminal(sys.stderr),
                                watched=settings.algorithm.curves))
    found, failed = result.eval, result.failed
    if task.choose:  # what chose does not judge
        found = None
        if not failed and result.ended != "interrupted":
            try:
                found = [evaluated(p) for p in fit.members_of(result.params, driver.members)]
            except Exception as e:
                failed = e
    summary = {
        "algo": settings.algo, settings.algorithm.subject: task.subject, "seed": settings.train.seed, "steps": result.step,
        "updates": result.updates, "compile_s": round(result.compile_s, 3), "train_s": round(result.train_s, 3),
        "steps_per_s": round(result.steps_per_s, 1), "ended": result.ended,
        "eval": run_report.of_members(settings, found), "run": str(folder)}
    if failed:
        summary["evaluation_failed"] = in_a_sentence(failed)
    if processes.is_first():
        files.write_json(folder / "summary.json", summary)
        if result.ended == "interrupted":
            print(f"interrupted at step {result.step:,}; the checkpoint is written; continue with: "
                  f"{stdio.command('resume', folder)}")
        else:
            pictures = run_report.save_pictures(folder, settings, task, result.params)
            print("\n".join(run_report.last_lines(folder, settings, task, summary, pictures)))
    if failed:
        raise EvaluationError(f"the evaluation at the end failed: {summary['evaluation_failed']}; the training is finished and "
                              f"its last checkpoint is whole: {stdio.quoted('resume', folder)} evaluates it again") from failed
    members = (summary["eval"] or {}).get("members")
    return summary | ({"members": members} if members and processes.is_first() else {})  # where `evaluate` has them too


def load_run(folder: str | Path, *, best: bool = False, step: int | None = None, member: int | None = None,
             data_dir: str | Path | None = None, task: Task | None = None) -> TrainedRun:
    """Read a run back: its settings, its parameters, and what they do.

    Args:
        folder: of the run.
        best: the parameters of the best evaluation, in place of the newest.
        step: those of the checkpoint of this step.
        member: of a population, this one alone; what acts or draws needs one.
        data_dir: where the dataset lies, if not where it was at training.
        task: the run's, where it is open already.

    Raises:
        UserError: no run there, no checkpoint (`best`: no evaluation) in it, or no such member.
        CheckpointError: the checkpoint is damaged or of another run.
    """
    if not isinstance(folder, str | Path):
        raise UserError(f"folder must be the path of a run, got {folder!r}")
    folder = Path(folder)
    settings = open_run(folder)
    of_each = population(settings)
    count = len(of_each)
    if member is not None and (not isinstance(member, int | np.integer) or not 0 <= member < count):
        raise UserError(f"member must lie between 0 and {count - 1}, got {member!r}")
    if step is not None and (not isinstance(step, int | np.integer) or step < 0):
        raise UserError(f"step must be that of a checkpoint, got {step!r}")
    if task is None:
        task = reopen(settings if data_dir is None else with_data_dir(settings, data_dir))
    keys = jax.eval_shape(jax.vmap(jax.random.key), jnp.zeros(count, jnp.uint32))
    init = task.learner.init if count == 1 else jax.vmap(task.learner.init)
    state = jax.eval_shape(lambda keys: init(keys[0] if count == 1 else keys), keys)
    if best:
        if step is not None:
            raise UserError(f"step={step} and best choose two checkpoints; give one of them")
        if not checkpoint.steps(folder / "best"):
            raise UserError(f"{folder} has no best parameters: it was trained without --eval-every")
        step, params = checkpoint.restore(folder / "best", jax.eval_shape(task.learner.params, state),
                                          meta=meta(settings))
    else:
        like = RunState(state, None, None, None)
        step, read = checkpoint.restore(folder / "checkpoints", like, step=step,
                                        meta=meta(settings), partial=True)
        params = task.learner.params(read.learner)
    if member is None:
        return TrainedRun(folder, settings, params, step, task, count)
    params = jax.tree.map(lambda x: x[member], params) if count > 1 else params
    return TrainedRun(folder, alone(settings, of_each[member]), params, step, task)


def load_first(folder: Path, **how: Any) -> TrainedRun:
    """A run as `load_run` reads it back; of a population its first member, which is said."""
    of_each = population(open_run(folder))
    if len(of_each) > 1:
        print(f"{folder} is a population: this is of {in_words(of_each, 0)}; "
              f"{stdio.quoted('export', folder, '--member', 'K')} makes a run of another")
    return load_run(folder, member=0, **how)


def with_data_dir(settings: Settings, data_dir: str | Path) -> Settings:
    """The settings with the dataset's files in another folder."""
    if "data_dir" not in [field.name for field in fields(settings.config)]:
        raise UserError(f"data_dir={data_dir} is for what learns from a dataset, and this is a run of {settings.algo}")
    return settings._replace(config=replace(settings.config, data_dir=str(data_dir)))
