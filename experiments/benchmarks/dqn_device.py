"""DQN on CartPole-v1 on the device: environment steps per second and seconds of compiling, beside rejax.

Both: 10 environments, batch 128, one update per 10 environment steps, hidden 64-64 (rejax has them built in), memory 10,000,
1,000 random steps first, Adam 2.5e-4, squared loss, target copied every 500 steps, no evaluation. Steps per second are those
of the whole run, initialisation and random steps included; compiling is tracing, lowering and compiling of all programs.
A population is 32 seeds as one program; its steps are those of all members together.
"""

import time

import common

STEPS, MEMBERS = 300_000, 32


def rejax(members: int, steps: int) -> dict:
    """The run of rejax, one compiled program."""
    import jax
    import jax.numpy as jnp
    import rejax as peer

    algo = peer.get_algo("dqn").create(
        env="CartPole-v1", agent="QNetwork", agent_kwargs={"activation": "relu"}, num_envs=10, buffer_size=10_000,
        fill_buffer=1000, batch_size=128, learning_rate=2.5e-4, num_epochs=1, target_update_freq=500, polyak=0.0,
        eps_start=1.0, eps_end=0.05, exploration_fraction=0.5, gamma=0.99, ddqn=False, total_timesteps=steps,
        eval_freq=steps, skip_initial_evaluation=True)
    algo = algo.replace(eval_callback=lambda algo, state, key: (jnp.zeros(1), jnp.zeros(1)))
    key = jax.random.PRNGKey(0)
    if members > 1:
        key = jax.random.split(key, members)
    start = time.perf_counter()
    train = jax.jit(algo.train if members == 1 else jax.vmap(algo.train)).lower(key).compile()
    compiled = time.perf_counter()
    jax.block_until_ready(train(key))
    done = time.perf_counter()
    return {"steps_per_s": members * steps / (done - compiled), "compile_s": compiled - start,
            "versions": common.versions("rejax", "jax", "gymnax")}


def jaxdl(buffer_size: int, members: int = 1, steps: int = STEPS) -> dict:
    """The run of jaxdl, driven as `train.fit` drives it."""
    import jax

    from jaxdl.agents import dqn
    from jaxdl.optim import Config as OptimConfig
    from jaxdl.runtime.device_driver import make_device_driver

    config = dqn.Config(
        num_envs=10, buffer_size=buffer_size, learning_starts=1000, batch_size=128, hidden_sizes=(64, 64),
        target_update_interval=500, tau=1.0, exploration_final_eps=0.05, exploration_fraction=0.5, gamma=0.99, loss="squared",
        total_steps=steps, optim=OptimConfig(learning_rate=2.5e-4, schedule="constant"))
    jax.random.key(0)  # starts the backend, as the peer's first key does before its clock
    driver = make_device_driver(dqn.make_run, [config], None, range(members))
    compiled = time.perf_counter()
    state, step = driver.start(), driver.first_step
    while step < steps:
        n = min(3000, (steps - step) // driver.stride)
        state, _ = driver.chunk(state, n)
        step += n * driver.stride
    jax.block_until_ready(state)
    done = time.perf_counter()
    return {"steps_per_s": members * steps / (done - compiled), "compile_s": driver.compile_s,
            "versions": common.versions("jaxdl", "jax")}


if __name__ == "__main__":
    common.main(
        __file__,
        {"jaxdl": ("jaxdl", lambda args: jaxdl(10_000)), "jaxdl_1M": ("jaxdl", lambda args: jaxdl(1_000_000)),
         "rejax": ("peers", lambda args: rejax(1, STEPS)),
         "jaxdl_population": ("jaxdl", lambda args: jaxdl(10_000, MEMBERS, STEPS // 10)),
         "rejax_population": ("peers", lambda args: rejax(MEMBERS, STEPS // 10))},
        {"steps_per_s, jaxdl over rejax": ("jaxdl", "rejax", "steps_per_s", "higher"),
         "compile_s, rejax over jaxdl": ("jaxdl", "rejax", "compile_s", "lower"),
         "steps_per_s, memory of 1M over 10k": ("jaxdl_1M", "jaxdl", "steps_per_s", "higher"),
         "steps_per_s, population of 32, jaxdl over rejax": ("jaxdl_population", "rejax_population", "steps_per_s", "higher"),
         "steps_per_s, jaxdl, population of 32 over one seed": ("jaxdl_population", "jaxdl", "steps_per_s", "higher")})
