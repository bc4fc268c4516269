"""PPO on Gymnasium's HalfCheetah-v5, 500,000 steps: greedy return and environment steps per second, beside Stable-Baselines3.

Both: 8 environments stepped one after the other, rollouts of 256 steps, 10 passes of 32 minibatches, two networks of 64-64 with
tanh, Adam 3e-4 falling linearly to 0, gamma 0.99, lambda 0.95, no entropy bonus, observations and rewards normalized (jaxdl:
`jaxdl train ppo_continuous`; Stable-Baselines3: VecNormalize). `return` is the mean of 20 greedy episodes; the repeats are the
seeds.
"""

import tempfile
import time

import common

STEPS = 500_000


def jaxdl() -> dict:
    """`jaxdl train ppo_continuous`."""
    from jaxdl.experiments.commands import train

    with tempfile.TemporaryDirectory() as folder:
        summary = train.train(["ppo_continuous", "--env-id", "HalfCheetah-v5", "--total-steps", str(STEPS), "--seed",
                                  str(common.seed()), "--eval-episodes", "20", "--out", f"{folder}/run"])
    return {"return": summary["eval"]["return_mean"], "steps_per_s": summary["steps_per_s"],
            "versions": common.versions("jaxdl", "jax", "gymnasium", "mujoco")}


def stable_baselines3() -> dict:
    """Its PPO with VecNormalize."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import VecNormalize

    torch.set_num_threads(1)

    def made(n: int, seed: int) -> VecNormalize:
        return VecNormalize(make_vec_env("HalfCheetah-v5", n_envs=n, seed=seed, env_kwargs={"render_mode": None}))

    venv, tests = made(8, common.seed()), made(4, 1_000 + common.seed())
    model = PPO("MlpPolicy", venv, seed=common.seed(), device="cpu", n_steps=256, batch_size=64, n_epochs=10,
                learning_rate=lambda left: left * 3e-4, policy_kwargs={"net_arch": [64, 64]})
    start = time.perf_counter()
    model.learn(STEPS)
    spent = time.perf_counter() - start
    tests.obs_rms, tests.training, tests.norm_reward = venv.obs_rms, False, False
    mean, _ = evaluate_policy(model, tests, n_eval_episodes=20, deterministic=True)
    return {"return": float(mean), "steps_per_s": model.num_timesteps / spent,
            "versions": common.versions("stable-baselines3", "torch", "gymnasium", "mujoco")}


if __name__ == "__main__":
    common.main(__file__, {"jaxdl": ("jaxdl", lambda args: jaxdl()),
                           "stable_baselines3": ("peers", lambda args: stable_baselines3())},
                {"return, jaxdl over stable-baselines3": ("jaxdl", "stable_baselines3", "return", "higher"),
                 "steps_per_s, jaxdl over stable-baselines3": ("jaxdl", "stable_baselines3", "steps_per_s", "higher")})
