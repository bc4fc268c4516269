"""PPO on CartPole-v1 from the start of the process to a greedy mean return of 475: seconds, beside rejax and Stable-Baselines3.

Each side with settings of its own that learn fast: jaxdl its preset `ppo_cartpole`, rejax those it publishes, Stable-Baselines3
those of the RL Zoo. All stop at the first evaluation that reaches 475, over 100 episodes (jaxdl) or 20 (the others), every
8,192 steps or 5,000. `wall_s` is the whole process: imports, compiling without a cache, training, evaluations, and for jaxdl
also checkpoints, logs, a learning curve and a film. The repeats are the seeds.
"""

import tempfile

import common

EVERY, MOST = 5_000, 200_000


def jaxdl() -> dict:
    """`jaxdl train ppo_cartpole`."""
    from jaxdl.experiments.commands import train

    with tempfile.TemporaryDirectory() as folder:
        summary = train.train(["ppo_cartpole", "--seed", str(common.seed()), "--out", f"{folder}/run"])
    return {"steps": float(summary["steps"]), "return": float(summary["eval"]["return_mean"]),
            "versions": common.versions("jaxdl", "jax")}


def rejax() -> dict:
    """Its PPO, iterated until an evaluation reaches 475."""
    import jax
    import rejax as peer
    from rejax.evaluate import evaluate

    algo = peer.get_algo("ppo").create(
        env="CartPole-v1", agent_kwargs={"activation": "tanh"}, num_envs=5, num_steps=100, num_epochs=5, num_minibatches=5,
        learning_rate=7.5e-4, max_grad_norm=0.5, gamma=0.99, gae_lambda=0.95, clip_eps=0.2, ent_coef=0.01, vf_coef=0.5,
        total_timesteps=MOST, eval_freq=MOST, skip_initial_evaluation=True)
    key = jax.random.PRNGKey(common.seed())
    state, steps, score = jax.jit(algo.init_state)(key), 0, 0.0
    chunk = jax.jit(lambda state: jax.lax.fori_loop(0, EVERY // 500, lambda _, s: algo.train_iteration(s), state))
    score_of = jax.jit(lambda state, key: evaluate(algo.make_act(state), key, algo.env, algo.env_params, 20, 500)[1].mean())
    while steps < MOST and score < 475:
        state, steps = chunk(state), steps + EVERY
        score = float(score_of(state, jax.random.fold_in(key, steps)))
    return {"steps": float(steps), "return": score, "versions": common.versions("rejax", "jax")}


def stable_baselines3() -> dict:
    """Its PPO with a callback that evaluates."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import EvalCallback, StopTrainingOnRewardThreshold
    from stable_baselines3.common.env_util import make_vec_env

    torch.set_num_threads(1)
    venv = make_vec_env("CartPole-v1", n_envs=8, seed=common.seed(), env_kwargs={"render_mode": None})
    tests = make_vec_env("CartPole-v1", n_envs=20, seed=1_000 + common.seed(), env_kwargs={"render_mode": None})
    stop = EvalCallback(tests, callback_on_new_best=StopTrainingOnRewardThreshold(475.0), n_eval_episodes=20,
                        eval_freq=EVERY // 8, deterministic=True, verbose=0)
    model = PPO("MlpPolicy", venv, seed=common.seed(), device="cpu", n_steps=32, batch_size=256, gae_lambda=0.8, gamma=0.98,
                n_epochs=20, ent_coef=0.0, learning_rate=lambda left: left * 1e-3, clip_range=lambda left: left * 0.2)
    model.learn(100_000, callback=stop)
    return {"steps": float(model.num_timesteps), "return": float(stop.best_mean_reward),
            "versions": common.versions("stable-baselines3", "torch")}


if __name__ == "__main__":
    common.main(__file__, {"jaxdl": ("jaxdl", lambda args: jaxdl()), "rejax": ("peers", lambda args: rejax()),
                           "stable_baselines3": ("peers", lambda args: stable_baselines3())},
                {"wall_s, rejax over jaxdl": ("jaxdl", "rejax", "wall_s", "lower"),
                 "wall_s, stable-baselines3 over jaxdl": ("jaxdl", "stable_baselines3", "wall_s", "lower")})
