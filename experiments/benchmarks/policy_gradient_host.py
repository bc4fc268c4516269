"""Actor-critic and PPO on Gymnasium's CartPole-v1: environment steps per second beside Stable-Baselines3 and sbx.

All: 8 environments stepped one after the other in one process (jaxdl: `sync`; `native` is Gymnasium's own vector CartPole,
which the others cannot use), two networks of 64-64 with tanh. Actor-critic: the defaults of Stable-Baselines3's A2C: rollouts
of 5 steps, RMSProp 7e-4, no entropy bonus. PPO: rollouts of 128 steps, 4 passes of 4 minibatches, Adam 2.5e-4, entropy bonus
0.01.
Steps per second are those of the second half of the run, so that compiling is left out.
"""

import time

import common

STEPS = {"a2c": 24_000, "ppo": 32_768}
ENVS = 8


def stable_baselines(module: str, algo: str, packages: tuple[str, ...]) -> dict:
    """The run of a library with the interface of Stable-Baselines3."""
    import importlib

    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    steps = STEPS[algo]

    class Clock(BaseCallback):
        half = 0.0

        def _on_step(self) -> bool:
            if not self.half and self.num_timesteps > steps // 2:
                self.half, self.at = time.perf_counter(), self.num_timesteps
            return True

    if module == "stable_baselines3":
        import torch

        torch.set_num_threads(1)
    settings = {} if algo == "a2c" else {
        "learning_rate": 2.5e-4, "n_steps": 128, "batch_size": ENVS * 128 // 4, "n_epochs": 4, "gamma": 0.99,
        "gae_lambda": 0.95, "clip_range": 0.2, "ent_coef": 0.01, "vf_coef": 0.5, "max_grad_norm": 0.5}
    clock = Clock()
    venv = make_vec_env("CartPole-v1", n_envs=ENVS, env_kwargs={"render_mode": None})
    kind = getattr(importlib.import_module(module), algo.upper())
    on_cpu = {"device": "cpu"} if module == "stable_baselines3" else {}
    model = kind("MlpPolicy", venv, seed=0, policy_kwargs={"net_arch": [64, 64]}, **on_cpu, **settings)
    model.learn(steps, callback=clock, log_interval=10**9)
    done = time.perf_counter()
    return {"steps_per_s": (model.num_timesteps - clock.at) / (done - clock.half), "versions": common.versions(*packages)}


def jaxdl(algo: str, vectorization: str) -> dict:
    """The run of jaxdl, driven as `train.fit` drives it."""
    import jax

    from jaxdl.agents import actor_critic, ppo
    from jaxdl.optim import Config as OptimConfig
    from jaxdl.rl import envs
    from jaxdl.rl.host_driver import make_host_driver

    total = STEPS[algo]
    shared = {"backend": "host", "num_envs": ENVS, "total_steps": total}
    if algo == "a2c":
        module, config = actor_critic, actor_critic.Config(
            rollout_steps=5, gae_lambda=1.0, ent_coef=0.0, normalize_reward=False, **shared,
            optim=OptimConfig(optimizer="rmsprop", learning_rate=7e-4, schedule="constant", eps=1e-5, max_grad_norm=0.5))
    else:
        module, config = ppo, ppo.Config(
            rollout_steps=128, **shared,
            optim=OptimConfig(learning_rate=2.5e-4, schedule="constant", eps=1e-5, max_grad_norm=0.5))
    spec = envs.spec(config.env_id)
    venv = envs.make_host(config.env_id, ENVS, vectorization)
    driver = make_host_driver(lambda c: module.make_host_run(c, spec), config, venv, 0)
    iterations = total // driver.stride
    state, _ = driver.chunk(driver.start(), iterations // 2)
    step, half = driver.step_of(state), time.perf_counter()
    state, _ = driver.chunk(state, iterations - iterations // 2)
    jax.block_until_ready(state)
    done = time.perf_counter()
    driver.close()
    return {"steps_per_s": (driver.step_of(state) - step) / (done - half), "compile_s": driver.compile_s,
            "versions": common.versions("jaxdl", "jax", "gymnasium")}


def _sides() -> tuple[dict, dict]:
    sides, ratios = {}, {}
    for algo, peers in (("a2c", ("stable_baselines3",)), ("ppo", ("stable_baselines3", "sbx"))):
        for how in ("sync", "native"):
            sides[f"jaxdl_{algo}_{how}"] = ("jaxdl", lambda args, a=algo, h=how: jaxdl(a, h))
        for module in peers:
            packages = ("stable-baselines3", "torch", "gymnasium") if module != "sbx" else ("sbx-rl", "jax", "gymnasium")
            sides[f"{module}_{algo}"] = ("peers", lambda args, m=module, a=algo, p=packages: stable_baselines(m, a, p))
            for how in ("sync", "native"):
                ratios[f"steps_per_s, {algo}, jaxdl ({how}) over {packages[0]}"] = (
                    f"jaxdl_{algo}_{how}", f"{module}_{algo}", "steps_per_s", "higher")
    return sides, ratios


if __name__ == "__main__":
    common.main(__file__, *_sides())
