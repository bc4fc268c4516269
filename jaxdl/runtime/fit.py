"""The loop of training: run a chunk; log, evaluate and write a checkpoint where they are due; repeat.

A chunk is up to half a second of steps inside one program, and everything else happens between two. No result depends on where
chunks end, so a run that was cut and resumed has the bits of one that was not.
"""

import math
import operator
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

from jaxdl.core import processes, stdio
from jaxdl.core.config import config, require, require_positive
from jaxdl.core.errors import CheckpointError, EnvError, JaxdlError, UserError
from jaxdl.core.run import Report
from jaxdl.core.task import Curve, Score
from jaxdl.core.types import PyTree
from jaxdl.runtime import checkpoint
from jaxdl.runtime.device_driver import Driver
from jaxdl.runtime.run_log import Log, Progress, Values, open_log, progress

_CHUNK_S = 0.5  # a chunk is made to last about this long: what a signal or a progress bar waits for


@config
class Config:
    """How a run is driven, whatever it learns."""

    # every run had eval_episodes; it is of agents (`rl.task.TrainConfig`)
    renamed: ClassVar = {"stop_at_return": "stop_at", "eval_episodes": lambda value: {}}

    seed: int = 0
    """Seed of everything random in the run."""
    num_seeds: int = 1
    """Train this many seeds (seed, seed + 1, ...) as one program."""
    sweep: tuple[str, ...] = ()
    """Train each value of a number of the settings with every seed, in the same program: learning_rate=1e-4,3e-4 ..."""
    devices: int = 1
    """Devices that share the batch, the environments and their memory; a population's members are spread over them."""
    quick_compile: bool = False
    """Compile in half the time programs that run up to three times as long: for runs of a second, on a CPU."""
    stop_step: int | None = None
    """Step to end at, where that is not the planned total; schedules keep their horizon and hold their end value."""
    log_every: int | None = None
    """Steps between two rows of metrics; a hundredth of the run if not given."""
    eval_every: int | None = None
    """Steps between two evaluations; only at the end if not given."""
    stop_at: float | None = None
    """End as soon as an evaluation's score reaches this (or falls to it, where lower is better), the mean over all members;
    needs eval_every."""
    checkpoint_every: int | None = None
    """Steps between two checkpoints; a tenth of the run if not given."""
    keep_checkpoints: int = 3
    """How many of the newest checkpoints are kept."""
    checkpoint_memory: bool = True
    """Write the replay memory into checkpoints. Without it they are small, and a resumed run is no longer exact."""


class Result(NamedTuple):
    """What `fit` did."""

    params: PyTree  # what acts or samples
    state: PyTree  # the run's state, as a checkpoint holds it
    step: int  # `t` at the end
    updates: int  # since the run began
    compile_s: float
    train_s: float  # in chunks: compile, evaluation and checkpoints left out
    steps_per_s: float  # in chunks, of all members together: what the progress and the rows of metrics say too
    eval: list[dict[str, Any]] | None  # the last evaluation, of each member
    ended: str  # "finished", "reached" (stop_at) or "interrupted"


class TrainingError(JaxdlError):
    """Training went wrong: a loss or a parameter is no longer finite, or an environment failed."""


def validate(config: Config) -> None:
    """Refuse settings that make no sense.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    require_positive(config, "num_seeds", "devices", "stop_step", "log_every", "eval_every",
                     "checkpoint_every", "keep_checkpoints")
    require(config, "seed", 0 <= config.seed <= 2**32 - config.num_seeds, f"between 0 and 2**32 - {config.num_seeds}")
    require(config, "stop_at", config.stop_at is None or math.isfinite(config.stop_at), "a finite number")
    if config.stop_at is not None and config.eval_every is None:
        raise UserError(f"stop_at={config.stop_at} needs eval_every: without it nothing is evaluated before the end")


class Callbacks(NamedTuple):
    """What the caller of `fit` wants to be told as it goes on."""

    ready: Callable[[], None] = lambda: None  # before the first chunk, when the checkpoint is read
    warn: Callable[[dict[str, Any]], str | None] = lambda values: None  # (a row of metrics) -> a sentence for the user or None;
    # the first one is printed on stderr
    show_progress: bool = False  # as a bar on stderr
    watched: Sequence[Curve] = ()  # metrics that the progress shows


def fit(driver: Driver, config: Config, total_steps: int, *, folder: str | Path | None = None,
        meta: dict[str, Any] | None = None, resume: bool = False,
        evaluate: Callable[[PyTree], dict[str, Any]] | None = None, score: Score | None = None,
        callbacks: Callbacks | None = None) -> Result:
    """Train until `total_steps` (or `config.stop_step`), or until told to stop.

    Args:
        driver: the run, compiled.
        config: how to drive it.
        total_steps: the planned end; no step is taken past it.
        folder: of the run: `metrics.jsonl`, `tensorboard/`, `checkpoints/` and `best/` go there. None keeps nothing.
        meta: written into checkpoints; one with other values is refused on resume.
        resume: continue from the newest checkpoint in `folder`.
        evaluate: `params -> numbers`, run every `eval_every` steps and at the end.
        score: the number of `evaluate` that decides which parameters `best/` keeps, and `config.stop_at`; None: none does.
        callbacks: called as the run goes on.

    Raises:
        TrainingError: a metric or a parameter is not finite, or an environment failed; names the step and the last good
            checkpoint.
        CheckpointError: a checkpoint cannot be written or read.
        UserError: checkpoints would not fit the disk.
    """
    validate(config)
    if not isinstance(total_steps, int | np.integer) or total_steps < 1:
        raise UserError(f"total_steps must be a whole number above 0, got {total_steps!r}")
    folder = None if folder is None else Path(folder)
    if folder and processes.is_first():
        check_disk_space(folder, config, driver)
    callbacks, checkpoints = callbacks or Callbacks(), _Checkpoints(folder, config, meta or {}, driver)
    step, state = checkpoints.read() if resume else (driver.first_step, driver.start())
    callbacks.ready()
    began, ended, due, pace = step, None, _Due(config, driver, total_steps), _Pace(driver.loop)
    metrics = _Metrics(step, driver.members)
    evaluator = _Evaluator(evaluate, score, config, driver, checkpoints)
    with _open_output(folder, due.last, step, resume, callbacks) as output, processes.stop_signals() as stopped:
        while not due.over(step) and not ended:
            before, n = step, pace.steps(due.steps(step))
            with checkpoints.named():
                state, report = pace.timed(driver.chunk, state, n)
            step = driver.step_of(state)
            checkpoints.rounds += n
            asked_to_stop = pace.agree(n, stopped())
            _check_finite(report, driver.params(state), step, checkpoints)
            metrics.add(report)
            now = due.between(before, step)
            values = metrics.row(step, pace.train_s) if "log" in now else {}
            if "eval" in now:
                with checkpoints.named(lambda step=step, state=state: checkpoints.write(step, state)):
                    if due.over(step):
                        driver.close()  # an environment of which there can be one is evaluated after it
                values |= evaluator.run(step, state)
            ended = "reached" if evaluator.reached else "interrupted" if asked_to_stop and not due.over(step) else None
            output.write(step, values, metrics, pace.speed(step - began) * driver.members)
            if "checkpoint" in now or ended:  # after the row, which a crash must not lose
                checkpoints.write(step, state)
    if not ended and step != due.stop and processes.is_first():
        stdio.say(f"jaxdl: the run ended at step {step:,} and not at {due.stop:,}: it takes {driver.stride:,} at a time")
    if evaluator.latest is None and ended != "interrupted":
        with checkpoints.named():
            driver.close()
            evaluator.measure(state)
    return Result(driver.params(state), driver.snapshot(state), step, checkpoints.rounds * driver.updates, driver.compile_s,
                  pace.train_s, pace.speed(step - began) * driver.members, evaluator.latest, ended or "finished")


class _Due:
    """Where the run ends, and at which steps something is to be done: at each multiple of its period, and at the end."""

    def __init__(self, config: Config, driver: Driver, total_steps: int):
        stop = config.stop_step or total_steps
        self.stride, self.stop = driver.stride, max(stop, driver.first_step)
        self.last = driver.first_step + (self.stop - driver.first_step) // self.stride * self.stride
        self.every = {"log": config.log_every or max(1, stop // 100), "eval": config.eval_every or self.last,
                      "checkpoint": config.checkpoint_every or max(1, math.ceil(stop / 10))}

    def steps(self, step: int) -> int:
        """Steps of the run to the next of them; none is taken past the end. They may come short of it, and never pass it."""
        target = min(self.stop, *((step // every + 1) * every for every in self.every.values()))
        return min(math.ceil((target - step) / self.stride), (self.stop - step) // self.stride)

    def over(self, step: int) -> bool:
        """Whether a further step could be taken past the end."""
        return self.stop - step < self.stride

    def between(self, before: int, step: int) -> set[str]:
        """What is due at `step` and was not at `before`."""
        return {name for name, every in self.every.items() if self.over(step) or before // every < step // every}


class _Pace:
    """Chunks of about half a second: the next is as long as the last one's speed allows, and at most four times as long."""

    def __init__(self, loop: int):
        self.loop, self.length, self.train_s, self.spent = loop, 1, 0.0, 0.0

    def steps(self, most: int) -> int:
        """Steps of the next chunk: whole loops, so that which steps are in one does not depend on the pace."""
        return most if self.length >= most else min(most, max(1, self.length // self.loop) * self.loop)

    def timed(self, chunk: Callable, state: PyTree, n: int) -> tuple[PyTree, Report]:
        """Run a chunk."""
        start = time.perf_counter()
        state, report = chunk(state, n)
        self.spent = time.perf_counter() - start
        self.train_s += self.spent
        return state, report

    def speed(self, steps: int) -> float:
        """Steps per second of training, of `steps` so far."""
        return steps / self.train_s if self.train_s else 0.0

    def agree(self, n: int, stop: bool) -> bool:
        """After a chunk of `n` steps: whether to stop, because any process was asked to.

        All processes take the first one's length. Their clocks differ, and one that entered a collective alone would hang.
        """
        told = processes.agree(max(1, min(4 * self.length, int(n * _CHUNK_S / max(self.spent, 1e-9)))), stop)
        self.length = int(told[0, 0])
        return bool(told[:, 1].any())


class _Metrics:
    """Metrics of the steps since the last row."""

    def __init__(self, step: int, members: int):
        self.totals, self.step, self.train_s, self.members = None, step, 0.0, members

    def add(self, report: Report) -> None:
        """Add a chunk's."""
        new = jax.tree.map(np.float64, report.metrics)  # float32 would lose whole steps of a row of many
        self.totals = new if self.totals is None else jax.tree.map(np.add, self.totals, new)

    def means(self) -> dict[str, float | np.ndarray]:
        """The mean of each metric; one that counted nothing (no episode ended) is left out, or NaN where other members' did."""
        counted = {name: m for name, m in (self.totals or {}).items() if np.any(m.count > 0)}
        means = {name: np.where(m.count > 0, m.total / np.maximum(m.count, 1), np.nan) for name, m in counted.items()}
        return {name: float(v) if np.ndim(v) == 0 else v for name, v in means.items()}

    def row(self, step: int, train_s: float) -> dict[str, float | np.ndarray]:
        """The row of metrics at `step`; the next one begins with nothing."""
        values = self.means() | {"steps_per_s": self.members * (step - self.step) / max(train_s - self.train_s, 1e-9)}
        self.totals, self.step, self.train_s = None, step, train_s
        return values


class _Evaluator:
    """Evaluates parameters, keeps the best, and says whether the score that was asked for is reached."""

    def __init__(self, evaluate: Callable | None, score: Score | None, config: Config, driver: Driver,
                 checkpoints: "_Checkpoints"):
        self.evaluate, self.score, self.config, self.driver, self.checkpoints = evaluate, score, config, driver, checkpoints
        self.latest: list[dict[str, Any]] | None = None  # of each member
        self.reached = False

    def measure(self, state: PyTree) -> None:
        """Evaluate each member."""
        if self.evaluate:
            self.latest = [self.evaluate(p) for p in members_of(self.driver.params(state), self.driver.members)]

    def run(self, step: int, state: PyTree) -> dict[str, float | np.ndarray]:
        """Evaluate: the values for the row of metrics."""
        with self.checkpoints.named(lambda: self.checkpoints.write(step, state)):
            self.measure(state)
        if self.latest is None:
            return {}
        if self.score and self.config.eval_every:
            if self.score.name not in self.latest[0]:
                raise UserError(f"evaluations must have the score {self.score.name}, got {', '.join(self.latest[0])}")
            sign, stop = self.score.sign, self.config.stop_at
            mean = sign * float(np.mean(_column(self.latest, self.score.name)))
            self.checkpoints.keep_best(step, state, mean)
            self.reached = stop is not None and mean >= sign * stop
        return {f"eval/{name}": _column(self.latest, name) for name, value in self.latest[0].items()
                if not isinstance(value, str)}


class _Output:
    """The log of the run, its progress, and the one warning."""

    def __init__(self, log: Log | None, bar: Progress, warn: Callable[[dict[str, Any]], str | None]):
        self.log, self.bar, self.warn, self.warned = log, bar, warn, None

    def write(self, step: int, values: Values, metrics: _Metrics, speed: float) -> None:
        """Write a row, if there is one; else the progress shows the metrics so far."""
        if values and self.log:
            self.log.row(step, values)
        if values and not self.warned and (sentence := self.warn(values)):
            self.warned = sentence
            stdio.say(f"jaxdl: {sentence}")
        self.bar.update(step, values or metrics.means(), speed)


@contextmanager
def _open_output(folder: Path | None, last: int, step: int, resume: bool, callbacks: Callbacks) -> Iterator[_Output]:
    """The output of a run that goes from `step` to `last`; only the first process writes any."""
    first = processes.is_first()
    with ExitStack() as stack:
        log = None
        if folder and first:
            log = stack.enter_context(closing(open_log(folder, resume_step=step if resume else None)))
        show = ("bar" if callbacks.show_progress else "lines") if first else "nothing"
        bar = stack.enter_context(progress(last, step, show=show, watched=callbacks.watched))
        yield _Output(log, bar, callbacks.warn)


def check_disk_space(folder: Path, config: Config, driver: Driver) -> None:
    """Refuse a run in `folder`, which may not be there yet, whose checkpoints would fill the disk.

    Raises:
        UserError: says how much they take and how much is free.
    """
    checkpoints = folder / "checkpoints"
    each = checkpoint.estimate_bytes(_kept(driver.like, config, driver))
    number = config.keep_checkpoints + 1  # the oldest goes when the newest is whole
    there = sum(f.stat().st_size for f in checkpoints.rglob("*") if f.is_file())
    disk = next(p for p in folder.absolute().parents if p.is_dir())
    free = shutil.disk_usage(disk).free + there
    if each * number > free:
        raise UserError(f"{number} checkpoints of {each / 1e6:,.0f} MB do not fit the {free / 1e6:,.0f} MB that are "
                        f"free for {checkpoints}; lower keep_checkpoints, or what a run keeps: buffer_size, or the "
                        "replay memory with checkpoint_memory=False, rollout_steps on the host")


def _kept(state: PyTree, config: Config, driver: Driver) -> PyTree:
    """The part of a state that checkpoints hold."""
    return state if config.checkpoint_memory or driver.without_memory is None else driver.without_memory(state)


def members_of(params: PyTree, count: int) -> list[PyTree]:
    """The parameters of each of `count` members; more than one have a leading axis of members on every leaf."""
    return [params] if count == 1 else [jax.tree.map(operator.itemgetter(k), params) for k in range(count)]


def _score_in(best: Path) -> float:
    """The score of the best parameters that are kept."""
    score = checkpoint.read_meta(best, checkpoint.steps(best)[-1]).get("score")
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise CheckpointError(f"{best} is damaged: its score is {str(score)[:40]!r}; remove it to go on without it")
    return float(score)


def _column(rows: list[dict[str, Any]], name: str) -> float | np.ndarray:
    return rows[0][name] if len(rows) == 1 else np.array([row[name] for row in rows])


class _Checkpoints:
    """The run's checkpoints and its best parameters; does nothing without a folder."""

    def __init__(self, folder: Path | None, config: Config, meta: dict[str, Any], driver: Driver):
        self.folder = folder / "checkpoints" if folder else None
        self.best = folder / "best" if folder else None
        self.config, self.driver, self.meta, self.newest = config, driver, meta, None
        self.rounds = 0  # steps of the run since it began
        self.best_score = -math.inf  # higher is better, whatever the score
        if self.best and checkpoint.steps(self.best):
            self.best_score = _score_in(self.best)

    def write(self, step: int, state: PyTree) -> None:
        if self.folder:
            kept = _kept(self.driver.snapshot(state), self.config, self.driver)
            # `resume` reads from the number of devices how the source lies, and may go on with another
            meta = self.meta | {"devices": self.driver.devices, "rounds": self.rounds}
            checkpoint.save(self.folder, step, kept, meta=meta, keep=self.config.keep_checkpoints)
            self.newest = step

    @contextmanager
    def named(self, save: Callable[[], None] = lambda: None) -> Iterator[None]:
        """An environment that fails within is an error of the training, which names the last checkpoint after `save`."""
        try:
            yield
        except EnvError as e:
            save()
            raise TrainingError(f"{e}; {self.newest_in_words()}") from e

    def newest_in_words(self) -> str:
        if self.newest is None:
            return "no checkpoint was written before it"
        return f"the last good checkpoint is step {self.newest} in {self.folder}"

    def keep_best(self, step: int, state: PyTree, score: float) -> None:
        if self.best and score > self.best_score and processes.is_first():
            checkpoint.save(self.best, step, self.driver.params(state), meta=self.meta | {"score": score}, keep=1)
            self.best_score = score

    def read(self) -> tuple[int, PyTree]:
        """The step and the state of the newest; without a replay memory it goes on with the source of a new run."""
        if self.folder is None:
            raise CheckpointError("a run without a folder has no checkpoint to resume from")
        driver, like = self.driver, _kept(self.driver.like, self.config, self.driver)
        self.newest, state = checkpoint.restore(self.folder, like, meta=self.meta)
        rounds = checkpoint.read_meta(self.folder, self.newest).get("rounds")  # earlier versions: a step was always `stride`
        self.rounds = rounds if type(rounds) is int else (self.newest - driver.first_step) // driver.stride
        if like is not driver.like:
            state = state._replace(source=driver.snapshot(driver.start()).source)
        return self.newest, driver.restore(state)


def _check_finite(report: Report, params: PyTree, step: int, checkpoints: _Checkpoints) -> None:
    bad_step = np.max(report.bad_step)
    wrong = [name for name, m in report.metrics.items() if not np.all(np.isfinite(m.total))]
    if not wrong:
        leaves = jax.tree_util.tree_leaves_with_path(params)
        wrong = [f"parameter {jax.tree_util.keystr(path)}" for path, x in leaves if not np.all(np.isfinite(x))]
        bad_step = step
    if wrong:
        raise TrainingError(f"{wrong[0]} is no longer finite at step {bad_step}; {checkpoints.newest_in_words()}; "
                            "a lower learning_rate or a max_grad_norm may keep it finite")
