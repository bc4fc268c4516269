"""Replay memories beside flashbax: adding, sampling and giving new priorities, in transitions of CartPole's shape.

Each round adds one step of each of 8 environments and samples 256 transitions; with priorities it also gives those 256 new
ones. Rounds are iterated inside one compiled program whose state is donated, on memories that are full. jaxdl writes new
priorities together with the next step's new rows, flashbax at once: both within the measured loop.
"""

import time

import common

NUM_ENVS, BATCH, ROUNDS = 8, 256, 2_000


def _rate(step, state, key) -> float:
    """Rounds per second of `step: (state, key) -> (state, number)`; the second of two calls counts, best of five."""
    import jax

    def run(state, key):
        def body(carry, k):
            state, total = carry
            state, x = step(state, k)
            return (state, total + x), None

        return jax.lax.scan(body, (state, 0.0), jax.random.split(key, ROUNDS))[0]

    program = jax.jit(run, donate_argnums=0)
    seconds = []
    for i in range(6):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(program(state, jax.random.fold_in(key, i)))
        seconds.append(time.perf_counter() - start)
    return ROUNDS / min(seconds[1:])


def jaxdl(capacity: int, prioritized: bool) -> dict:
    """The memory that DQN uses."""
    import gymnasium
    import jax
    import jax.numpy as jnp

    from jaxdl.rl.replay import sampling, storage
    from jaxdl.rl.types import EnvSpec, Experience

    env = gymnasium.make("CartPole-v1")
    spec = EnvSpec("CartPole-v1", env.observation_space, env.action_space, 500)
    store = storage.full_transitions(spec, num_envs=NUM_ENVS, buffer_size=capacity, n_steps=1, gamma=0.99)
    memory = (sampling.prioritized(store, BATCH, alpha=0.6, beta=lambda t: 0.4) if prioritized else
              sampling.uniform(store, BATCH))

    def items(key, k):
        obs = jax.random.normal(key, (k, NUM_ENVS, 4))
        flag = jnp.zeros((k, NUM_ENVS), bool)
        return Experience(obs, jnp.zeros((k, NUM_ENVS), jnp.int32), jnp.ones((k, NUM_ENVS)), obs, flag, flag), None

    def step(state, key):
        k_items, k_sample, k_error = jax.random.split(key, 3)
        state = memory.add(state, items(k_items, 1))
        state, batch = memory.sample(state, k_sample, 0)
        if prioritized:
            state = memory.feedback(state, batch, jax.random.uniform(k_error, (BATCH,)))
        return state, batch.obs.sum() + batch.next_obs.sum() + batch.reward.sum() + batch.discount.sum()

    state = jax.jit(lambda key: memory.add(memory.init(jnp.zeros((NUM_ENVS, 4))), items(key, capacity // NUM_ENVS)))(
        jax.random.key(0))
    return {"rounds_per_s": _rate(step, state, jax.random.key(1)), "versions": common.versions("jaxdl", "jax")}


def flashbax(capacity: int, prioritized: bool) -> dict:
    """The flat buffers of flashbax."""
    import flashbax as peer
    import jax
    import jax.numpy as jnp

    sizes = {"max_length": capacity, "min_length": BATCH, "sample_batch_size": BATCH, "add_batch_size": NUM_ENVS}
    buffer = (peer.make_prioritised_flat_buffer(**sizes, priority_exponent=0.6) if prioritized else
              peer.make_flat_buffer(**sizes))

    def items(key):
        return {"obs": jax.random.normal(key, (NUM_ENVS, 4)), "action": jnp.zeros(NUM_ENVS, jnp.int32),
                "reward": jnp.ones(NUM_ENVS), "terminated": jnp.zeros(NUM_ENVS, bool)}

    def step(state, key):
        k_items, k_sample, k_error = jax.random.split(key, 3)
        state = buffer.add(state, items(k_items))
        batch = buffer.sample(state, k_sample)
        if prioritized:
            state = buffer.set_priorities(state, batch.indices, jax.random.uniform(k_error, (BATCH,)))
        first, second = batch.experience.first, batch.experience.second
        return state, (first["obs"].sum() + second["obs"].sum() + first["reward"].sum() + first["terminated"].sum())

    def fill(key):
        state = buffer.init(jax.tree.map(lambda x: x[0], items(key)))
        keys = jax.random.split(key, capacity // NUM_ENVS)
        return jax.lax.scan(lambda s, k: (buffer.add(s, items(k)), None), state, keys)[0]

    state = jax.jit(fill)(jax.random.key(0))
    return {"rounds_per_s": _rate(step, state, jax.random.key(1)), "versions": common.versions("flashbax", "jax")}


if __name__ == "__main__":
    sides, ratios = {}, {}
    for kind, prioritized in (("prioritized", True), ("uniform", False)):
        for power in (17, 20):
            ours, theirs = f"jaxdl_{kind}_2^{power}", f"flashbax_{kind}_2^{power}"
            sides[ours] = ("jaxdl", lambda args, p=power, how=prioritized: jaxdl(2**p, how))
            sides[theirs] = ("jaxdl", lambda args, p=power, how=prioritized: flashbax(2**p, how))
            ratios[f"rounds_per_s, {kind}, 2^{power}, jaxdl over flashbax"] = (ours, theirs, "rounds_per_s", "higher")
    common.main(__file__, sides, ratios)
