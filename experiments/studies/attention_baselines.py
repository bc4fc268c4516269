"""attention_baselines: what the baselines of a reader by glimpses save: its error while it learns, its gradient's variance

The reader learns the digits, or MNIST, with each baseline; seeds are members of one program. At some moments of one of these
runs, the same for all, each baseline estimates the gradient of the reward many times, as an update would: other images, other
places. Its variance is the trace of the covariance of that gradient by the parameters of the means, which the reward alone
moves. A row of its own has four draws for each of a quarter of the images: as many readings.

Shapes: `K` seeds, `M` estimates, `P` parameters of the means.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import data
from jaxdl.core.compile import TRAIN_OPTIONS
from jaxdl.core.types import Array, Examples, Key, Mean, PyTree
from jaxdl.experiments.commands.common import check_between
from jaxdl.experiments.studies import common
from jaxdl.experiments.studies.baselines import variance
from jaxdl.optim import Config as OptimConfig
from jaxdl.runtime import fit
from jaxdl.runtime.device_driver import make_device_driver
from jaxdl.supervised import attention_reader, learner
from jaxdl.supervised.attention_reader import Config

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWS = 4
ROWS: dict[str, dict[str, Any]] = {  # -> settings
    "none": {"baseline": "none"},
    "constant": {"baseline": "constant"},
    "batch": {"baseline": "batch"},
    "leave_one_out": {"baseline": "leave_one_out"},
    f"leave_one_out, {DRAWS} draws": {"baseline": "leave_one_out", "draws": DRAWS},
    "value": {"baseline": "value"},
}
MOMENTS = (0.02, 0.1, 0.3, 1.0)  # shares of the run whose parameters are those of all estimates
_POINTS = 50  # of a curve


@dataclass(frozen=True, kw_only=True)
class Args(common.Args):
    """Flags of the study."""

    data_dir: Path | None = None
    """Folder with the files of MNIST; without it the digits."""
    updates: int = 2000
    """Updates of each run; 50 or more."""
    batch_size: int = 64
    """Readings in an update."""
    num_seeds: int = 5
    """Seeds from `seed` on, of each baseline."""
    estimates: int = 2000
    """Gradients that are estimated, of each baseline at each moment."""


def run(args: Args) -> dict[str, Any]:
    """Train all, estimate, write and draw it."""
    check_between("updates", args.updates, _POINTS, 1_000_000)
    check_between("batch_size", args.batch_size, 2 * DRAWS, 10_000)
    check_between("num_seeds", args.num_seeds, 1, 1000)
    check_between("estimates", args.estimates, 2, 1_000_000)
    common.check_folder(args)
    found = measure(args)
    common.print_table("test error, %", ["mean", "deviation"], {
        name: [100 * row["error"][-1], 100 * row["error_std"][-1]] for name, row in found["rows"].items()})
    common.print_table("variance", [f"at {update}" for update in found["moments"]], {
        name: [x["variance"] for x in row["gradients"]] for name, row in found["rows"].items()})
    return common.finish("attention_baselines", args, found, draw)


def configured(args: Args, row: str) -> Config:
    """The reader of a row."""
    sizes = {"glimpse_size": 4, "hidden_size": 64, "glimpse_features": 32} if args.data_dir is None else {
        "glimpse_size": 8, "hidden_size": 128, "glimpse_features": 64}
    draws = ROWS[row].get("draws", 1)
    return Config(dataset="digits" if args.data_dir is None else "mnist", num_glimpses=4, cell="gru", total_steps=args.updates,
                  batch_size=args.batch_size // draws, optim=OptimConfig(learning_rate=3e-3), **sizes, **ROWS[row])


def measure(args: Args) -> dict[str, Any]:
    """Of each row errors [points] over the seeds, and at each moment the gradient's variance with its standard error."""
    splits = data.load_splits(configured(args, "none").dataset, args.data_dir)
    steps = np.unique(np.linspace(0, args.updates, _POINTS + 1).astype(int))
    moments = sorted({int(steps[np.abs(steps - share * args.updates).argmin()]) or int(steps[1]) for share in MOMENTS})
    rows, kept = {}, {}
    for name in ROWS:
        errors, params = _learned(configured(args, name), splits, steps, range(args.seed, args.seed + args.num_seeds), moments)
        rows[name] = {"error": errors.mean(1).tolist(), "error_std": errors.std(1).tolist()}
        kept = params if name == "value" else kept
    for name, row in rows.items():
        row["gradients"] = [dict(zip(("variance", "standard_error"), variance(_gradients(
            configured(args, name), splits[0], kept[at], args.estimates, args.seed)), strict=True)) for at in moments]
    return {"dataset": splits[0].name, "steps": steps.tolist(), "moments": moments, "rows": rows}


def _learned(config: Config, splits: tuple[data.Dataset, data.Dataset], steps: np.ndarray, seeds: range, moments: list[int]
             ) -> tuple[np.ndarray, dict[int, PyTree]]:
    """Test errors after so many updates [points, K], and the first seed's parameters at the moments."""
    train, test = splits
    made, num = attention_reader.make(config, train.spec), len(seeds)
    driver = make_device_driver(lambda c: attention_reader.make_run(c, train.spec), [config] * num, train.on_device(),
                                list(seeds))
    score = learner.scorer(lambda params, images, key: made.log_probs(params, images).argmax(-1))
    state, errors, kept = driver.start(), [], {}
    for before, at in zip([0, *steps], steps, strict=False):
        if at > before:
            state, _ = driver.chunk(state, int(at - before))
        members = fit.members_of(driver.params(state), num)
        errors.append([float((score(params, test.images) != test.labels).mean()) for params in members])
        if at in moments:
            kept[int(at)] = members[0]
    return np.array(errors), kept


def _gradients(config: Config, train: data.Dataset, params: PyTree, num: int, seed: int) -> np.ndarray:
    """Estimates [M, P] by one baseline, from batches of their own, at parameters that have a value too."""
    made, arrays = attention_reader.make(config, train.spec), train.on_device()
    named = params["params"]
    params = {"params": named if config.baseline == "value" else {k: x for k, x in named.items() if k != "to_value"}}

    def batch_of(key: Key) -> Examples:
        return jax.tree.map(lambda x: x[jax.random.randint(key, (config.batch_size,), 0, len(x))], arrays)

    def accuracy(key: Key) -> Array:
        k_batch, k_loss = jax.random.split(key)
        earlier = Mean(jnp.zeros(()), jnp.ones(()))
        return made.loss(params, batch_of(k_batch), k_loss, earlier)[1]["accuracy"].total / config.batch_size

    def estimate(key: Key, earlier: Mean) -> Array:
        k_batch, k_loss = jax.random.split(key)
        grads = jax.grad(lambda p: made.loss(p, batch_of(k_batch), k_loss, earlier)[0])(params)
        return jnp.concatenate([x.reshape(-1) for x in jax.tree.leaves(grads["params"]["locate"])])

    def program(key: Key) -> Array:
        k_earlier, key = jax.random.split(key)
        mean = jax.lax.map(accuracy, jax.random.split(k_earlier, 50)).mean()  # what a moving average has seen
        return jax.lax.map(lambda key: estimate(key, Mean(mean, jnp.ones(()))), jax.random.split(key, num))

    found = jax.jit(program, compiler_options=TRAIN_OPTIONS)(jax.random.key(seed))
    return np.asarray(found, np.float64)


def draw(found: dict[str, Any]) -> "Figure":
    """Errors while they learn, and variances at the moments."""
    figure, ((left, right),) = common.new_figure(1, 2, 12, 4.6)
    steps, moments = np.array(found["steps"]), found["moments"]
    for (name, row), color in zip(found["rows"].items(), common.COLORS, strict=False):
        mean, spread = (100 * np.array(row[what]) for what in ("error", "error_std"))
        left.plot(steps, mean, color=color, linewidth=1.4, label=name)
        left.fill_between(steps, mean - spread, mean + spread, color=color, alpha=0.12, linewidth=0)
        numbers, errors = ([x[what] for x in row["gradients"]] for what in ("variance", "standard_error"))
        right.errorbar(moments, numbers, 1.96 * np.array(errors), color=color, marker="o", markersize=4, linewidth=1.4,
                       capsize=2.5, label=name)
    common.plain(left, f"{found['dataset']}: mean and standard deviation over seeds", "updates", "test error, %")
    left.set_yscale("log")
    common.plain(right, "variance of the gradient, at the parameters of the run with a value, with 95 % intervals",
                 "updates of that run", "trace of the covariance")
    right.set_yscale("log")
    left.legend(frameon=False, fontsize=8)
    return figure
