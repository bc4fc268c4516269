"""Objectives against their definitions in probabilities, and the gradient penalty of critics with known slopes."""


import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import jit

from jaxdl import nn
from jaxdl.generative import adversarial
from jaxdl.generative.adversarial import discriminator_loss, generator_loss

OBJECTIVES = ("non_saturating", "minimax", "least_squares", "hinge", "wgan_gp")
REAL, FAKE = jnp.array([2.0, -0.5, 0.3]), jnp.array([-1.5, 0.25, 3.0])
SIGMOID = {"real": 1 / (1 + np.exp(-np.array(REAL, float))), "fake": 1 / (1 + np.exp(-np.array(FAKE, float)))}


def test_losses_are_those_of_the_papers():
    d_real, d_fake = SIGMOID["real"], SIGMOID["fake"]
    log_likelihood = -np.log(d_real) - np.log(1 - d_fake)
    expected = {"non_saturating": (log_likelihood, -np.log(d_fake)),
                "minimax": (log_likelihood, np.log(1 - d_fake)),
                "least_squares": (np.array([3.25, 2.3125, 9.49]) / 2, np.array([6.25, 0.5625, 4.0]) / 2),
                "hinge": (np.array([0.0, 1.5, 0.7]) + np.array([0.0, 1.25, 4.0]), np.array([1.5, -0.25, -3.0])),
                "wgan_gp": (np.array([-3.5, 0.75, 2.7]), np.array([1.5, -0.25, -3.0]))}
    for objective in OBJECTIVES:
        np.testing.assert_allclose(discriminator_loss(objective, REAL, FAKE), expected[objective][0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(generator_loss(objective, FAKE), expected[objective][1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_losses_stay_finite_where_the_discriminator_is_certain(objective):
    for logit in (-1e4, 1e4):
        x = jnp.full(3, logit)
        assert np.isfinite(discriminator_loss(objective, x, x)).all()
        assert np.isfinite(jax.grad(lambda x: generator_loss(objective, x).sum())(x)).all()


def test_only_minimax_leaves_a_generator_that_is_found_out_without_a_gradient():
    slope = {o: float(jax.grad(lambda x, o=o: generator_loss(o, x))(-20.0)) for o in OBJECTIVES}
    assert abs(slope.pop("minimax")) < 1e-8
    assert max(slope.values()) <= -1 + 1e-6  # all want a higher logit


def test_the_best_discriminator_is_the_share_of_real_images():
    """At an image of density p among real and q among generated ones; Goodfellow et al. (2014), proposition 1."""
    p, q = 0.3, 0.1
    best = {"non_saturating": np.log(p / q), "minimax": np.log(p / q), "least_squares": p / (p + q), "hinge": 1.0}
    for objective, logit in best.items():
        around = [float(p * discriminator_loss(objective, jnp.float32(d), jnp.float32(0))  # the other part is a constant
                        + q * discriminator_loss(objective, jnp.float32(0), jnp.float32(d)))
                  for d in (logit - 0.05, logit, logit + 0.05)]
        assert around[1] == min(around), objective


def test_the_penalty_of_a_linear_critic_is_that_of_the_length_of_its_weights():
    w = jnp.array([[3.0, 0.0], [0.0, -4.0]])[..., None]
    real, fake = jax.random.normal(jax.random.key(0), (2, 5, 2, 2, 1))

    def penalty(w):
        return adversarial.gradient_penalty(lambda x: (x * w).sum((1, 2, 3)), real, fake, jax.random.key(1))

    np.testing.assert_allclose(jit(penalty)(w), np.full(5, 16.0), rtol=1e-5)
    gradient = jit(jax.grad(lambda w: penalty(w).mean()))
    np.testing.assert_allclose(gradient(w), 2 * 4 * w / 5, rtol=1e-5)
    assert np.isfinite(gradient(0 * w)).all()


def test_the_penalty_is_taken_between_real_and_generated_images():
    """The slope of sum(x^2) / 2 at x is x itself: the penalty shows where it was taken."""
    real, fake = jnp.zeros((4000, 1, 1, 1)) + 2, jnp.zeros((4000, 1, 1, 1)) + 6
    penalty = jit(lambda key: adversarial.gradient_penalty(lambda x: (x**2).sum((1, 2, 3)) / 2, real, fake, key))
    at = 1 + jnp.sqrt(penalty(jax.random.key(0)))
    assert at.min() > 2 - 1e-4
    assert at.max() < 6 + 1e-4
    np.testing.assert_allclose(np.quantile(at, [0.25, 0.5, 0.75]), [3, 4, 5], atol=0.15)


def test_the_gradient_of_the_penalty_is_that_of_differences():
    """Of a critic with a convolution, along the gradient itself."""
    keys = jax.random.split(jax.random.key(0), 4)
    params = [0.5 * jax.random.normal(keys[0], (4, 4, 1, 3)), jax.random.normal(keys[1], (48,))]
    real, fake = jax.random.normal(keys[2], (2, 3, 8, 8, 1))

    def penalty(params):
        def critic(x):
            return jnp.tanh(nn.conv(x, params[0], (2, 2), "SAME")).reshape(len(x), -1) @ params[1]

        return adversarial.gradient_penalty(critic, real, fake, keys[3]).mean()

    program = jit(jax.value_and_grad(penalty))
    grads = program(params)[1]
    length = np.sqrt(sum(jnp.square(g).sum() for g in grads))
    ahead, behind = (program([p + step * g / length for p, g in zip(params, grads, strict=True)])[0] for step in (5e-3, -5e-3))
    np.testing.assert_allclose((ahead - behind) / 1e-2, length, rtol=5e-3)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_teaches_a_generator_where_the_data_are(objective):
    """From N(0, 1) to N(2, 1) by a shift, against a discriminator that is a line."""
    weight = 0.1 if objective == "wgan_gp" else 0.0

    def logits(d, x):
        return d[0] + d[1] * x.reshape(-1)

    def loss_d(d, real, fake, key):
        loss = discriminator_loss(objective, logits(d, real), logits(d, fake)).mean()
        penalty = adversarial.gradient_penalty(lambda x: logits(d, x), real, fake, key).mean()
        return loss + weight * penalty + 0.1 * jnp.square(d[1])  # without, two numbers would circle each other

    def step(carry, key):
        shift, d = carry
        z, real = jax.random.normal(key, (2, 64, 1, 1, 1))
        d = d - 0.1 * jax.grad(loss_d)(d, 2 + real, shift + z, key)
        shift = shift - 0.1 * jax.grad(lambda shift: generator_loss(objective, logits(d, shift + z)).mean())(shift)
        return (shift, d), shift

    start = (jnp.zeros(()), jnp.zeros(2))
    _, seen = jit(lambda keys: jax.lax.scan(step, start, keys))(jax.random.split(jax.random.key(0), 1500))
    assert abs(seen[-1000:].mean() - 2) < 0.1
    assert seen[-1000:].std() < 0.5
