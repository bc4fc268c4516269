"""The log of a run: rows of numbers, TensorBoard events, and a progress display.

    RUN/metrics.jsonl     one JSON object a row: `step`, `wall_s` (seconds since the run began), then the values
        tensorboard/      the same values as events

A value is a number, or a list with one number for each member of a population; a number that is not finite is `null`. For a
population's value `x` TensorBoard gets the mean as `x` and the extremes as `x_min` and `x_max`.

A row is one write to the end of the file, so a process that is killed leaves at most one torn last line. Readers skip it; a
resumed run removes it, and the rows of steps that it will do again.
"""

import io
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from jaxdl.core import files, stdio
from jaxdl.core.errors import UserError
from jaxdl.core.task import Curve

Values = dict[str, float | np.ndarray]  # a number each, or [K] one for each member

_Row = dict[str, int | float | list[int | float | None] | None]  # as it is read
_MAX_BYTES = 2**30  # of metrics.jsonl
_FLUSH_S = 5.0  # events reach the disk this often: their writer flushes with an fsync


class Log:
    """The open log of a run; made by `open_log`."""

    def __init__(self, path: Path, events: Any, last: tuple[bytes, dict[str, Any]] | None):
        self._path, self._events = path, events
        self.last = last and last[1]  # row that was there when the log was opened
        self._last_bytes = len(last[0]) + 1 if last else 0
        self._began = time.monotonic() - (self.last["wall_s"] if self.last else 0.0)
        self._flushed = time.monotonic()
        try:
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (closed by close)
        except OSError as e:
            raise files.cannot_write(path, e) from e

    def row(self, step: int, values: Values) -> None:
        """Write the values at a step.

        Raises:
            UserError: they cannot be written (the disk is full ...). The rows before stay whole.
        """
        row = {"step": int(step), "wall_s": round(time.monotonic() - self._began, 3)} | values
        _append(self._file, self._path, (files.to_json(row) + "\n").encode())
        try:
            self._write_events(int(step), values)
        except OSError as e:
            raise files.cannot_write(self._path.parent / "tensorboard", e) from e

    def remove_last(self) -> None:
        """Remove the row that was the last one when the log was opened: it will be written again.

        Raises:
            UserError: it cannot be removed.
        """
        try:
            self._file.truncate(os.fstat(self._file.fileno()).st_size - self._last_bytes)
        except OSError as e:
            raise files.cannot_write(self._path, e) from e
        self.last, self._last_bytes = None, 0

    def close(self) -> None:
        """Write what is still buffered, and close the files."""
        self._file.close()
        try:
            self._events.close()
        except OSError as e:
            raise files.cannot_write(self._path.parent / "tensorboard", e) from e

    def _write_events(self, step: int, values: Values) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        scalars = {}
        for name, value in values.items():
            value = np.asarray(value, np.float64)
            there = value if np.isnan(value).all() else value[~np.isnan(value)]  # of the members that have it
            scalars[name] = there.mean()
            if value.ndim:
                scalars |= {f"{name}_min": there.min(), f"{name}_max": there.max()}
        summary = Summary(value=[Summary.Value(tag=name, simple_value=float(x)) for name, x in scalars.items()])
        self._events.write_event(Event(wall_time=time.time(), step=step, summary=summary))
        if time.monotonic() - self._flushed >= _FLUSH_S:
            self._events.flush()
            self._flushed = time.monotonic()


def open_log(folder: str | Path, resume_step: int | None = None) -> Log:
    """Open the log of a run.

    Args:
        folder: of the run; made if missing.
        resume_step: None for a new run. A resumed run goes on from this step: later rows are removed, because they will
            be written again, and `wall_s` goes on from the last row that stays.

    Raises:
        UserError: the folder holds the metrics of a run and `resume_step` is None, what it holds is damaged, or it
            cannot be written.
    """
    path = Path(folder) / "metrics.jsonl"
    rows = []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        before = files.read_bytes(path, _MAX_BYTES) if path.exists() else b""
    except OSError as e:
        raise files.cannot_write(path, e) from e
    if before and resume_step is None:
        raise UserError(f"{path} holds the metrics of another run; choose another folder, or resume that run")
    if before:
        lines = _whole_lines(path, before)
        rows = [(line, row) for line, row in lines if row["step"] <= resume_step]
        after = b"".join(line + b"\n" for line, _ in rows)
        if after != before:
            files.write_bytes(path, after)
    return Log(path, _open_events(path.parent / "tensorboard", resume_step), rows[-1] if rows else None)


def read_metrics(path: str | Path, members: int | None = None) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`: `step` is an int, every other value a float or a list of floats, `null` is NaN.

    A torn last line is left out.

    Args:
        members: of the run; where it is given, a list of other than so many numbers is refused.

    Raises:
        UserError: the file cannot be read, or a line is not a row; names the line.
    """
    path = Path(path)
    return [row for _, row in _whole_lines(path, files.read_bytes(path, _MAX_BYTES), members)]


def _whole_lines(path: Path, data: bytes, members: int | None = None) -> list[tuple[bytes, dict[str, Any]]]:
    """Each line and its row; a last line without its end is left out unless it is a row."""
    rows = []
    for number, line in enumerate(io.BytesIO(data), 1):
        try:
            rows.append((line.removesuffix(b"\n"), _row(msgspec.json.decode(line, type=_Row), members)))
        except (ValueError, OverflowError) as e:
            if line.endswith(b"\n"):
                raise UserError(f"{path}, line {number} is damaged ({e}); remove it to go on without it") from None
    return rows


def _row(value: dict[str, Any], members: int | None) -> dict[str, Any]:
    if not {"step", "wall_s"} <= value.keys():
        raise ValueError("no object with 'step' and 'wall_s'")
    step, wall_s = value["step"], value["wall_s"]
    if type(step) is not int or not 0 <= step < 2**63 or type(wall_s) not in (int, float) or not wall_s >= 0:
        raise ValueError("'step' or 'wall_s' is not a number from 0 up")
    for name, v in value.items():
        if isinstance(v, list) and members is not None and len(v) != members:
            raise ValueError(f"'{name}' has {len(v):,} numbers, and the run {members} members")
    return {name: v if name == "step" else [_number(x) for x in v] if isinstance(v, list) else _number(v)
            for name, v in value.items()}


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _append(file: Any, path: Path, line: bytes) -> None:
    """One write, all of it or nothing."""
    end = os.fstat(file.fileno()).st_size
    try:
        written = file.write(line)
        if written != len(line):  # the disk became full on the way
            file.write(line[written:])
    except OSError as e:
        file.truncate(end)
        raise files.cannot_write(path, e) from e


def _open_events(folder: Path, resume_step: int | None) -> Any:
    """TensorBoard's event file, written by this thread: tensorboardX's own queue and thread hang on a full disk."""
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    try:
        folder.mkdir(exist_ok=True)
        # the name has whole seconds only, and a file of the same name would be overwritten
        events = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        if resume_step is not None:  # TensorBoard forgets what it has of this step and later ones
            start = SessionLog(status=SessionLog.START)
            events.write_event(Event(wall_time=time.time(), step=resume_step + 1, session_log=start))
        events.flush()
    except OSError as e:
        raise files.cannot_write(folder, e) from e
    return events


class Progress:
    """A progress display, made by `progress`; call `update` as the run goes on."""

    def __init__(self, total: int, initial: int, bar: Any | None, lines: bool, watched: Sequence[Curve]):
        self._total, self._tenth, self._bar, self._lines = total, self._tenths(initial, total), bar, lines
        self._first: tuple[int, float] | None = None
        self._latest: dict[str, float] = {}
        self._watched = watched

    def update(self, step: int, values: Values, speed: float | None = None) -> None:
        """Show a step and its values; those of earlier steps stay until there are newer ones.

        Args:
            step: where the run is.
            values: as in a row of the log.
            speed: steps per second in training alone; if not given, of all the time that has passed.
        """
        self._latest |= {name: float(np.nanmean(value)) for name, value in values.items()}
        now = time.monotonic()
        self._first = self._first or (step, now)  # what came before compiled: not part of the speed
        rate = _rate(step - self._first[0], now - self._first[1], self._total - step, speed)
        if self._bar:
            text = "  ".join([*rate, *self._numbers()])
            self._bar.update(self._bar.task_ids[0], completed=step, text=text, refresh=True)
        tenth, before = self._tenths(step, self._total), self._tenth
        self._tenth = tenth
        if self._lines and (tenth > before or any(name.startswith("eval/") for name in values)):
            line = [f"step {step:,} of {self._total:,}", *rate, *self._numbers()]
            stdio.say(", ".join(line))

    @staticmethod
    def _tenths(step: int, total: int) -> int:
        return 10 * step // max(total, 1)

    def _numbers(self) -> list[str]:
        """The latest watched values: those of evaluations, and those of training."""
        found: dict[str, float] = {}
        for curve in sorted(self._watched, key=lambda curve: not curve.name.startswith("eval/")):
            if curve.short and curve.name in self._latest:
                name = f"evaluated {curve.short}" if curve.name.startswith("eval/") else curve.short
                found.setdefault(name, self._latest[curve.name])
        return [f"{short} {value:.4g}" for short, value in found.items()]


@contextmanager
def progress(total: int, initial: int = 0, *, show: Literal["bar", "lines", "nothing"], watched: Sequence[Curve] = ()
             ) -> Iterator[Progress]:
    """Show on stderr how far a run is, while the context lasts.

    It has the steps, steps per second, the time left and the latest watched values. Where stderr is no terminal, plain lines
    take the place of a bar.

    Args:
        total: the step at which the run ends.
        initial: the step at which it begins.
        show: a bar, or a plain line at each evaluation and each tenth of the steps, or nothing.
        watched: metrics whose latest values are shown, under their short names.
    """
    bar = _bar(total, initial) if show == "bar" and stdio.is_terminal(sys.stderr) else None
    with bar or nullcontext():
        yield Progress(total, initial, bar, bar is None and show != "nothing", watched)


def _rate(steps: int, seconds: float, left: int, speed: float | None) -> list[str]:
    if steps <= 0 or seconds <= 0:
        return [] if speed is None else [f"{speed:,.0f} steps/s"]
    pace = steps / seconds
    shown = pace if speed is None else speed
    return [f"{shown:,.0f} steps/s"] + ([f"{timedelta(seconds=round(left / pace))} left"] if left > 0 else [])


def _bar(total: int, initial: int) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    # no thread that redraws: it would take time from a machine that computes
    bar = Progress(TextColumn("{task.completed:,.0f}/{task.total:,.0f}"), BarColumn(bar_width=20),
                   TextColumn("{task.fields[text]}"),
                   console=Console(file=sys.stderr), auto_refresh=False, redirect_stdout=False)
    bar.add_task("", total=total, completed=initial, text="compiling")
    return bar
