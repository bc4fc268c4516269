"""DQN on Gymnasium's CartPole-v1 and LunarLander-v3: environment steps per second beside Stable-Baselines3 and sbx.

All: 8 environments, or 1, stepped one after the other in one process (jaxdl: `sync`; `native` is Gymnasium's own vector
CartPole, which the others cannot use), one update of batch 128 per vector step, memory 10,000, 1,000 random steps first,
Adam 2.5e-4, Huber loss, target copied every 500 steps; hidden widths 120-84 beside Stable-Baselines3 and 120-120 beside
sbx. Steps per second are those of the second half of the run, so that compiling and random steps are left out.
"""

import time

import common

SHARED = {"learning_rate": 2.5e-4, "buffer_size": 10_000, "learning_starts": 1_000, "batch_size": 128, "gamma": 0.99,
          "train_freq": 1, "gradient_steps": 1, "target_update_interval": 500, "exploration_fraction": 0.5,
          "exploration_final_eps": 0.05}
TASKS = {"cartpole_8": ("CartPole-v1", 8), "cartpole_1": ("CartPole-v1", 1), "lunarlander_8": ("LunarLander-v3", 8),
         "lunarlander_1": ("LunarLander-v3", 1)}
STEPS = {1: 6_000, 8: 24_000}


def stable_baselines(module: str, packages: tuple[str, ...], hidden: list[int], task: str) -> dict:
    """A DQN with the interface of Stable-Baselines3."""
    import importlib

    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    env_id, num_envs = TASKS[task]
    steps = STEPS[num_envs]

    class Clock(BaseCallback):
        half = 0.0

        def _on_step(self) -> bool:
            if not self.half and self.num_timesteps >= steps // 2:
                self.half = time.perf_counter()
            return True

    if module == "stable_baselines3":
        import torch

        torch.set_num_threads(1)
    quiet = {"render_mode": None}  # theirs is rgb_array, with which LunarLander draws particles that nobody sees
    clock = Clock()
    venv = make_vec_env(env_id, n_envs=num_envs, env_kwargs=quiet)
    model = importlib.import_module(module).DQN("MlpPolicy", venv, policy_kwargs={"net_arch": hidden}, seed=0, **SHARED)
    model.learn(steps, callback=clock)
    return {"steps_per_s": (steps - steps // 2) / (time.perf_counter() - clock.half), "versions": common.versions(*packages)}


def jaxdl(hidden: tuple[int, ...], vectorization: str, task: str) -> dict:
    """The run of jaxdl, driven as `train.fit` drives it."""
    import jax

    from jaxdl.agents import dqn
    from jaxdl.optim import Config as OptimConfig
    from jaxdl.rl import envs
    from jaxdl.rl.host_driver import make_host_driver

    env_id, num_envs = TASKS[task]
    total = STEPS[num_envs]
    shared = {name: value for name, value in SHARED.items() if name != "learning_rate"}
    config = dqn.Config(env_id=env_id, num_envs=num_envs, backend="host", hidden_sizes=hidden, loss="huber", tau=1.0,
                        total_steps=total, **shared,
                        optim=OptimConfig(learning_rate=SHARED["learning_rate"], schedule="constant", max_grad_norm=10.0))
    spec = envs.spec(config.env_id)
    venv = envs.make_host(env_id, num_envs, vectorization)
    driver = make_host_driver(lambda c: dqn.make_host_run(c, spec), config, venv, 0)
    state, step = driver.start(), driver.first_step
    iterations = (total // 2 - step) // driver.stride
    state, _ = driver.chunk(state, iterations)
    step += iterations * driver.stride
    half = time.perf_counter()
    state, _ = driver.chunk(state, (total - step) // driver.stride)
    jax.block_until_ready(state)
    done = time.perf_counter()
    driver.close()
    return {"steps_per_s": (total - step) / (done - half), "compile_s": driver.compile_s,
            "versions": common.versions("jaxdl", "jax", "gymnasium")}


def _sides() -> tuple[dict, dict]:
    sides, ratios = {}, {}
    for task in TASKS:
        for width, module, packages in ((84, "stable_baselines3", ("stable-baselines3", "torch", "gymnasium")),
                                        (120, "sbx", ("sbx-rl", "jax", "gymnasium"))):
            ours, theirs = f"jaxdl_{task}_120_{width}", f"{module}_{task}_120_{width}"
            sides[ours] = ("jaxdl", lambda args, t=task, w=width: jaxdl((120, w), "sync", t))
            sides[theirs] = ("peers", lambda args, t=task, w=width, m=module, p=packages: stable_baselines(m, p, [120, w], t))
            ratios[f"steps_per_s, {task}, jaxdl over {packages[0]}"] = (ours, theirs, "steps_per_s", "higher")
    sides["jaxdl_native"] = ("jaxdl", lambda args: jaxdl((120, 84), "native", "cartpole_8"))
    ratios["steps_per_s, cartpole_8, jaxdl (native) over stable-baselines3"] = (
        "jaxdl_native", "stable_baselines3_cartpole_8_120_84", "steps_per_s", "higher")
    return sides, ratios


if __name__ == "__main__":
    common.main(__file__, *_sides())
