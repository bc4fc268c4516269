"""Layers in bfloat16, and blocks that are computed again in the backward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import jit, products

from jaxdl import data
from jaxdl.agents import ppo
from jaxdl.core.errors import UserError
from jaxdl.core.types import DataSpec, Examples
from jaxdl.generative import gan, vae
from jaxdl.generative.pixel import pixelcnn
from jaxdl.nn import precision
from jaxdl.optim import Config as OptimConfig
from jaxdl.rl import envs, evaluate
from jaxdl.runtime import fit
from jaxdl.runtime.device_driver import make_device_driver

SPEC = DataSpec("small", 100, (8, 8, 1))
IMAGES = Examples(jax.random.randint(jax.random.key(0), (16, 8, 8, 1), 0, 256).astype(jnp.uint8))


def started(module, spec, **settings):
    learner = module.make(module.Config(**settings), spec).learner
    state = jit(learner.init)(jax.random.key(0))
    return learner, state


@pytest.mark.parametrize(("module", "settings"), [
    (vae, {"network": "conv", "conv_channels": (4, 4), "hidden_sizes": (8,), "latent_size": 2}),
    (pixelcnn, {"variant": "gated", "width": 4, "num_blocks": 2}),
    (gan, {"width": 4, "latent_size": 4}),
], ids=["vae", "pixelcnn", "gan"])
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_layers_multiply_in_what_is_asked_for(module, settings, compute):
    settings = settings | {"batch_size": 16, "total_steps": 10, "optim": OptimConfig(compute_dtype=compute)}
    learner, state = started(module, SPEC, **settings)
    jaxpr = jax.make_jaxpr(learner.update)(state, IMAGES, jax.random.key(1))
    assert products(jaxpr.jaxpr) == {compute}
    new, _ = jax.eval_shape(learner.update, state, IMAGES, jax.random.key(1))
    assert {x.dtype for x in jax.tree.leaves(new)} <= {np.dtype("float32"), np.dtype("int32")}  # masters, moments, statistics


def test_an_agent_multiplies_in_bfloat16_too():
    config = ppo.Config(num_envs=4, total_steps=1000, rollout_steps=4, num_minibatches=1,
                        optim=OptimConfig(compute_dtype="bfloat16"))
    run = ppo.make_run(config)
    jaxpr = jax.make_jaxpr(lambda: run.step(run.init(jax.random.key(0), None), None))()
    assert products(jaxpr.jaxpr) == {"bfloat16", "float32"}  # acting stays as it is


@pytest.mark.parametrize("variant", ["plain", "gated", pytest.param("plusplus", marks=pytest.mark.slow)])
def test_blocks_computed_again_are_the_same_and_take_less_memory(variant):
    sizes, states = [], []
    for remat in (False, True):
        learner, state = started(pixelcnn, SPEC, variant=variant, width=8, num_blocks=4, batch_size=16,
                                   total_steps=10, optim=OptimConfig(remat=remat))
        compiled = jit(learner.update).lower(state, IMAGES, jax.random.key(1)).compile()
        sizes.append(compiled.memory_analysis().temp_size_in_bytes)
        states.append(compiled(state, IMAGES, jax.random.key(1))[0].params)
    assert sizes[1] < 0.8 * sizes[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *states)


def test_nothing_is_wrapped_where_nothing_is_switched():
    f = lambda x: x  # noqa: E731
    assert precision.switched(f, "float32", False) is f


def test_a_gan_has_no_blocks():
    with pytest.raises(UserError, match="remat is for networks of stacked blocks, and a gan has none"):
        gan.validate(gan.Config(optim=OptimConfig(remat=True)))


@pytest.mark.slow
def test_a_vae_learns_as_well_in_bfloat16():
    digits = data.load("digits")
    spec, found = digits.spec, []
    for compute in ("float32", "bfloat16"):
        config = vae.Config(epochs=4, optim=OptimConfig(compute_dtype=compute))
        driver = make_device_driver(lambda c: vae.make_run(c, spec), [config], digits.on_device(), [0], quick=True)
        result = fit.fit(driver, fit.Config(), vae.total_steps(config, spec))
        measured = jit(vae.make(config, spec).measure)(result.params, digits.on_device(), jax.random.key(0))
        found.append(float(measured["elbo"].total / measured["elbo"].count))
    assert abs(found[0] - found[1]) < 0.1


@pytest.mark.slow
def test_an_agent_learns_as_well_in_bfloat16():
    config = ppo.Config(total_steps=100_000, optim=OptimConfig(compute_dtype="bfloat16", learning_rate=2.5e-3))
    driver = make_device_driver(ppo.make_run, [config], None, [0, 1, 2])
    result = fit.fit(driver, fit.Config(), config.total_steps)
    agent = ppo.make(config, envs.spec("CartPole-v1"))
    for params in fit.members_of(result.params, 3):
        assert evaluate.evaluate(agent.greedy, params, "CartPole-v1", episodes=20, seed=0).return_mean > 450
