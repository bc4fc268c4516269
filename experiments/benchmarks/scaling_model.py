"""A model of what a step costs on many devices, beside what was measured here, and what it says of larger machines.

    python scaling_model.py

    step(D) = step(1) + sum over the step's collectives of latency(D) + 2 (D - 1) / D * bytes / bandwidth

Every device has the work that one had (weak scaling); a ring all-reduce sends each byte twice but for its own part. The
collectives are those of the compiled program. Latency and bandwidth are fitted to reductions on this machine's virtual devices,
and assumed for others; `step(1)` is measured on an H200 (`step_times.json`).
"""

import json
from pathlib import Path

import jax

from jaxdl.experiments import hlo_collectives, tasks
from jaxdl.experiments.commands import scale
from jaxdl.experiments.commands.train import settings_from

HERE = Path(__file__).parent
LINKS = {  # latency of a small all-reduce in seconds, and bytes a second that a device can send while it receives as many
    "8 H200 (NVLink)": {"devices": 8, "latency_s": 15e-6, "bandwidth": 450e9},
    "256 chips of a TPU v5e pod": {"devices": 256, "latency_s": 40e-6, "bandwidth": 90e9},
}
DATA = "--dataset digits"
COMMANDS = {
    "dqn": "dqn", "dqn, 1,024 environments": "dqn --num-envs 1024 --train-freq 1 --batch-size 1024 --buffer-size 1048576 "
    "--learning-starts 10240 --total-steps 10000000", "reinforce": "reinforce", "actor_critic": "actor_critic", "ppo": "ppo",
    "ppo, 2,048 environments": "ppo --num-envs 2048 --total-steps 100000000", "autoencoder": f"autoencoder {DATA}",
    "vae": f"vae {DATA}", "gan": f"gan {DATA}",
    "pixelcnn": f"pixelcnn {DATA} --variant plusplus --width 64 --num-blocks 2 --batch-size 64",
}


def main() -> None:
    """Fit, predict and write."""
    jax.config.update("jax_num_cpu_devices", 8)
    fit = {n: _fit(n) for n in (2, 4, 8)}
    measured = json.loads((HERE / "step_times.json").read_text())
    rows = {}
    for name, command in COMMANDS.items():
        step_s = measured["learners"][name]["step_s"]
        settings = scale._with_devices(settings_from(command.split()), 8, weak=True)
        driver = tasks.driver(tasks.open_task(settings), settings)
        found = hlo_collectives.of(driver.program.as_text(), driver.loop)
        driver.close()
        times, size = sum(c.times for c in found), sum(c.times * c.bytes for c in found)
        rows[name] = {"step_s": step_s, "collectives": times, "bytes": size}
        for place, link in LINKS.items():
            total = step_s + _collectives_s(times, size, **link)
            rows[name][place] = {"step_s": total, "efficiency": round(step_s / total, 3)}
        print(name, rows[name], flush=True)
    here = {}
    for path in sorted((HERE.parent / "results").glob("scale_*.json")):
        one, *others = json.loads(path.read_text())["result"]["rows"]
        here[path.stem] = [_beside(row, one, fit[row["devices"]]) for row in others]
    result = {"command": "python scaling_model.py", "device": measured["device"], "fitted here": fit, "assumed": LINKS,
              "learners": rows, "strong scaling here": here}
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")


def _beside(row: dict, one: dict, link: dict) -> dict:
    """The measured time of a step of the same work, and what the model makes of one device's."""
    times = sum(c["times"] for c in row["collectives"])
    predicted = one["step_s"] + _collectives_s(times, row["collective_bytes"], row["devices"], **link)
    return {"devices": row["devices"], "measured_s": row["step_s"], "predicted_s": predicted}


def _collectives_s(times: int, size: int, devices: int, latency_s: float, bandwidth: float) -> float:
    return times * latency_s + 2 * (devices - 1) / devices * size / bandwidth


def _fit(devices: int) -> dict[str, float]:
    """Latency from a reduction of one number, bandwidth from one of 16 MB."""
    latency, large = scale.reduction_s(devices, 4), scale.reduction_s(devices, 16_000_000, times=20)
    return {"latency_s": latency, "bandwidth": 2 * (devices - 1) / devices * 16e6 / (large - latency)}


if __name__ == "__main__":
    main()
