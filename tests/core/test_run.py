"""A run that shards share: the same under every map, with one learner, and noise of each shard's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from maps import MAPS, under_vmap
from tools import arrays, vector

from jaxdl.agents import dqn, ppo
from jaxdl.core.axis import AXIS
from jaxdl.core.run import compose
from jaxdl.core.types import DataSpec, Examples, Learner, Source, UpdateResult
from jaxdl.generative import vae
from jaxdl.optim import Config as OptimConfig
from jaxdl.rl.policy import Config as PolicyConfig


def dqn_run():
    config = dqn.Config(num_envs=4, buffer_size=80, batch_size=16, learning_starts=16, total_steps=200, hidden_sizes=(4,),
                        gradient_steps=2, optim=OptimConfig(optimizer="sgd", learning_rate=0.01))
    return dqn.make_run(config, AXIS, shards=2), None


def ppo_run():
    config = ppo.Config(num_envs=4, rollout_steps=8, num_epochs=2, num_minibatches=1, total_steps=200, normalize_reward=True,
                        policy=PolicyConfig(hidden_sizes=(4,), normalize_obs=True),
                        optim=OptimConfig(optimizer="sgd", learning_rate=0.01))
    return ppo.make_run(config, AXIS, shards=2), None


def vae_run():
    data = jax.random.randint(jax.random.key(0), (20, 3, 3, 1), 0, 256).astype(jnp.uint8)
    config = vae.Config(latent_size=2, hidden_sizes=(5,), batch_size=8, total_steps=10)
    return vae.make_run(config, DataSpec("small", 40, (3, 3, 1)), AXIS, shards=2), Examples(data)


@pytest.fixture(scope="module", params=[dqn_run, ppo_run, vae_run], ids=["dqn", "ppo", "vae"])
def runs(request):
    """The states before and after three steps of a run on two shards, and the metrics of each step, under two maps."""
    run, data = request.param()

    def program(_, shared):
        key, data = shared
        first = run.init(key, data)
        return first, *jax.lax.scan(lambda state, _: run.step(state, data), first, length=3)

    return [MAPS[how](program, 2)(jnp.zeros(2), (jax.random.key(7), data)) for how in ("vmap", "pmap")]


def test_a_run_is_the_same_under_every_map(runs):
    for a, b in zip(*map(arrays, runs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_shards_share_the_learner_and_differ_in_what_they_see(runs):
    for first, state, told in runs:
        for s in (first, state):
            for x in arrays((s.learner, s.key, s.t)):
                assert (x == x[0]).all()
            seen = [x for x in arrays(s.source) if x[0].size > 1]
            assert any((x[0] != x[1]).any() for x in seen)
        assert not np.array_equal(vector(first.learner.params), vector(state.learner.params))
        assert all((x == x[0]).all() for x in arrays(told))  # summed over the shards, and known to each


def test_the_metrics_of_a_run_count_the_examples_of_all_shards(runs):
    for _, _, told in runs:
        counts = {name: float(m.count[0, -1]) for name, m in told.items()}
        expected = {"epsilon": 2, "loss": 2 * 2 * 8, "q_mean": 2 * 2 * 8 * 2} if "epsilon" in counts else {
            "loss": 2 * 2 * 2 * 8, "explained_variance": 2} if "approx_kl" in counts else {
            "loss": 2, "elbo": 2 * 4, "reconstruction": 2 * 4, "kl": 2 * 4}
        assert expected.items() <= counts.items()


def test_everything_random_in_a_run_has_a_key_of_its_own_on_every_shard():
    def seen(state, name, key):
        return state | {name: jax.random.bits(key)}

    source = Source(
        init=lambda key: dict.fromkeys(("warmup", "collect", "sample", "update"), jnp.uint32(0)) | seen({}, "init", key),
        keys=1,
        warmup=lambda state, params, key, t, data: seen(state, "warmup", key),
        collect=lambda state, params, keys, t, data: (seen(state, "collect", keys[0]), {}),
        sample=lambda state, key, t, data: (seen(state, "sample", key), None),
        feedback=lambda state, batch, key: seen(state, "update", key),
    )
    learner = Learner(init=jax.random.bits, params=lambda state: state,
                      update=lambda state, batch, key: (state, UpdateResult({}, key)))
    run = compose(learner, source, stride=1, axis_name=AXIS)

    def program(_, key):
        state = run.init(key, None)
        first = run.step(state, None)[0]
        return first, run.step(first, None)[0]

    first, second = under_vmap(program, 3)(jnp.zeros(3), jax.random.key(0))
    assert len(np.unique(first.learner)) == 1
    bits = [x for s in (first.source, second.source) for x in jax.tree.leaves(s)]
    assert len(np.unique(bits)) == 3 * (5 + 3)  # the second step does not make or warm up anything
