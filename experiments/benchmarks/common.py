"""Run the sides of a benchmark in turn, each in a process of its own on the same cores, and put their medians side by side.

Only the standard library: peers run these files with the Python of their own environment.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}  # memory of large arrays in pages of 2 MB


def main(script: str, sides: dict[str, tuple], ratios: dict[str, tuple],
         more: Callable[[argparse.ArgumentParser], None] = lambda parser: None, cores: str = "0") -> None:
    """The command line of a benchmark.

    Args:
        script: the benchmark's `__file__`.
        sides: name -> ("jaxdl" or "peers", whose Python runs it; the function that measures it; more of its environment,
            where there is any).
        ratios: what to report -> (side, other side, figure, "higher" or "lower" is better).
        more: adds arguments of its own.
        cores: that every side runs on.
    """
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--peers", help="Python of an environment with the extra 'bench' installed")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", default=cores, help="as for taskset -c")
    parser.add_argument("--side", choices=sides, help="measure this side here and print one line (used by the script itself)")
    more(parser)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(sides[args.side][1](args)), flush=True)
        return
    if not args.peers:
        parser.error("--peers is needed: python -m venv peers && peers/bin/pip install torch '.[bench]'")
    rows: dict[str, list[dict]] = {name: [] for name in sides}
    for repeat in range(args.repeats):
        for name, (who, _, *more_env) in sides.items():
            row = _measure(script, name, sys.executable if who == "jaxdl" else args.peers, args.cores, repeat, *more_env)
            rows[name].append(row)
            print(f"{repeat + 1}/{args.repeats} {name}: {row}", file=sys.stderr, flush=True)
    medians = {name: {k: statistics.median(r[k] for r in runs) if isinstance(v, (int, float)) else v
                      for k, v in runs[0].items()} for name, runs in rows.items()}
    figures = {what: _ratio(medians[a][figure], medians[b][figure], better)
               for what, (a, b, figure, better) in ratios.items()}
    result = {"command": " ".join(["python", os.path.relpath(script), *(f"--repeats {args.repeats}".split())]),
              "machine": {"processor": processor(), "cores": _count(args.cores), "python": platform.python_version()},
              "ratios": figures, "medians": medians,
              "spread": {name: _spread(runs) for name, runs in rows.items()},
              "runs": {name: {k: [r[k] for r in runs] for k in runs[0] if isinstance(runs[0][k], float)}
                       for name, runs in rows.items()}}
    Path(script).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


def median_rate(part: Callable[[], object], items: int, parts: int = 3, clock: Callable[[], float] = time.perf_counter
                ) -> float:
    """Items a second of the median of `parts` calls, after one that warms up; a call takes `items` of them."""
    part()
    seconds = []
    for _ in range(parts):
        start = clock()
        part()
        seconds.append(clock() - start)
    return items / statistics.median(seconds)


def versions(*names: str) -> dict[str, str]:
    """Installed versions of packages."""
    return {name: metadata.version(name) for name in names}


def _ratio(ours: float, theirs: float, better: str) -> float:
    return round(ours / theirs if better == "higher" else theirs / ours, 3)


def _spread(rows: list[dict]) -> dict[str, float]:
    """Largest over smallest of each figure."""
    return {k: round(max(r[k] for r in rows) / min(r[k] for r in rows), 3)
            for k, v in rows[0].items() if isinstance(v, float) and v > 0}


def _count(cores: str) -> int:
    ends = [[int(end) for end in part.split("-")] for part in cores.split(",")]
    return sum(part[-1] - part[0] + 1 for part in ends)


def seed() -> int:
    """Of this repeat: its number."""
    return int(os.environ.get("BENCHMARK_SEED", 0))


def _measure(script: str, side: str, python: str, cores: str, repeat: int, more: dict[str, str] | None = None) -> dict:
    env = dict(os.environ, OMP_NUM_THREADS=str(_count(cores)), JAX_PLATFORMS="cpu", XLA_FLAGS="",
               JAX_ENABLE_COMPILATION_CACHE="false", BENCHMARK_SEED=str(repeat), **(more or {}))
    began = time.perf_counter()
    done = subprocess.run(["taskset", "-c", cores, python, script, "--side", side, *_own(sys.argv[1:])],
                          env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1]) | {"wall_s": time.perf_counter() - began}  # of the whole process


def _own(argv: list[str]) -> list[str]:
    """The arguments that a side needs too: all but --peers, --repeats and --cores."""
    kept, skip = [], False
    for word in argv:
        if skip:
            skip = False
        elif word in ("--peers", "--repeats", "--cores"):
            skip = True
        else:
            kept.append(word)
    return kept


def processor() -> str:
    """The model of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()
