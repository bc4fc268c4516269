"""From settings to a job: the driver of the run, its evaluation, and what can be shown of it.

One function for each half: agents meet environments, generative models meet datasets.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import data as datasets
from jaxdl.core import processes
from jaxdl.core.axis import check_share
from jaxdl.core.errors import UserError
from jaxdl.core.task import Score
from jaxdl.core.types import Examples, Key, PyTree, Run, RunState
from jaxdl.experiments.population import Member, alone, members
from jaxdl.experiments.run_folder import Settings, open_run
from jaxdl.rl import envs, evaluate
from jaxdl.rl.episode_stats import reset_carry
from jaxdl.rl.host_driver import make_host_driver
from jaxdl.rl.types import Actor, Env
from jaxdl.runtime import checkpoint, device_driver
from jaxdl.runtime.device_driver import make_device_driver

_JUDGED = 10_000  # samples that are compared with test images, where there are as many of those
_AT_ONCE = 1_000  # of them drawn in one call


class Job(NamedTuple):
    """What training and looking at a run needs. Nothing is compiled before `driver` is called."""

    what: dict[str, str]  # {"env_id": ...} or {"dataset": ...}
    total_steps: int  # of the planned run
    driver: Callable[..., device_driver.Driver]  # (written_by=None): of how many devices the checkpoint is that will be read
    evaluate: Callable[..., dict[str, Any]]  # (params, **options) -> numbers
    score: Score  # the number of `evaluate` that decides which parameters are the best
    model: Any  # the Agent, or the generative model
    make_run: Callable[..., Run] | None = None  # (config, axis_name=, shards=); None where environments live on the host
    train: datasets.Dataset | None = None  # the images
    test: datasets.Dataset | None = None  # held-out images
    doubt: Callable[[dict[str, Any]], str | None] = lambda values: None  # a row of metrics -> what the user should know of it


def open_job(settings: Settings) -> Job:
    """The job of a run.

    Raises:
        UserError: the environment or the dataset cannot be had, or does not fit the algorithm.
    """
    return (_agent if settings.algorithm.kind == "agent" else _generative)(settings)


def population(settings: Settings) -> list[Member]:
    """The members that the run trains; one where it is no population."""
    return members(settings.config, settings.train)


def _agent(settings: Settings) -> Job:
    module, config, train = settings.algorithm.load(), settings.config, settings.train
    backend = envs.resolve_backend(config.env_id, config.backend)
    spec = envs.spec(config.env_id, config.env)
    agent = module.make(config, spec)
    of_each = population(settings)
    if train.devices > 1 and backend == "device" and spec.lives == "emulator":
        raise UserError(f"devices={train.devices} cannot share {config.env_id}, whose games are in no device; use backend=host")
    configs, seeds = [member.config(config) for member in of_each], [member.seed for member in of_each]
    if len(of_each) > 1 and (backend == "host" or spec.lives == "emulator"):
        where = "on the host" if backend == "host" else "outside of JAX"
        raise UserError(f"a population of {len(of_each)} (num_seeds, sweep) needs an environment in JAX, and {config.env_id} "
                        f"runs {where}; train its members one after the other")

    def make_env() -> Env:
        return envs.make_device(config.env_id, config.env, config.num_envs)

    def make_run(c: Any, env: Env | None = None, **axis: Any) -> Run:
        return module.make_run(c, env=make_env() if env is None else env, **axis)

    def driver(written_by: int | None = None) -> device_driver.Driver:
        if backend == "device":
            return make_device_driver(functools.partial(make_run, env=make_env()), configs, None, seeds,
                                        quick=train.quick_compile, devices=train.devices, written_by=written_by)
        check_share("num_envs", config.num_envs, processes.count())
        venv = envs.make_host(config.env_id, config.num_envs // processes.count(), config.vectorization, config.env)
        return make_host_driver(lambda c, **axis: module.make_host_run(c, spec, **axis), config, venv, train.seed,
                         quick=train.quick_compile, devices=train.devices, written_by=written_by)

    def evaluation(params: PyTree, *, episodes: int = train.eval_episodes, seed: int = train.seed) -> dict[str, Any]:
        result = evaluate.evaluate(agent.greedy, params, config.env_id, episodes=episodes, seed=seed, settings=config.env)
        return {"episodes": result.episodes, "return_mean": result.return_mean, "return_std": result.return_std}

    return Job({"env_id": config.env_id}, config.total_steps, driver, evaluation,
               Score("return_mean", higher=True, label="mean return"), agent,
               make_run if backend == "device" else None,
               doubt=lambda values: module.doubt(config, values) if hasattr(module, "doubt") else None)


def _generative(settings: Settings) -> Job:
    module, config, train = settings.algorithm.load(), settings.config, settings.train
    train_data, test = datasets.load_splits(config.dataset, config.data_dir)
    spec = train_data.spec
    datasets.require_images(spec, settings.algo)
    if config.batch_size > spec.num_examples:
        raise UserError(f"batch_size={config.batch_size} is above the {spec.num_examples} training images of "
                        f"{config.dataset}; lower it")
    model = module.make(config, spec)
    of_each = population(settings)
    configs, seeds = [member.config(config) for member in of_each], [member.seed for member in of_each]

    def make_run(c: Any, **axis: Any) -> Run:
        return module.make_run(c, spec, **axis)

    def driver(written_by: int | None = None) -> device_driver.Driver:
        return make_device_driver(make_run, configs, train_data.on_device(), seeds,
                            quick=train.quick_compile, devices=train.devices, written_by=written_by)

    by_features = model.measure is None  # there is nothing else to tell it by
    if by_features and spec.num_classes is None:
        raise UserError(f"a {settings.algo} is evaluated by the features of a classifier, and the dataset {config.dataset} has "
                        "no labels to train one")
    measure = None if by_features else jax.jit(model.measure)
    draw = None if model.sample is None else jax.jit(model.sample, static_argnums=2)
    log_prob = None if model.log_prob is None else jax.jit(model.log_prob, static_argnums=(3, 4))

    def evaluation(params: PyTree, *, seed: int = train.seed, importance_samples: int | None = None,
                   features: bool = by_features) -> dict[str, Any]:
        if importance_samples and log_prob is None:
            raise UserError(f"importance_samples is for models with a density, and this is a {settings.algo}")
        if importance_samples and model.complete is not None:
            raise UserError(f"importance_samples estimates a density that is an integral, and that of a {settings.algo} is "
                            "exact: its nll is reported without")
        if features and draw is None:
            raise UserError(f"features judge what is sampled, and a {settings.algo} cannot sample")
        totals: dict[str, list] = {}
        for key, batch in _batches(test, seed) if measure else ():
            for name, mean in measure(params, batch, key).items():
                totals.setdefault(name, []).append(mean)
            if importance_samples:
                nll = -log_prob(params, batch, key, importance_samples, min(importance_samples, 50))
                totals.setdefault("nll", []).append((nll.sum(), len(nll)))
        found = {"num": test.spec.num_examples} | {
            name: float(sum(float(t) for t, _ in means) / sum(float(n) for _, n in means)) for name, means in totals.items()}
        if features:
            from jaxdl.experiments import sample_judge

            num = min(_JUDGED, test.spec.num_examples, spec.num_examples)
            sizes = [min(_AT_ONCE, num - i) for i in range(0, num, _AT_ONCE)]
            keys = jax.random.split(jax.random.key(seed), len(sizes))
            images = np.concatenate([np.asarray(draw(params, key, size)) for key, size in zip(keys, sizes, strict=True)])
            judges = {name: sample_judge.judge(name, train_data, test) for name in sample_judge.JUDGES}
            found |= sample_judge.figures(sample_judge.as_bytes(images), train_data, test, judges)
        return found

    return Job({"dataset": config.dataset}, module.total_steps(config, spec), driver, evaluation,
               Score(model.score.removeprefix("-"), higher=not model.score.startswith("-"), label=model.score), model,
               make_run, train_data, test)


def _batches(data: datasets.Dataset, seed: int, size: int = 100) -> Iterator[tuple[Key, Examples]]:
    keys = jax.random.key(seed)
    for i in range(0, data.spec.num_examples, size):
        yield jax.random.fold_in(keys, i), data.rows(slice(i, i + size))


def meta(settings: Settings) -> dict[str, Any]:
    """What a checkpoint must agree with to be continued: the settings that shape the state or steer the run."""
    swept = {"sweep": list(settings.train.sweep)} if settings.train.sweep else {}
    return {"algo": settings.algo, "seed": settings.train.seed, "num_seeds": settings.train.num_seeds,
            "config": settings.config} | swept


class Loaded(NamedTuple):
    """A trained run, read back.

    An agent acts by `act`; one that keeps something in mind (`recurrent`) by `begin` and `play`, which serve every agent:

        carry = run.begin(len(obs))
        action, carry = run.play(obs, carry)
    """

    settings: Settings
    params: PyTree  # with a leading axis of members where the run is a population and none was chosen
    step: int
    act: Callable[[np.ndarray], np.ndarray] | None  # agents: obs [N, ...] -> greedy actions [N, ...]
    begin: Callable[[int], PyTree] | None  # agents: N -> carry of N episodes that begin; None where nothing is kept in mind
    play: Callable[..., tuple[np.ndarray, PyTree]] | None  # agents: (obs, carry, first) -> (actions, carry); where bool
    # first [N] is given and true, an episode begins with this observation
    sample: Callable[[int, int], np.ndarray] | None  # generative models: (N, seed) -> images [N, H, W, C] in [0, 1]
    job: Job


def load(folder: str | Path, *, best: bool = False, step: int | None = None, member: int | None = None,
         data_dir: str | Path | None = None) -> Loaded:
    """Read a run back: its settings, its parameters, and what they do.

    Args:
        folder: of the run.
        best: the parameters of the best evaluation, in place of the newest.
        step: those of the checkpoint of this step.
        member: of a population, this one alone; what acts or draws needs one.
        data_dir: where the dataset lies, if not where it was at training.

    Raises:
        UserError: no run there, no checkpoint (`best`: no evaluation) in it, or no such member.
        CheckpointError: the checkpoint is damaged or of another run.
    """
    folder = Path(folder)
    settings = open_run(folder)
    of_each = population(settings)
    count = len(of_each)
    if member is not None and not 0 <= member < count:
        raise UserError(f"member must lie between 0 and {count - 1}, got {member}")
    job = open_job(settings if data_dir is None else _with_data_dir(settings, data_dir))
    learner = job.model.learner
    keys = jax.eval_shape(jax.vmap(jax.random.key), jnp.zeros(count, jnp.uint32))
    init = learner.init if count == 1 else jax.vmap(learner.init)
    state = jax.eval_shape(lambda keys: init(keys[0] if count == 1 else keys), keys)
    if best:
        if not checkpoint.steps(folder / "best"):
            raise UserError(f"{folder} has no best parameters: it was trained without --eval-every")
        step, params = checkpoint.restore(folder / "best", jax.eval_shape(learner.params, state), meta=meta(settings))
    else:
        like = RunState(state, None, None, None)
        step, read = checkpoint.restore(folder / "checkpoints", like, step=step, meta=meta(settings), partial=True)
        params = learner.params(read.learner)
    if member is not None:
        settings = alone(settings, of_each[member])
        params = jax.tree.map(lambda x: x[member], params) if count > 1 else params
    if count > 1 and member is None:
        def choose(*args: Any) -> np.ndarray:
            raise UserError(f"{folder} is a population of {count}; load one of them with member=0 to {count - 1}")

        agent = settings.algorithm.kind == "agent"
        acting = 3 * (choose if agent else None,)
        return Loaded(settings, params, step, *acting, None if agent else choose, job)
    if settings.algorithm.kind == "agent":
        return Loaded(settings, params, step, *_acting(job.model.greedy, params, folder), None, job)
    if job.model.sample is None:
        return Loaded(settings, params, step, None, None, None, None, job)
    draw = jax.jit(job.model.sample, static_argnums=2)

    def sample(n: int, seed: int = 0) -> np.ndarray:
        return np.asarray(draw(params, jax.random.key(seed), n))

    return Loaded(settings, params, step, None, None, None, sample, job)


def _acting(actor: Actor, params: PyTree, folder: Path) -> tuple[Callable, Callable, Callable]:
    """`Loaded.act`, `begin` and `play`."""
    key, t = jax.random.key(0), jnp.zeros((), jnp.int32)
    recurrent = bool(jax.tree.leaves(jax.eval_shape(lambda: actor.init(1))))

    @jax.jit
    def step(params: PyTree, obs: jax.Array, carry: PyTree, first: jax.Array) -> tuple[jax.Array, PyTree]:
        carry, action, _ = actor.act(params, reset_carry(actor, carry, first), obs, key, t)
        return action, carry

    def play(obs: np.ndarray, carry: PyTree, first: np.ndarray | None = None) -> tuple[np.ndarray, PyTree]:
        obs = jnp.asarray(obs)
        if recurrent and carry is None:
            raise UserError(f"the policy of {folder} is recurrent and needs what it has in mind: begin with carry = "
                            f"run.begin({len(obs)})")
        action, carry = step(params, obs, carry, jnp.zeros(len(obs), bool) if first is None else jnp.asarray(first, bool))
        return np.asarray(action), carry

    def act(obs: np.ndarray) -> np.ndarray:
        if recurrent:
            raise UserError(f"the policy of {folder} is recurrent, and run.act would forget at every step what it has seen; "
                            "use carry = run.begin(N), then action, carry = run.play(obs, carry)")
        return play(obs, None)[0]

    return act, actor.init, play


def _with_data_dir(settings: Settings, data_dir: str | Path) -> Settings:
    if settings.algorithm.kind == "agent":
        raise UserError(f"data_dir is for generative models, and this is a run of {settings.algo}")
    return settings._replace(config=replace(settings.config, data_dir=str(data_dir)))
