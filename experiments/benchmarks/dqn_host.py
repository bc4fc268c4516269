"""DQN on Gymnasium's CartPole-v1: environment steps per second beside Stable-Baselines3 and sbx.

All: 8 environments stepped one after the other in one process (jaxdl: `sync`; `native` is Gymnasium's own vector
CartPole, which the others cannot use), one update of batch 128 per vector step, memory 10,000, 1,000 random steps first,
Adam 2.5e-4, Huber loss, target copied every 500 steps; hidden widths 120-84 beside Stable-Baselines3 and 120-120 beside
sbx. Steps per second are those of the second half of the run, so that compiling and random steps are left out.
"""

import time

import common

STEPS, NUM_ENVS = 24_000, 8
SHARED = {"learning_rate": 2.5e-4, "buffer_size": 10_000, "learning_starts": 1_000, "batch_size": 128, "gamma": 0.99,
          "train_freq": 1, "gradient_steps": 1, "target_update_interval": 500, "exploration_fraction": 0.5,
          "exploration_final_eps": 0.05}


def stable_baselines(module: str, packages: tuple[str, ...], hidden: list[int]) -> dict:
    """A DQN with the interface of Stable-Baselines3."""
    import importlib

    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    class Clock(BaseCallback):
        half = 0.0

        def _on_step(self) -> bool:
            if not self.half and self.num_timesteps >= STEPS // 2:
                self.half = time.perf_counter()
            return True

    if module == "stable_baselines3":
        import torch

        torch.set_num_threads(1)
    clock = Clock()
    model = importlib.import_module(module).DQN(
        "MlpPolicy", make_vec_env("CartPole-v1", n_envs=NUM_ENVS), policy_kwargs={"net_arch": hidden}, seed=0, **SHARED)
    model.learn(STEPS, callback=clock)
    return {"steps_per_s": (STEPS - STEPS // 2) / (time.perf_counter() - clock.half), "versions": common.versions(*packages)}


def jaxdl(hidden: tuple[int, ...], vectorization: str) -> dict:
    """The run of jaxdl, driven as `train.fit` drives it."""
    import jax

    from agents import dqn
    from jaxdl import envs, host
    from jaxdl.optim import Config as OptimConfig

    shared = {name: value for name, value in SHARED.items() if name != "learning_rate"}
    config = dqn.Config(num_envs=NUM_ENVS, backend="host", hidden_sizes=hidden, loss="huber", tau=1.0, total_steps=STEPS,
                        optim=OptimConfig(learning_rate=SHARED["learning_rate"], max_grad_norm=10.0), **shared)
    spec = envs.spec(config.env_id)
    venv = envs.make_host(config.env_id, NUM_ENVS, vectorization)
    driver = host.host(lambda c: dqn.make_host_run(c, spec), config, venv, 0)
    state, step = driver.start(), driver.first_step
    iterations = (STEPS // 2 - step) // driver.stride
    state, _ = driver.chunk(state, iterations)
    step += iterations * driver.stride
    half = time.perf_counter()
    state, _ = driver.chunk(state, (STEPS - step) // driver.stride)
    jax.block_until_ready(state)
    done = time.perf_counter()
    driver.close()
    return {"steps_per_s": (STEPS - step) / (done - half), "compile_s": driver.compile_s,
            "versions": common.versions("jaxdl", "jax", "gymnasium")}


if __name__ == "__main__":
    common.main(
        __file__,
        {"jaxdl_120_84": ("jaxdl", lambda args: jaxdl((120, 84), "sync")),
         "sb3_120_84": ("peers", lambda args: stable_baselines(
             "stable_baselines3", ("stable-baselines3", "torch", "gymnasium"), [120, 84])),
         "jaxdl_120_120": ("jaxdl", lambda args: jaxdl((120, 120), "sync")),
         "sbx_120_120": ("peers", lambda args: stable_baselines("sbx", ("sbx-rl", "jax", "gymnasium"), [120, 120])),
         "jaxdl_120_84_native": ("jaxdl", lambda args: jaxdl((120, 84), "native"))},
        {"steps_per_s, jaxdl over Stable-Baselines3": ("jaxdl_120_84", "sb3_120_84", "steps_per_s", "higher"),
         "steps_per_s, jaxdl over sbx": ("jaxdl_120_120", "sbx_120_120", "steps_per_s", "higher"),
         "steps_per_s, jaxdl (native) over Stable-Baselines3": ("jaxdl_120_84_native", "sb3_120_84", "steps_per_s", "higher")})
