"""DQN on Pong: environment steps per second, learning included, beside Stable-Baselines3 and sbx.

All: the Nature network, batch 32, one update per vector step, memory 100,000, 1,000 random steps first, Adam 1e-4, Huber loss,
target copied every 1,000 steps, frames skipped by 4, no-ops, episodes that end with a life, clipped rewards. `xla` is one
program that acts, steps, stores and learns 10,000 environment steps; `host` steps the same emulators from Python. Peers step
Gymnasium's environments with their own wrappers. Rates are those after compiling, random steps and the first tenth.
"""

import time

import common

SHARED = {"buffer_size": 100_000, "learning_starts": 1_000, "batch_size": 32, "gamma": 0.99, "train_freq": 1,
          "gradient_steps": 1, "target_update_interval": 1_000, "exploration_fraction": 0.1, "exploration_final_eps": 0.05}
RATE = 1e-4
STEPS = {1: 400, 8: 3_200}  # of the peers and of the host path, after the random ones


def stable_baselines(module: str, packages: tuple[str, ...], num_envs: int) -> dict:
    """A DQN with the interface of Stable-Baselines3."""
    import importlib
    import os

    import ale_py
    import gymnasium
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_atari_env

    gymnasium.register_envs(ale_py)
    first, last = SHARED["learning_starts"] + STEPS[num_envs] // 10, SHARED["learning_starts"] + STEPS[num_envs]

    class Clock(BaseCallback):
        began = 0.0
        steps = 0

        def _on_step(self) -> bool:
            if not self.began and self.num_timesteps >= first:
                self.began, self.steps = time.perf_counter(), self.num_timesteps
            return True

    if module == "stable_baselines3":
        import torch

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    from stable_baselines3.common.vec_env import VecFrameStack

    venv = VecFrameStack(make_atari_env("PongNoFrameskip-v4", n_envs=num_envs, seed=0), 4)
    clock = Clock()
    model = importlib.import_module(module).DQN("CnnPolicy", venv, seed=0, learning_rate=RATE, **SHARED)
    model.learn(last, callback=clock)
    return {"steps_per_s": (last - clock.steps) / (time.perf_counter() - clock.began), "versions": common.versions(*packages)}


def jaxdl(backend: str, num_envs: int) -> dict:
    """The run of jaxdl, driven as `train.fit` drives it."""
    import jax

    from jaxdl.agents import dqn
    from jaxdl.optim import Config as OptimConfig
    from jaxdl.rl import envs
    from jaxdl.rl.host_driver import make_host_driver
    from jaxdl.runtime.device_driver import make_device_driver

    config = dqn.Config(env_id="ALE/Pong-v5", num_envs=num_envs, hidden_sizes=(512,), loss="huber", tau=1.0, clip_reward=True,
                        total_steps=1_000_000, **SHARED,
                        optim=OptimConfig(learning_rate=RATE, schedule="constant", max_grad_norm=10.0))
    if backend == "xla":
        env = envs.make_device(config.env_id, config.env, num_envs)
        driver = make_device_driver(lambda c: dqn.make_run(c, env=env), [config], None, [0])
        steps = 10_000
    else:
        spec = envs.spec(config.env_id, config.env)
        venv = envs.make_host(config.env_id, num_envs, "auto", config.env)
        driver = make_host_driver(lambda c: dqn.make_host_run(c, spec), config, venv, 0)
        steps = STEPS[num_envs]
    state, _ = driver.chunk(driver.start(), STEPS[num_envs] // 10 // num_envs)
    jax.block_until_ready(state)
    start = time.perf_counter()
    state, _ = driver.chunk(state, steps // num_envs)
    jax.block_until_ready(state)
    return {"steps_per_s": steps / (time.perf_counter() - start), "compile_s": driver.compile_s,
            "versions": common.versions("jaxdl", "jax", "ale-py")}


if __name__ == "__main__":
    SB3, SBX = ("stable-baselines3", "torch", "ale-py"), ("sbx-rl", "jax", "ale-py")
    common.main(
        __file__,
        {"jaxdl_xla_8": ("jaxdl", lambda args: jaxdl("xla", 8)),
         "jaxdl_host_8": ("jaxdl", lambda args: jaxdl("host", 8)),
         "sb3_8": ("peers", lambda args: stable_baselines("stable_baselines3", SB3, 8)),
         "sbx_8": ("peers", lambda args: stable_baselines("sbx", SBX, 8)),
         "jaxdl_host_1": ("jaxdl", lambda args: jaxdl("host", 1)),
         "sb3_1": ("peers", lambda args: stable_baselines("stable_baselines3", SB3, 1)),
         "sbx_1": ("peers", lambda args: stable_baselines("sbx", SBX, 1))},
        {"steps_per_s, XLA over Stable-Baselines3, 8 environments": ("jaxdl_xla_8", "sb3_8", "steps_per_s", "higher"),
         "steps_per_s, XLA over sbx, 8 environments": ("jaxdl_xla_8", "sbx_8", "steps_per_s", "higher"),
         "steps_per_s, host over Stable-Baselines3, 8 environments": ("jaxdl_host_8", "sb3_8", "steps_per_s", "higher"),
         "steps_per_s, host over sbx, 8 environments": ("jaxdl_host_8", "sbx_8", "steps_per_s", "higher"),
         "steps_per_s, host over Stable-Baselines3, 1 environment": ("jaxdl_host_1", "sb3_1", "steps_per_s", "higher"),
         "steps_per_s, host over sbx, 1 environment": ("jaxdl_host_1", "sbx_1", "steps_per_s", "higher")}, cores="0,1")
