"""Scenes made on the device: how many a second on one core, and what share of a step of each learner they take.

    taskset -c 0 python scenes.py [--updates 20] [--out FILE]

The share is of processor time: a step that makes its scenes beside one that reads as many that lie there. Both are programs of
the same run, one after the other, medians of three parts.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import common
import jax
import numpy as np

from jaxdl import data
from jaxdl.core.compile import TRAIN_OPTIONS
from jaxdl.data.made import Made
from jaxdl.experiments import algorithms
from jaxdl.experiments.commands.train import settings_from
from jaxdl.runtime.device_driver import make_device_driver

BATCH, LYING = 256, 512
ASKED = {"pictures": ("images",), "pictures and classes": ("images", "semantic"), "all": None}
LEARNERS = ("segmenter", "localizer", "detector --method one_stage", "detector --method faster_rcnn",
            "captioner --look soft", "captioner --look hard", "vqa")


def main() -> None:
    """Measure, print and write all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=20, help="of a part")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    made = data.load("scenes", split="train").arrays
    found = {"command": "taskset -c 0 python experiments/benchmarks/scenes.py", "jax": jax.__version__,
             "machine": {"processor": common.processor(), "cores": 1, "python": platform.python_version()},
             "scenes_per_s": {what: round(rate(made, names)) for what, names in ASKED.items()}, "learners": {}}
    print(found["scenes_per_s"], flush=True)
    for words in LEARNERS:
        found["learners"][words] = step(words, args.updates)
        print(words, found["learners"][words], flush=True)
    args.out.write_text(json.dumps(found, indent=2) + "\n")


def rate(made: Made, names: tuple[str, ...] | None) -> float:
    """Scenes a second of which these parts are asked for, None: all."""
    def some(recipe, index):
        of = made.make(recipe, index)
        return of if names is None else [getattr(of, name) for name in names]

    recipe, index = jax.tree.map(jax.numpy.asarray, (made.recipe, made.index[:BATCH]))
    program = jax.jit(some, compiler_options=TRAIN_OPTIONS).lower(recipe, index).compile()
    return common.median_rate(lambda: [jax.block_until_ready(program(recipe, index)) for _ in range(20)], 20 * BATCH,
                              clock=time.process_time)


def step(words: str, updates: int) -> dict[str, float]:
    """Milliseconds of processor time of a step on scenes that are made and on such that lie there, and the share of making."""
    settings = settings_from(words.split())
    whole = data.load(settings.config.dataset, split="train")
    lying = whole.part(np.arange(LYING)).complete()
    times = {}
    for name, of in (("made", whole), ("lying", lying)):
        task = algorithms.load(settings.algo).reopen(settings.config, settings.train, of.spec)
        driver = make_device_driver(task.make_run, [settings.config], of.on_device(), [0])
        state = driver.start()

        def part(driver=driver) -> None:
            nonlocal state
            state, _ = driver.chunk(state, updates)
            jax.block_until_ready(state)

        times[name] = 1e3 / common.median_rate(part, updates, clock=time.process_time)
    return {"made_ms": round(times["made"], 2), "lying_ms": round(times["lying"], 2),
            "share": round(1 - times["lying"] / times["made"], 4)}


if __name__ == "__main__":
    main()
