"""Layers in bfloat16, and blocks that are computed again in the backward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import jit, products, products_in_order

from jaxdl import data
from jaxdl.agents import actor_critic, dqn, ppo, reinforce
from jaxdl.core.errors import UserError
from jaxdl.core.types import DataSpec, Examples
from jaxdl.generative import autoencoder, gan, gan_networks, vae, vqvae
from jaxdl.generative.pixel import pixelcnn
from jaxdl.generative.text import language_model
from jaxdl.generative.vae_network import Network as VAENetwork
from jaxdl.nn import cnn
from jaxdl.nn.precision import Compute
from jaxdl.optim import Config as OptimConfig
from jaxdl.rl import envs, evaluate, policy
from jaxdl.rl.policy import Config as PolicyConfig
from jaxdl.runtime import fit
from jaxdl.runtime.device_driver import make_device_driver
from jaxdl.supervised import classifier
from jaxdl.supervised.networks import Network

SPEC = DataSpec("small", 100, (8, 8, 1), 10)
IMAGES = Examples(jax.random.randint(jax.random.key(0), (16, 8, 8, 1), 0, 256).astype(jnp.uint8),
                  jnp.arange(16) % 10)


@pytest.mark.parametrize(("module", "settings"), [
    (vae, {"network": "conv", "conv_channels": (4, 4), "hidden_sizes": (8,), "latent_size": 2}),
    (vae, {"hidden_sizes": (8,), "latent_size": 2, "second_latent_size": 2, "second_hidden_sizes": (4,), "objective": "iwae",
           "estimator": "doubly_reparameterized"}),
    (vqvae, {"conv_channels": (4, 4), "num_codes": 4, "embedding_size": 2}),
    (autoencoder, {"conv_channels": (4, 4), "hidden_sizes": (8,), "latent_size": 2}),
    (classifier, {"conv_channels": (4, 4), "hidden_sizes": (8,)}),
    (pixelcnn, {"variant": "gated", "width": 4, "num_blocks": 2, "conditional": True}),
    (pixelcnn, {"variant": "plain", "width": 4, "num_blocks": 2, "conditional": True}),
    (pixelcnn, {"variant": "plusplus", "width": 4, "num_blocks": 1, "conditional": True}),
    (gan, {"width": 4, "latent_size": 4, "conditional": True}),
    (gan, {"width": 4, "latent_size": 4, "network": "resnet", "objective": "hinge"}),
], ids=["vae", "vae, two layers", "vqvae", "autoencoder", "classifier", "gated", "plain", "plusplus", "dcgan", "resnet"])
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_layers_multiply_in_what_is_asked_for(module, settings, compute):
    settings = settings | {"batch_size": 16, "total_steps": 10, "optim": OptimConfig(compute_dtype=compute)}
    learner = module.make(module.Config(**settings), SPEC).learner
    state = jax.eval_shape(learner.init, jax.random.key(0))
    jaxpr, (new, _) = jax.make_jaxpr(learner.update, return_shape=True)(state, IMAGES, jax.random.key(1))
    assert products(jaxpr.jaxpr) == {compute, "float32"}  # the last layer is always float32
    assert {x.dtype for x in jax.tree.leaves(new)} <= {np.dtype("float32"), np.dtype("int32")}  # masters, moments, statistics


def last_layers():
    """Name -> how many layers are last, and a network in bfloat16 as a function of inputs that are made with it."""
    box, y = envs.spec("CartPole-v1"), jnp.eye(10)[:2]
    obs, images = jnp.ones((2, 4)), jnp.ones((2, 8, 8, 1))
    for name, settings in (("dqn", {}), ("rainbow", {"noisy": True, "dueling": True, "distribution": "qr"})):
        network = dqn.q_network(dqn.Config(hidden_sizes=(8,), **settings), box).clone(dtype="bfloat16")
        yield name, 1 + (name == "rainbow"), network.init, network.apply, (obs,)
    for shared in (False, True):
        model = policy.make(PolicyConfig(hidden_sizes=(8,), shared=shared), box, "ppo")
        yield (f"policy, shared={shared}", 2, lambda key, *_, model=model: model.init(key),
               lambda params, *x, model=model: model.unroll(params, None, *x, "bfloat16"), (obs[None], jnp.ones((1, 2), bool)))
    for network in ("mlp", "conv"):
        module = VAENetwork((8, 8, 1), 1, network, (4, 4), (8,), "relu", 2, None, (8,), "bfloat16")
        yield f"vae, {network}", 1, module.init, module.apply, (images.reshape(2, 64), None)
        yield (f"vae's posterior, {network}", 2, module.init,
               lambda params, *x, module=module: module.apply(params, *x, method="encode"), (images.reshape(2, 64), None))
    for network in ("dcgan", "resnet"):
        judge = gan_networks.Discriminator(network, 4, False, "projection", dtype="bfloat16")
        yield f"discriminator, {network}", 2, judge.init, judge.apply, (images, y)
    for variant in ("gated", "plain", "plusplus"):
        made, _ = pixelcnn.network(pixelcnn.Config(variant=variant, width=4, num_blocks=1, num_scales=1), SPEC)
        yield (f"pixelcnn, {variant}", 1, lambda key, *_, made=made: made.init(key),
               lambda params, *x, made=made: made.apply(params, *x, compute=Compute("bfloat16")), (images, None))
    network = Network("mlp", 10, (8,), dtype="bfloat16")
    yield "classifier", 1, network.init, network.apply, (images,)
    yield "lenet", 1, cnn.CNN("lenet", 10).init, cnn.CNN("lenet", 10, dtype="bfloat16").apply, (jnp.ones((2, 28, 28, 1)),)
    for cell in ("lstm", "transformer"):
        config, spec = language_model.Config(cell=cell, hidden_size=8, num_layers=1), DataSpec(
            "text", 4000, (), vocabulary=tuple("abc"), input="tokens")
        made = language_model.make(config, spec).network
        yield (cell, 1, lambda key, *_, made=made: made.init(key),
               lambda params, x, made=made: made.apply(params, x, made.initial(2), None, "bfloat16")[1],
               (jnp.zeros((4, 2), jnp.int32),))


LAST_LAYERS = list(last_layers())


@pytest.mark.parametrize(("count", "init", "apply", "inputs"), [case[1:] for case in LAST_LAYERS],
                         ids=[case[0] for case in LAST_LAYERS])
def test_last_layers_multiply_in_float32_and_those_before_do_not(count, init, apply, inputs):
    """bfloat16 has steps of 0.25 at 40: a greedy action would be one of equals, a logit off by percents."""
    jaxpr = jax.make_jaxpr(apply)(jax.eval_shape(init, jax.random.key(0), *inputs), *inputs)
    dtypes = products_in_order(jaxpr.jaxpr)
    assert dtypes[-count:] == ["float32"] * count
    assert dtypes[-count - 1] == dtypes[0] == "bfloat16"


def test_action_values_near_a_hundred_choose_the_actions_that_float32_chooses():
    config = dqn.Config(hidden_sizes=(64,), activation="tanh")
    network = dqn.q_network(config, envs.spec("CartPole-v1"))
    obs = jax.random.normal(jax.random.key(0), (500, 4))
    params = network.init(jax.random.key(1), obs)
    params["params"]["QHead_0"]["Dense_0"]["bias"] += 60.0
    values, half = (network.clone(dtype=dtype).apply(params, obs) for dtype in ("float32", "bfloat16"))
    assert np.mean(values.argmax(-1) != half.argmax(-1)) < 0.02
    assert np.mean(half.argmax(-1) != half.astype(jnp.bfloat16).argmax(-1)) > 0.05  # as it was


@pytest.mark.parametrize(("module", "settings"), [
    (dqn, {"learning_starts": 8, "buffer_size": 16, "batch_size": 4}),
    (dqn, {"learning_starts": 8, "buffer_size": 16, "batch_size": 4, "noisy": True, "dueling": True, "distribution": "qr"}),
    (ppo, {"rollout_steps": 4, "num_minibatches": 1}),
    (ppo, {"rollout_steps": 4, "num_minibatches": 1, "policy": PolicyConfig(recurrent="gru")}),
    (actor_critic, {"rollout_steps": 4}), (reinforce, {"rollout_steps": 4, "learn_from": "fragments"}),
], ids=["dqn", "rainbow", "ppo", "ppo, recurrent", "actor_critic", "reinforce"])
def test_an_agent_learns_in_bfloat16_and_acts_in_float32(module, settings):
    dtypes = {}
    for compute in ("float32", "bfloat16"):
        config = module.Config(num_envs=4, total_steps=1000, optim=OptimConfig(compute_dtype=compute), **settings)
        run = module.make_run(config)
        jaxpr = jax.make_jaxpr(lambda run=run: run.step(run.init(jax.random.key(0), None), None))()
        dtypes[compute] = products(jaxpr.jaxpr)
    assert dtypes == {"float32": {"float32"}, "bfloat16": {"bfloat16", "float32"}}


@pytest.mark.parametrize("variant", ["plain", "gated", pytest.param("plusplus", marks=pytest.mark.slow)])
def test_blocks_computed_again_are_the_same_and_take_less_memory(variant):
    sizes, states = [], []
    for remat in (False, True):
        config = pixelcnn.Config(variant=variant, width=8, num_blocks=4, batch_size=16, total_steps=10,
                                 optim=OptimConfig(remat=remat))
        learner = pixelcnn.make(config, SPEC).learner
        state = jit(learner.init)(jax.random.key(0))
        compiled = jit(learner.update).lower(state, IMAGES, jax.random.key(1)).compile()
        sizes.append(compiled.memory_analysis().temp_size_in_bytes)
        states.append(compiled(state, IMAGES, jax.random.key(1))[0].params)
    assert sizes[1] < 0.8 * sizes[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *states)


@pytest.mark.parametrize(("module", "remedy"), [
    *((module, "grad_accumulation") for module in (dqn, ppo, actor_critic, reinforce, vae, vqvae, autoencoder, classifier)),
    (gan, "batch_size")], ids=lambda x: x if isinstance(x, str) else x.__name__.split(".")[-1])
def test_recomputing_is_refused_where_there_are_no_blocks(module, remedy):
    with pytest.raises(UserError, match=rf"remat=True.*{remedy}"):
        module.validate(module.Config(optim=OptimConfig(remat=True)))


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
