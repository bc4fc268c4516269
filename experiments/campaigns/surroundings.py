"""Where a program runs: streams, variables, folders, limits and paths of which one is not as usual.

A row a situation: how a command is started, and which statuses are right: 0 where it must work, 2 (or 1) with a sentence where
it cannot. An answer is bad where it is a traceback, another status, no end in a minute, or a run that lost its files.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from jaxdl.experiments.campaigns import common

_PPO = ("train ppo --num-envs 2 --rollout-steps 8 --num-minibatches 2 --total-steps 32 --hidden-sizes 8 --eval-episodes 2 "
        "--quick-compile")
_GAN = "train gan --batch-size 16 --total-steps 4 --width 4 --hidden-size 8 --quick-compile"
_LIMIT = 240.0
_OTHER = "setpriv --reuid=54321 --regid=54321 --clear-groups "  # a user without a passwd entry


class _Row(NamedTuple):
    """A situation. `{J}` is the command, `{R}` a folder of its own, `{RUN}` a finished run."""

    kind: str
    script: str  # of bash; its status is the command's
    right: tuple[int, ...] = (0,)
    has: str = ""  # a file of {R} that must be there in the end


def _train(kind: str, before: str, right: tuple[int, ...] = (0,), after: str = "", out: str = "{R}/a") -> _Row:
    whole = f"{out.removeprefix('{R}/')}/summary.json" if right == (0,) and "'" not in out else ""
    return _Row(kind, f"{before} {{J}} {_PPO} --out {out} {after}", right, whole)


_ROWS = [
    # streams
    _train("streams", "", after="2>&-"), _train("streams", "", after=">&-"), _train("streams", "", after="<&-"),
    _train("streams", "", after="<&- >&- 2>&-"), _train("streams", "PYTHONIOENCODING=ascii", out="{R}/größe"),
    _train("streams", "LC_ALL=C LANG=C", out="{R}/größe"),
    _train("streams", "LC_ALL=C LANG=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0", (2,), out="{R}/größe"),
    _train("streams", "", after="2>/dev/full"), _train("streams", "", (1,), ">/dev/full"),
    _Row("streams", "{J} list | true; exit ${{PIPESTATUS[0]}}", (0, 1, 141)),
    _Row("streams", "{J} evaluate {RUN} --episodes 1 | true; exit ${{PIPESTATUS[0]}}", (0, 1, 141)),
    _Row("streams", f"{{J}} {_PPO} --out {{R}}/a 2>&1 | head -1; exit ${{{{PIPESTATUS[0]}}}}", (0, 1, 141), "a/summary.json"),
    _Row("streams", "PYTHONUNBUFFERED=1 {J} --help | true; exit ${{PIPESTATUS[0]}}", (0, 1, 141)),
    _Row("streams", "{J} evaluate {RUN} --episodes 1 --json 2>&-"), _Row("streams", "{J} list >/dev/full", (1,)),
    # terminals
    _Row("terminals", "TERM=dumb {J} train ppo --help"), _Row("terminals", "env -u TERM {J} evaluate {RUN} --episodes 1"),
    _Row("terminals", "COLUMNS=1 {J} train dqn --help"), _Row("terminals", "COLUMNS=0 LINES=0 {J} train vae --help"),
    _Row("terminals", "COLUMNS=nonsense {J} train vae --help"),
    _Row("terminals", f"script -qec 'COLUMNS=1 {{J}} {_PPO} --out {{R}}/a' /dev/null", has="a/summary.json"),
    # users and folders
    _Row("users", "env -u HOME -u XDG_CACHE_HOME -u JAX_COMPILATION_CACHE_DIR " + _OTHER + "{J} list"),
    _Row("users", "chmod 777 {R}; env -u HOME -u XDG_CACHE_HOME -u JAX_COMPILATION_CACHE_DIR " + _OTHER
         + f"{{J}} {_PPO} --out {{R}}/a", has="a/summary.json"),
    _Row("users", "chmod 777 {R}; env -u HOME -u XDG_CACHE_HOME -u JAX_COMPILATION_CACHE_DIR " + _OTHER
         + f"{{J}} {_GAN} --out {{R}}/a", has="a/checkpoints/4"),
    _train("users", "HOME=/dev/null XDG_CACHE_HOME=/dev/null/x"), _train("users", "XDG_CACHE_HOME=relative"),
    _train("users", "umask 077;"), _train("users", "umask 777;", (0, 2)),
    _Row("users", "touch {R}/cache; env -u JAX_COMPILATION_CACHE_DIR XDG_CACHE_HOME={R}/cache " + f"{{J}} {_GAN} --out {{R}}/a",
         has="a/checkpoints/4"),
    _train("folders", "JAX_COMPILATION_CACHE_DIR=/proc/none"), _train("folders", "JAX_COMPILATION_CACHE_DIR="),
    _train("folders", "TMPDIR=/nonexistent"), _train("folders", "TMPDIR=/proc"),
    _Row("folders", f"mkdir {{R}}/gone; cd {{R}}/gone; rmdir {{R}}/gone; {{J}} {_PPO} --out {{R}}/a", (2,)),
    _Row("folders", "mkdir {R}/gone; cd {R}/gone; rmdir {R}/gone; {J} list", (0, 2)),
    _Row("folders", f"cd {{R}}; touch jax.py numpy.py gymnasium.py tyro.py random.py; {{J}} {_PPO} --out {{R}}/a",
         has="a/summary.json"),
    _Row("folders", f"cd {{R}}; touch jax.py numpy.py tyro.py; {{P}} -m jaxdl {_PPO} --out {{R}}/a", has="a/summary.json"),
    _Row("folders", f"cd {{R}}; mkdir jaxdl; touch jaxdl/__init__.py; {{J}} {_PPO} --out {{R}}/a", has="a/summary.json"),
    _Row("folders", f"cd {{R}}; touch jax.py; PYTHONPATH=. {{J}} {_PPO} --out {{R}}/a", (2,)),
    # variables of Python and other packages
    _train("variables", "PYTHONWARNINGS=error", (0, 2)), _train("variables", "PYTHONWARNINGS=nonsense"),
    _train("variables", "MPLBACKEND=nonsense"), _train("variables", "MPLBACKEND=TkAgg"),
    _train("variables", "MPLCONFIGDIR=/proc"),
    _train("variables", "OMP_NUM_THREADS=nonsense"), _train("variables", "OMP_NUM_THREADS=-3"),
    _train("variables", "PYTHONOPTIMIZE=2"), _train("variables", "PYTHONDEVMODE=1"), _train("variables", "PYTHONSAFEPATH=1"),
    _train("variables", "PYTHONHASHSEED=0"), _train("variables", "PYTHONDONTWRITEBYTECODE=1"),
    _train("variables", "CUDA_VISIBLE_DEVICES="),
    _train("variables", "XLA_FLAGS=nonsense", (0, 2)), _train("variables", "XLA_FLAGS=--nonsense", (2,)),
    _train("variables", "XLA_FLAGS=--xla_force_host_platform_device_count=x", (2,)),
    _train("variables", "XLA_FLAGS=/nonexistent", (0, 2)),
    # switches of JAX
    *(_train("switches", switch, right) for switch, right in [
        ("JAX_ENABLE_X64=1", (0,)), ("JAX_ENABLE_X64=maybe", (2,)), ("JAX_DISABLE_JIT=1", (2,)), ("JAX_PLATFORMS=cuda", (2,)),
        ("JAX_PLATFORMS=nonsense", (2,)), ("JAX_PLATFORMS=cpu,cuda", (0, 2)), ("JAX_PLATFORMS=CPU", (0, 2)),
        ("JAX_PLATFORM_NAME=cuda", (2,)),
        ("JAX_DEBUG_NANS=1", (0, 2)), ("JAX_DEBUG_INFS=1", (0, 2)), ("JAX_NUMPY_RANK_PROMOTION=raise", (0,)),
        ("JAX_NUMPY_DTYPE_PROMOTION=strict", (0, 2)), ("JAX_TRANSFER_GUARD=disallow", (0, 2)),
        ("JAX_CHECK_TRACER_LEAKS=1", (0, 2)),
        ("JAX_DEFAULT_PRNG_IMPL=rbg", (0, 2)), ("JAX_DEFAULT_PRNG_IMPL=nonsense", (2,)), ("JAX_THREEFRY_PARTITIONABLE=0", (0,)),
        ("JAX_DEFAULT_MATMUL_PRECISION=highest", (0,)), ("JAX_DEFAULT_MATMUL_PRECISION=bfloat16", (0,)),
        ("JAX_DISABLE_MOST_OPTIMIZATIONS=1", (0,)), ("JAX_LOG_COMPILES=1", (0,)), ("JAX_ENABLE_COMPILATION_CACHE=0", (0,)),
        ("JAX_NUM_CPU_DEVICES=3", (0,)), ("JAX_NUM_CPU_DEVICES=0", (0, 2)), ("JAX_DEFAULT_DTYPE_BITS=64", (0, 2)),
        ("JAX_ENABLE_CUSTOM_PRNG=1", (0,)), ("JAX_DEFAULT_DEVICE=cpu", (0, 2)), ("JAX_ENABLE_CHECKS=1", (0, 2)),
        ("JAX_EXPLAIN_CACHE_MISSES=1", (0,)), ("JAX_CPU_COLLECTIVES_IMPLEMENTATION=nonsense", (0, 2)),
        ("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=x", (2,)), ("JAX_RAISE_PERSISTENT_CACHE_ERRORS=1", (0,))]),
    # limits
    *(_Row("limits", f"ulimit -v {kilobytes}; {{J}} {_PPO} --out {{R}}/a", right) for kilobytes, right in
      [(1_000_000, (2,)), (2_000_000, (2,)), (4_000_000, (0,))]),
    _Row("limits", "ulimit -v 6000000; {J} train dqn --buffer-size 2e9 --total-steps 1e4 --out {R}/a", (2,)),
    _Row("limits", "{J} train dqn --num-seeds 2e9 --out {R}/a", (2,)),
    _Row("limits", "{J} train dqn --num-seeds 2000000000", (2,)),
    _Row("limits", "ulimit -n 16; {J} evaluate {RUN} --episodes 1", (0, 1, 2)), _Row("limits", "ulimit -f 0; {J} list", (0, 2)),
    _Row("limits", f"ulimit -f 1; {{J}} {_PPO} --out {{R}}/a", (0, 1, 2)),
    # paths
    *(_train("paths", "", right, out=out) for out, right in [
        ("'{R}/run 1'", (0,)), ("\"{R}/it's\"", (0,)), ("$'{R}/two\\nlines'", (0,)), ("'{R}/a\"b$c`d;e&f'", (0,)),
        ("$'{R}/\\xe9\\xff'", (2,)), ("'{R}/{long}'", (2,)), ("'{R}/ü☃𝄞'", (0,)), ("'{R}/%s{{}}'", (0,)),
        ("{R}/a/../b/./c", (0,)),
        ("''", (0, 2))]),
    _Row("paths", "mkfifo {R}/a; {J} " + _PPO + " --out {R}/a", (2,)), _Row("paths", "mkfifo {R}/a; {J} evaluate {R}/a", (2,)),
    _Row("paths", "mkfifo {R}/a; {J} train ppo --config {R}/a", (2,)), _Row("paths", "{J} train ppo --config {R}", (2,)),
    _Row("paths", "{J} train ppo --config /dev/zero", (2,)), _Row("paths", "{J} plot {RUN} --out {R}", (2,)),
    _Row("paths", "mkdir {R}/x.png; {J} plot {RUN} --out {R}/x.png", (2,)), _Row("paths", "{J} evaluate {long}", (2,)),
    _Row("paths", "{J} evaluate {RUN} --video /dev/null/x.gif", (2,)), _Row("paths", "{J} evaluate /root/../proc/1/x", (2,)),
    # what a message proposes can be pasted
    *(_Row("proposals", f"{{J}} {_PPO} --out {out} | sed -n 's/^next: jaxdl //p' > {{R}}/next; "
           "eval \"{J} $(cat {R}/next)\"") for out in ("\"{R}/it's 1\"", "$'{R}/a\\nb'", "{R}/größe")),
]


def campaign(num: int, seed: int, tally: common.Tally) -> None:
    """Try the first `num` situations; there is nothing random in them."""
    del seed
    jaxdl = shutil.which("jaxdl", path=Path(sys.executable).parent) or "jaxdl"
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        os.chmod(place, 0o755)
        env = os.environ | {"JAX_COMPILATION_CACHE_DIR": f"{place}/programs", "XDG_CACHE_HOME": f"{place}/cache"}
        done = common.run(*_PPO.split(), "--out", f"{place}/run", env=env)
        if done.status:
            raise RuntimeError(done.err)
        for i, row in enumerate(_ROWS[:num]):
            folder = Path(place) / str(i)
            folder.mkdir()
            script = row.script.format(J=jaxdl, P=sys.executable, R=folder, RUN=f"{place}/run", long="x" * 300)
            process = subprocess.Popen(["bash", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=env,
                                       stderr=subprocess.PIPE, text=True, errors="backslashreplace", start_new_session=True)
            ended = common.wait(process, _LIMIT)
            wrong = common.fault(ended, row.right)
            if wrong and "without a sentence" in wrong and ("|" in row.script or "2>" in row.script):
                wrong = None  # nobody was there to be told
            if wrong is None and ended.status == 0 and row.has and not (folder / row.has).exists():
                wrong = f"there is no {row.has}"
            tally.add(row.kind, row.script.replace(_PPO, "PPO").replace(_GAN, "GAN"), wrong)
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    common.main("surroundings", campaign, len(_ROWS))
