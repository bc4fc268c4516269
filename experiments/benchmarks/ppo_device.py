"""PPO on CartPole-v1 on the device: environment steps per second and seconds of compiling, beside rejax.

Both: 4 environments, rollouts of 128 steps, 4 passes of 4 minibatches, two networks of 64-64 with tanh, Adam 2.5e-4, gradients
clipped to 0.5, ratios and values clipped to 0.2, advantages standardized in each minibatch, no evaluation. Steps per second
are those of the whole run, initialisation included; compiling is tracing, lowering and compiling of all programs. The long
run has 64 environments.
"""

import time

import common

STEPS, ENVS = 500_000, {"few": 4, "many": 64}


def rejax(num_envs: int) -> dict:
    """The run of rejax, one compiled program."""
    import jax
    import jax.numpy as jnp
    import rejax as peer

    algo = peer.get_algo("ppo").create(
        env="CartPole-v1", agent_kwargs={"activation": "tanh"}, num_envs=num_envs, num_steps=128, num_epochs=4,
        num_minibatches=4, learning_rate=2.5e-4, max_grad_norm=0.5, gamma=0.99, gae_lambda=0.95, clip_eps=0.2, ent_coef=0.01,
        vf_coef=0.5, total_timesteps=STEPS, eval_freq=STEPS, skip_initial_evaluation=True)
    algo = algo.replace(eval_callback=lambda algo, state, key: (jnp.zeros(1), jnp.zeros(1)))
    key = jax.random.PRNGKey(0)
    start = time.perf_counter()
    train = jax.jit(algo.train).lower(key).compile()
    compiled = time.perf_counter()
    jax.block_until_ready(train(key))
    done = time.perf_counter()
    return {"steps_per_s": STEPS / (done - compiled), "compile_s": compiled - start,
            "versions": common.versions("rejax", "jax", "gymnax")}


def jaxdl(num_envs: int) -> dict:
    """The run of jaxdl, driven as `train.fit` drives it."""
    import jax

    from jaxdl.agents import ppo
    from jaxdl.optim import Config as OptimConfig
    from jaxdl.runtime.device_driver import make_device_driver

    config = ppo.Config(num_envs=num_envs, clip_range_vf=0.2, total_steps=STEPS, optim=OptimConfig(
        learning_rate=2.5e-4, schedule="constant", eps=1e-5, max_grad_norm=0.5))
    jax.random.key(0)  # starts the backend, as the peer's first key does before its clock
    driver = make_device_driver(ppo.make_run, [config], None, [0])
    compiled = time.perf_counter()
    state, step = driver.start(), driver.first_step
    while step + driver.stride <= STEPS:
        n = min(100, (STEPS - step) // driver.stride)
        state, _ = driver.chunk(state, n)
        step += n * driver.stride
    jax.block_until_ready(state)
    done = time.perf_counter()
    return {"steps_per_s": step / (done - compiled), "compile_s": driver.compile_s,
            "versions": common.versions("jaxdl", "jax")}


def _sides() -> tuple[dict, dict]:
    sides, ratios = {}, {}
    for name, n in ENVS.items():
        sides[f"jaxdl_{name}"] = ("jaxdl", lambda args, n=n: jaxdl(n))
        sides[f"rejax_{name}"] = ("peers", lambda args, n=n: rejax(n))
        ratios[f"steps_per_s, {n} environments, jaxdl over rejax"] = (f"jaxdl_{name}", f"rejax_{name}", "steps_per_s", "higher")
    ratios["compile_s, rejax over jaxdl"] = ("jaxdl_few", "rejax_few", "compile_s", "lower")
    return sides, ratios


if __name__ == "__main__":
    common.main(__file__, *_sides())
