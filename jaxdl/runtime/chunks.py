"""Chunks of a run: when something is due, how many steps until then, and the metrics since the last row."""

import contextlib
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxdl.core import processes
from jaxdl.core.run import Report
from jaxdl.core.types import PyTree
from jaxdl.runtime.device_driver import Driver

_CHUNK_S = 0.5  # a chunk is made to last about this long: what a signal or a progress bar waits for


class Due:
    """Where the run ends, and at which steps something is to be done: at each multiple of its period, and at the end."""

    def __init__(self, config: Any, driver: Driver, total_steps: int):
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
        """What is due at `step` and was not at `before`: no chunk goes past the first step at which something is."""
        return {name for name, every in self.every.items() if self.over(step) or before // every < step // every}


class Pace:
    """Chunks of about half a second: the next is as long as the last one's speed allows, and at most four times as long."""

    def __init__(self, loop: int):
        self.loop, self.length, self.train_s, self.spent = loop, 1, 0.0, 0.0

    def steps(self, most: int) -> int:
        """Steps of the next chunk: whole loops, so that which steps are in one does not depend on the pace."""
        return most if self.length >= most else min(most, max(1, self.length // self.loop) * self.loop)

    def timed(self, chunk: Callable, *args: Any) -> tuple[PyTree, Report]:
        """Run a chunk."""
        start = time.perf_counter()
        state, report = chunk(*args)
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


class Metrics:
    """Metrics of the steps since the last row: one report, which each chunk goes on with."""

    def __init__(self, step: int, members: int):
        self.report: Report | None = None
        self.step, self.train_s, self.members = step, 0.0, members  # since when steps are timed

    def means(self) -> dict[str, float | np.ndarray]:
        """The mean of each metric; one that counted nothing (no episode ended) is left out, or NaN where other members' did."""
        counted = {name: m for name, m in self.report.metrics.items() if np.any(m.count > 0)} if self.report else {}
        means = {name: np.where(m.count > 0, m.total / np.maximum(m.count, 1), np.nan) for name, m in counted.items()}
        return {name: float(v) if np.ndim(v) == 0 else v for name, v in means.items()}

    def row(self, step: int, train_s: float) -> dict[str, float | np.ndarray]:
        """The row of metrics at `step`; the next one begins with nothing."""
        values = self.means()
        if step > self.step:  # a row that is written again after a resume has no time of its own
            values["steps_per_s"] = self.members * (step - self.step) / max(train_s - self.train_s, 1e-9)
        self.report, self.step, self.train_s = None, step, train_s
        return values

    def saved(self) -> dict[str, Any]:
        """What a checkpoint holds of them, so that the row after it is that of a run which was not interrupted."""
        if self.report is None:
            return {}
        return {"since_row": {"names": list(self.report.names), "totals": np.asarray(self.report.totals, np.float64).tolist()}}

    def restore(self, step: int, meta: dict[str, Any]) -> None:
        """Go on with what `saved` gave at `step`; a checkpoint of an earlier version has nothing."""
        self.step = step
        with contextlib.suppress(KeyError, TypeError, ValueError):
            names, totals = meta["since_row"]["names"], np.array(meta["since_row"]["totals"], np.float32)
            if all(isinstance(name, str) for name in names) and totals.shape[-1:] == (4 * len(names),):
                self.report = Report(totals, np.full(totals.shape[:-1], -1, np.int32), tuple(names))
