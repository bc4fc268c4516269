"""What a finished run leaves to look at: a learning curve, a video of an agent, pictures of a generative model."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdl.core.errors import JaxdlError
from jaxdl.core.types import PyTree
from jaxdl.experiments import pictures, plot, run_folder, tasks
from jaxdl.experiments.commands import sample
from jaxdl.rl import envs, video
from jaxdl.runtime import fit


def leave_pictures(folder: Path, settings: run_folder.Settings, job: tasks.Job, params: PyTree) -> list[Path]:
    """Write the pictures of a run; one that cannot be made (no renderer, say) is left out with a word why."""
    params = fit.members_of(params, len(tasks.population(settings)))[0]

    def curve(path: Path) -> None:
        plot.plot_runs([folder], path)

    def policy(path: Path) -> None:
        video.record(job.model.greedy, params, settings.config.env_id, path, seed=settings.train.seed,
                     settings=settings.config.env)

    def samples(path: Path) -> None:
        pictures.save_png(path, pictures.grid(sample.draw(job.model, params, settings.train.seed, 64).images))

    def reconstructions(path: Path) -> None:
        examples = job.test.rows(slice(32))
        again = jax.jit(job.model.reconstruct)(params, examples, jax.random.key(settings.train.seed))
        pictures.save_png(path, pictures.pairs(examples.images, np.asarray(again)))

    def sweep(path: Path) -> None:
        plot.plot_sweep(folder, path)

    wanted = {"curve.png": curve} | ({"sweep.png": sweep} if settings.train.sweep else {})
    if settings.algorithm.kind == "agent":
        wanted["policy.gif"] = policy
    else:
        wanted |= {"samples.png": samples} if job.model.sample else {}
        wanted |= {"reconstructions.png": reconstructions} if job.model.reconstruct else {}
    made = []
    for name, draw in wanted.items():
        try:
            draw(folder / name)
            made.append(folder / name)
        except JaxdlError as e:
            print(f"no {name}: {e}")
    return made


def line_of(settings: run_folder.Settings, found: dict[str, Any] | None) -> str:
    """An evaluation in words."""
    if found is None:
        return "not evaluated"
    if settings.algorithm.kind == "agent":
        over = f", mean over {len(found['members'])} members" if "members" in found else ""
        whose = "" if envs.lives(settings.config.env_id) == "jax" else "Gymnasium's own "
        return (f"mean return over {found['episodes']} greedy episodes in {whose}{settings.config.env_id}: "
                f"{found['return_mean']:.1f} +- {found['return_std']:.1f}{over}")
    if "fid" in found:
        judged = (f"in-domain features of {found['num']:,} samples (classifier of {100 * found['classifier_accuracy']:.1f} %): "
                  f"fid {found['fid']:.2f} (floor {found['fid_floor']:.2f}), kid {found['kid']:.4f}, "
                  f"precision {found['precision']:.3f}, recall {found['recall']:.3f}, {found['modes']} modes, "
                  f"histogram kl {found['histogram_kl']:.4f}")
        if "elbo" not in found:
            return judged
    if "elbo" not in found:
        return f"test images of {settings.config.dataset}: " + ", ".join(
            f"{name} {value:.4g}" for name, value in found.items() if isinstance(value, float))
    nll = f", nll {found['nll']:.2f}" if "nll" in found else ""
    return (f"test images of {settings.config.dataset}: elbo {found['elbo']:.2f} nats "
            f"(reconstruction {found['reconstruction']:.2f}, kl {found['kl']:.2f}){nll}"
            + (f"; {judged}" if "fid" in found else ""))
