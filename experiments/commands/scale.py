"""scale ALGO: one learner on 1, 2, 4 ... devices, and where the time of a step goes

    strong   the work of a step stays, and the devices share it
    weak     each device has the work that one has alone

A step's time is measured over many; what its collectives take is measured apart, as many reductions of the same sizes with
nothing between them; what the host takes is what a program of one step takes longer than one of the many. Virtual devices of a
CPU share its cores: more of them can make nothing faster, and what is measured is what dividing the work costs.
"""

import dataclasses
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxdl.core import axis, processes
from jaxdl.core.errors import UserError
from jaxdl.experiments import algorithms, hlo_collectives, tasks
from jaxdl.experiments.commands import train
from jaxdl.experiments.run_folder import Settings
from jaxdl.runtime import fit, mesh

_REPEATS = 5


def Args(argv: Sequence[str]) -> type:
    """The flags, which depend on the algorithm."""
    flags = train.Args(argv)
    if not hasattr(flags, "algorithm"):  # no algorithm is named: --help
        return flags
    settings, driven = flags.algorithm, flags.run

    @dataclass(frozen=True, kw_only=True)
    class Flags:
        algo: Annotated[str, tyro.conf.Positional]
        """An algorithm or a preset ('jaxdl list' shows them), or package.module:NAME."""
        devices: str | None = None
        """Numbers of devices, 1,2,4,8 (if not given, 1, 2, 4 ... up to those there are); on a CPU virtual ones are made."""
        strong: bool = False
        """The work of a step stays as it is, and the devices share it (the default)."""
        weak: bool = False
        """Every device has that work: num_envs, batch_size and buffer_size are multiplied by the number of devices."""
        seconds: float = 3.0
        """How long each number of devices is measured for."""
        out: Path | None = None
        """Also draw it into this .png."""
        quick_compile: bool = driven.quick_compile
        """Compile in half the time programs that run up to three times as long, on a CPU."""
        algorithm: type(settings) = settings
        """Settings of the algorithm."""

    return Flags


def run(args: Any) -> dict[str, Any]:
    """Train for a moment on each number of devices, and say how fast it is and where the time of a step goes."""
    if args.weak and args.strong:
        raise UserError("scale is --weak or --strong, not both")
    if not 0 < args.seconds < float("inf"):
        raise UserError(f"seconds must be a number above 0, got {args.seconds}")
    if args.out is not None and args.out.suffix != ".png":
        raise UserError(f"out must be a .png, got {args.out}")
    algo, _ = algorithms.find(args.algo)
    train_config = algorithms.load(algo).TrainConfig or fit.Config
    settings = Settings(algo, args.algorithm, train_config(quick_compile=args.quick_compile))
    counts = _counts(args.devices)
    mesh.provide(max(counts))
    each = {n: _with_devices(settings, n, args.weak) for n in counts}
    for one in each.values():
        one.validate()
    mesh.make_mesh(max(counts))
    rows = []
    for n, one in each.items():
        rows.append(_measure(one, n, args.seconds))
        print(_line(rows[-1], rows[0], args.weak), flush=True)
    device = jax.devices()[0]
    shared = device.platform == "cpu"
    if shared:
        print(f"these devices are virtual and share {processes.cores()} cores, so more of them cannot be faster; the overhead "
              "is what dividing the same work costs")
    found = {"algo": algo, "mode": "weak" if args.weak else "strong", "device": device.device_kind, "virtual": shared,
             "cores": processes.cores(), "rows": rows}
    if args.out is not None:
        draw(found, args.out)
        print(args.out)
    return found


def _counts(given: str | None) -> list[int]:
    if given is None:
        there = jax.device_count()
        return [1 << k for k in range(there.bit_length()) if 1 << k <= there]
    try:
        counts = sorted({int(word) for word in given.split(",")})
    except ValueError:
        raise UserError(f"devices must be numbers with commas between, as 1,2,4,8; got {given}") from None
    if not counts or counts[0] < 1:
        raise UserError(f"devices must be above 0, got {given}")
    return counts


def _with_devices(settings: Settings, devices: int, weak: bool) -> Settings:
    config = settings.config
    if weak:
        config = dataclasses.replace(config, **{field: devices * getattr(config, field) for field in config.shared_sizes})
        if hasattr(config, "num_envs"):
            config = dataclasses.replace(config, total_steps=devices * config.total_steps)
    return settings._replace(config=config, train=dataclasses.replace(settings.train, devices=devices))


def _measure(settings: Settings, devices: int, seconds: float) -> dict[str, Any]:
    task = tasks.open_task(settings)
    number, unit = task.examples
    driver = tasks.driver(task, settings)
    try:
        state, n, took = driver.start(), 1, 0.0
        state, _ = driver.chunk(state, 1)
        while took < seconds / _REPEATS / 2:  # as many steps as fill a part of the time
            n = max(n + 1, min(8 * n, int(n * seconds / _REPEATS / max(took, 1e-6)))) if took else n
            state, took = _timed(driver, state, n)
        steps, ones = [], []
        for _ in range(_REPEATS):
            state, took = _timed(driver, state, n)
            steps.append(took / n)
            state, took = _timed(driver, state, 1)
            ones.append(took)
        step_s = statistics.median(steps)
        shared = devices > 1 and driver.program is not None
        found = hlo_collectives.of(driver.program.as_text(), driver.loop) if shared else []
        return {
            "devices": devices, "step_s": step_s, "spread": max(steps) / min(steps),
            "per_s": driver.stride * number / step_s, "unit": unit,
            "host_s": max(0.0, statistics.median(ones) - step_s), "compile_s": round(driver.compile_s, 2),
            "parameters": int(sum(x.size for x in jax.tree.leaves(driver.params(state)))),
            "collectives": [c._asdict() for c in found], "collective_bytes": sum(c.bytes * c.times for c in found),
            "collective_s": sum(c.times * reduction_s(devices, c.bytes) for c in found)}
    finally:
        driver.close()


def _timed(driver: Any, state: Any, n: int) -> tuple[Any, float]:
    began = time.perf_counter()
    state, _ = driver.chunk(state, n)
    jax.block_until_ready(state)
    return state, time.perf_counter() - began


def reduction_s(devices: int, size: int, times: int = 200) -> float:
    """Seconds of one all-reduce of `size` bytes over so many devices, the median of several loops of them."""
    devices_mesh = mesh.make_mesh(devices)

    def loop(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, times, lambda _, x: 0.5 * jax.lax.psum(x, axis.AXIS), x)

    mapped = mesh.MeshLayout(devices_mesh, shared=True).map(loop, (mesh.REPLICATED,), mesh.REPLICATED)
    program, x = jax.jit(mapped), jnp.ones(max(1, size // 4))
    jax.block_until_ready(program(x))
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        jax.block_until_ready(program(x))
        seconds.append((time.perf_counter() - began) / times)
    return statistics.median(seconds)


def overhead(row: dict[str, Any], one: dict[str, Any], weak: bool) -> float:
    """What dividing the work costs, where the devices share cores: time over that of one device with the same work, less 1."""
    work = row["devices"] / one["devices"] if weak else 1
    return row["step_s"] / (work * one["step_s"]) - 1


def _line(row: dict[str, Any], one: dict[str, Any], weak: bool) -> str:
    gain = row["per_s"] / one["per_s"]
    efficiency = gain / (row["devices"] / one["devices"])
    number = sum(c["times"] for c in row["collectives"])
    return (f"{row['devices']:>3} devices: {1e3 * row['step_s']:9.3f} ms a step, {row['per_s']:12,.0f} {row['unit']}/s, "
            f"efficiency {efficiency:4.2f}, overhead {100 * overhead(row, one, weak):+6.1f} %; {number} collectives of "
            f"{row['collective_bytes'] / 1e3:,.1f} kB take {1e3 * row['collective_s']:.3f} ms, "
            f"the host {1e3 * row['host_s']:.3f} ms")


def draw(found: dict[str, Any], path: Path) -> None:
    """Throughput, and where the time of a step goes, over the number of devices."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = found["rows"]
    names = [str(row["devices"]) for row in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    rate = np.array([row["per_s"] for row in rows])
    left.plot(names, rate, "o-", label="measured")
    if not found["virtual"]:
        devices = np.array([row["devices"] for row in rows])
        left.plot(names, rate[0] * devices / devices[0], "k:", label="ideal")
    left.set(xlabel="devices", ylabel=f"{rows[0]['unit']} a second", ylim=(0, None),
             title=f"{found['algo']}, {found['mode']} scaling")
    left.legend(frameon=False)
    total, reduced, host = (1e3 * np.array([row[k] for row in rows]) for k in ("step_s", "collective_s", "host_s"))
    right.bar(names, np.maximum(total - reduced, 0), label="compute")
    right.bar(names, reduced, bottom=np.maximum(total - reduced, 0), label="collectives")
    right.bar(names, host, bottom=np.maximum(total, reduced), label="host, once a chunk")
    right.set(xlabel="devices", ylabel="ms a step")
    right.set_title(f"virtual devices on {found['cores']} cores" if found["virtual"] else found["device"])
    right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
