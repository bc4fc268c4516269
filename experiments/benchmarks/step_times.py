"""Seconds of one step of every learner on the device at hand, one after the other, each compiled ahead.

    python step_times.py [--data-dir MNIST_FOLDER] [--seconds 3] [--only "vae;gan"] [--out FILE]

A step is what `core.run` calls one: acting and as many updates as the settings have, or one update on a dataset.
"""

import argparse
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import jax

from jaxdl.experiments import tasks
from jaxdl.experiments.commands.train import settings_from

PIXELS = "--dataset mnist --data-dir {data}"
LEARNERS = {
    "dqn": "dqn",
    "rainbow": "rainbow",
    "dqn, 1,024 environments": "dqn --num-envs 1024 --train-freq 1 --batch-size 1024 --buffer-size 1048576 "
                               "--learning-starts 10240 --total-steps 10000000",
    "reinforce": "reinforce",
    "actor_critic": "actor_critic",
    "ppo": "ppo",
    "ppo, 2,048 environments": "ppo --num-envs 2048 --total-steps 100000000",
    "vae": f"vae {PIXELS}",
    "vae, batch 4,096": f"vae {PIXELS} --batch-size 4096",
    "vae, 5 samples": f"vae {PIXELS} --hidden-sizes 200 200 --latent-size 50 --activation tanh --batch-size 100 "
                      "--objective iwae --num-samples 5",
    "vae, two layers, 50 samples": f"vae {PIXELS} --hidden-sizes 200 200 --latent-size 100 --second-latent-size 50 "
                                   "--activation tanh --batch-size 100 --objective iwae --num-samples 50",
    "autoencoder": f"autoencoder {PIXELS}",
    "vqvae": f"vqvae {PIXELS}",
    "gan": f"gan {PIXELS}",
    "gan, batch 512": f"gan {PIXELS} --batch-size 512",
    "pixelcnn": f"pixelcnn {PIXELS} --variant plusplus --width 64 --num-blocks 2 --batch-size 64",
    "pixelcnn, batch 512": f"pixelcnn {PIXELS} --variant plusplus --width 64 --num-blocks 2 --batch-size 512",
    "pixelrnn": f"pixelrnn {PIXELS}",
}


def main() -> None:
    """Build all drivers side by side, then time one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--only", default=None)
    parser.add_argument("--threads", type=int, default=2, help="that compile at a time")
    parser.add_argument("--compile-limit", type=float, help="seconds after which what is not compiled is left out")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    names = list(LEARNERS) if args.only is None else args.only.split(";")
    device = jax.devices()[0]
    found = {"device": device.device_kind, "platform": device.platform, "jax": jax.__version__, "learners": {}}
    pool = ThreadPoolExecutor(args.threads)
    compiling = {name: pool.submit(_driver, LEARNERS[name].format(data=args.data_dir)) for name in names}
    wait(compiling.values(), args.compile_limit)
    ready = {name: future.result() for name, future in compiling.items() if future.done() and not future.exception()}
    for name in compiling.keys() - ready.keys():
        error = compiling[name].exception() if compiling[name].done() else f"not compiled in {args.compile_limit:g} s"
        found["learners"][name] = {"error": str(error)[:300]}
        print(name, found["learners"][name], flush=True)
    for name, driver in ready.items():
        command = f"jaxdl train {LEARNERS[name].format(data='MNIST_FOLDER')}"
        found["learners"][name] = {"command": command} | _time(driver, args.seconds)
        print(name, found["learners"][name], flush=True)
        args.out.write_text(json.dumps(found, indent=2) + "\n")
    os._exit(0)  # what still compiles is not waited for


def _driver(command: str):
    settings = settings_from(command.split())
    return tasks.driver(tasks.open_task(settings), settings)


def _time(driver, seconds: float) -> dict:
    began = time.perf_counter()
    state = driver.start()
    jax.block_until_ready(state)
    start_s, n = time.perf_counter() - began, 1
    while True:
        began = time.perf_counter()
        state, _ = driver.chunk(state, n)
        jax.block_until_ready(state)
        took = time.perf_counter() - began
        if took > seconds / 2:
            break
        n = max(n + 1, int(n * min(8.0, 0.8 * seconds / max(took, 1e-6))))
    params = driver.params(state)
    return {"step_s": took / n, "steps_timed": n, "t_a_step": driver.stride, "updates_a_step": driver.updates,
            "parameters": int(sum(x.size for x in jax.tree.leaves(params))),
            "compile_s": round(driver.compile_s, 2), "start_s": round(start_s, 2)}


if __name__ == "__main__":
    main()
