"""The host loop: run a chunk, log it, and where they are due evaluate and write a checkpoint; repeat.

The host is asked rarely: a chunk is up to half a second of steps inside one program, and everything else happens
between two. No result depends on where chunks end, so a run that was cut and resumed has the bits of one that was not.
"""

import math
import operator
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdl.core import processes
from jaxdl.core.config import config, require, require_positive
from jaxdl.core.errors import CheckpointError, EnvError, JaxdlError, UserError
from jaxdl.core.run import Report
from jaxdl.core.types import Metrics, PyTree
from jaxdl.runtime import checkpoint
from jaxdl.runtime.device_driver import Driver
from jaxdl.runtime.run_log import open_log, progress

_CHUNK_S = 0.5  # a chunk is made to last about this long: what a signal or a progress bar waits for


@config
class Config:
    """How a run is driven, whatever it learns."""

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
    eval_episodes: int = 100
    """Episodes of one evaluation (agents)."""
    stop_at_return: float | None = None
    """End as soon as an evaluation's mean return (agents) reaches this, over all members; needs eval_every."""
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
    steps_per_s: float
    eval: list[dict[str, Any]] | None  # the last evaluation, of each member
    ended: str  # "finished", "reached" (stop_at_return) or "interrupted"


class TrainingError(JaxdlError):
    """Training went wrong: a loss or a parameter is no longer finite, or an environment failed."""


def validate(config: Config) -> None:
    """Refuse settings that make no sense.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    require_positive(config, "num_seeds", "devices", "stop_step", "log_every", "eval_every", "eval_episodes",
                     "checkpoint_every", "keep_checkpoints")
    require(config, "seed", 0 <= config.seed <= 2**32 - config.num_seeds, f"between 0 and 2**32 - {config.num_seeds}")
    stop = config.stop_at_return
    require(config, "stop_at_return", stop is None or math.isfinite(stop), "a finite number")
    if config.stop_at_return is not None and config.eval_every is None:
        raise UserError("stop_at_return needs eval_every: without it nothing is evaluated before the end")


def fit(
    driver: Driver,
    config: Config,
    total_steps: int,
    *,
    folder: Path | None = None,
    evaluate: Callable[[PyTree], dict[str, Any]] | None = None,
    score: str = "return_mean",
    meta: dict[str, Any] | None = None,
    resume: bool = False,
    ready: Callable[[], None] = lambda: None,
    doubt: Callable[[dict[str, Any]], str | None] = lambda values: None,
    show_progress: bool = False,
) -> Result:
    """Train until `total_steps` (or `config.stop_step`), or until told to stop.

    Args:
        driver: the run, compiled.
        config: how to drive it.
        total_steps: the planned end; no step is taken past it.
        folder: of the run: `metrics.jsonl`, `tensorboard/`, `checkpoints/` and `best/` go there. None keeps nothing.
        evaluate: `params -> numbers`, run every `eval_every` steps and at the end.
        score: the number of `evaluate` that is better when higher, or with a minus in front when lower; the best one's
            parameters are kept in `best/`.
        meta: written into checkpoints; one with other values is refused on resume.
        resume: continue from the newest checkpoint in `folder`.
        ready: called before the first chunk, when the checkpoint is read and nothing stands in the way.
        doubt: a row of metrics -> what the user should know of it, or None; said once on stderr.
        show_progress: draw a progress bar on stderr.

    Raises:
        TrainingError: a metric or a parameter is not finite, or an environment failed; names the step and the last good
            checkpoint.
        CheckpointError: a checkpoint cannot be written or read.
        UserError: checkpoints would not fit the disk.
    """
    stop = config.stop_step or total_steps
    last = driver.first_step + max(0, (stop - driver.first_step) // driver.stride) * driver.stride
    every = {
        "log": config.log_every or max(1, stop // 100),
        "eval": config.eval_every,
        "checkpoint": config.checkpoint_every or max(1, math.ceil(stop / 10)),
    }
    shelf = _Shelf(folder, config, meta or {}, driver)
    first = processes.is_first()
    if folder and first:
        check_room(folder, config, driver)
    if resume:
        step, state = shelf.read(driver)
    else:
        step, state = driver.first_step, driver.start()
    ready()
    log = open_log(folder, resume_step=step if resume else None) if folder and first else None
    pace, train_s, began, evaluation, ended = 1, 0.0, step, None, "finished"
    totals, logged_at, logged_s, doubted = None, step, 0.0, None

    with (closing(log) if log else nullcontext(), _signals() as stopped,
          progress(last, step, enabled=show_progress if first else None) as bar):
        while step < last and ended == "finished":
            target = min([last, *(_next_multiple(step, e) for e in every.values() if e)])
            n = min(math.ceil((target - step) / driver.stride), (last - step) // driver.stride)
            if pace < n:  # whole loops, so that which steps are in one does not depend on the pace
                n = min(n, max(1, pace // driver.loop) * driver.loop)
            start = time.perf_counter()
            with shelf.named():
                state, news = driver.chunk(state, n)
            spent = time.perf_counter() - start
            train_s += spent
            told = processes.agree(max(1, min(4 * pace, int(n * _CHUNK_S / max(spent, 1e-9)))), stopped())
            pace, asked_to_stop = int(told[0, 0]), told[:, 1].any()
            before, step = step, step + n * driver.stride
            _check_finite(news, driver.params(state), step, shelf)
            totals = news.metrics if totals is None else jax.tree.map(np.add, totals, news.metrics)
            due = {name for name, e in every.items() if e and before // e < step // e}

            values = {}
            if "log" in due or step == last:
                values = _means(totals) | {"steps_per_s": (step - logged_at) / max(train_s - logged_s, 1e-9)}
                totals, logged_at, logged_s = None, step, train_s
            if evaluate and ("eval" in due or step == last):
                with shelf.named(lambda: shelf.write(step, driver.snapshot(state))):  # noqa: B023
                    evaluation = [evaluate(p) for p in members_of(driver.params(state), driver.members)]
                values |= {f"eval/{name}": _column(evaluation, name) for name, value in evaluation[0].items()
                           if not isinstance(value, str)}
                sign, name = (-1, score[1:]) if score.startswith("-") else (1, score)
                mean = sign * float(np.mean(_column(evaluation, name)))
                if config.eval_every:
                    shelf.keep_best(step, driver.params(state), mean)
                if config.stop_at_return is not None and mean >= config.stop_at_return:
                    ended = "reached"
            if values and log:
                log.row(step, values)
            if values and not doubted and (doubted := doubt(values)):
                print(f"jaxdl: {doubted}", file=sys.stderr)
            bar.update(step, values or _means(totals))
            if asked_to_stop and step < last and ended == "finished":
                ended = "interrupted"
            if "checkpoint" in due or step == last or ended != "finished":  # after the row, which a crash must not lose
                shelf.write(step, driver.snapshot(state))
    if evaluate and evaluation is None and ended != "interrupted":
        evaluation = [evaluate(p) for p in members_of(driver.params(state), driver.members)]
    done = (step - driver.first_step) // driver.stride * driver.updates
    return Result(driver.params(state), driver.snapshot(state), step, done, driver.compile_s, train_s,
                  (step - began) / train_s if train_s else 0.0, evaluation, ended)


def check_room(folder: Path, config: Config, driver: Driver) -> None:
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
    """The parameters of each of `count` members, whose leaves have a leading axis of members unless there is one."""
    return [params] if count == 1 else [jax.tree.map(operator.itemgetter(k), params) for k in range(count)]


def _column(rows: list[dict[str, Any]], name: str) -> float | np.ndarray:
    return rows[0][name] if len(rows) == 1 else np.array([row[name] for row in rows])


class _Shelf:
    """The run's checkpoints and its best parameters; does nothing without a folder."""

    def __init__(self, folder: Path | None, config: Config, meta: dict[str, Any], driver: Driver):
        self.checkpoints = folder / "checkpoints" if folder else None
        self.best = folder / "best" if folder else None
        self.config, self.meta, self.newest = config, meta, None
        self.driver = driver
        self.devices = {"devices": driver.devices}  # says how to read the source; a checkpoint is of the run on any number
        self.best_score = -math.inf
        if self.best and checkpoint.steps(self.best):
            self.best_score = checkpoint.read_meta(self.best, checkpoint.steps(self.best)[-1])["score"]

    def write(self, step: int, state: PyTree) -> None:
        if self.checkpoints:
            kept = _kept(state, self.config, self.driver)
            checkpoint.save(self.checkpoints, step, kept, meta=self.meta | self.devices, keep=self.config.keep_checkpoints)
            self.newest = step

    @contextmanager
    def named(self, save: Callable[[], None] = lambda: None) -> Iterator[None]:
        """An environment that fails within is an error of the training, which says what is left of it after `save`."""
        try:
            yield
        except EnvError as e:
            save()
            raise TrainingError(f"{e}; {self.newest_in_words()}") from e

    def newest_in_words(self) -> str:
        if self.newest is None:
            return "no checkpoint was written before it"
        return f"the last good checkpoint is step {self.newest} in {self.checkpoints}"

    def keep_best(self, step: int, params: PyTree, score: float) -> None:
        if self.best and score > self.best_score and processes.is_first():
            checkpoint.save(self.best, step, params, meta=self.meta | {"score": score}, keep=1)
            self.best_score = score

    def read(self, driver: Driver) -> tuple[int, PyTree]:
        if self.checkpoints is None:
            raise CheckpointError("a run without a folder has no checkpoint to resume from")
        like = _kept(driver.like, self.config, driver)
        step, state = checkpoint.restore(self.checkpoints, like, meta=self.meta)
        self.newest = step
        if like is not driver.like:  # begins again with what a new run has in it
            state = state._replace(source=driver.snapshot(driver.start()).source)  # and its environments
        return step, driver.restore(state)


def _means(totals: Metrics) -> dict[str, float | np.ndarray]:
    """The mean of each metric; one that counted nothing (no episode ended) is left out, or NaN where other members' did."""
    means = {name: np.where(m.count > 0, m.total / np.maximum(m.count, 1), np.nan) for name, m in totals.items()
             if np.any(m.count > 0)}
    return {name: float(v) if np.ndim(v) == 0 else v for name, v in means.items()}


def _check_finite(report: Report, params: PyTree, step: int, shelf: _Shelf) -> None:
    bad_step = np.max(report.bad_step)
    wrong = [name for name, m in report.metrics.items() if not np.all(np.isfinite(m.total))]
    if not wrong:
        leaves = jax.tree_util.tree_leaves_with_path(params)
        wrong = [f"parameter {jax.tree_util.keystr(path)}" for path, x in leaves if not np.all(np.isfinite(x))]
        bad_step = step
    if wrong:
        raise TrainingError(f"{wrong[0]} is no longer finite at step {bad_step}; {shelf.newest_in_words()}; "
                            "a lower learning_rate or a max_grad_norm may keep it finite")


def _next_multiple(step: int, every: int) -> int:
    return (step // every + 1) * every


@contextmanager
def _signals() -> Iterator[Callable[[], bool]]:
    """The first SIGINT or SIGTERM asks to stop at the end of the chunk; a second SIGINT stops at once."""
    caught = []

    def handle(number, frame):
        del frame
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    try:
        old = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are somebody else's
        old = {}
    try:
        yield lambda: bool(caught)
    finally:
        for s, h in old.items():
            signal.signal(s, h)
