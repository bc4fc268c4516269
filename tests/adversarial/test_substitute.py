"""A substitute: what it asks, what its inputs are, and that it learns the other network's answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.adversarial import attacks
from jaxdl.adversarial.substitute import substitute

WEIGHTS = jax.random.normal(jax.random.key(1), (20, 3))
X = jax.random.uniform(jax.random.key(0), (600, 20))


def other(x):
    return (x - 0.5) @ WEIGHTS


@pytest.fixture(scope="module")
def made():
    asked = []

    def ask(x):
        asked.append(np.asarray(x))
        return other(x).argmax(-1)

    return substitute(ask, X[:50], 3, jax.random.key(2), rounds=3, passes=120), asked


def test_each_round_asks_about_as_many_as_there_are(made):
    found, asked = made
    assert [len(x) for x in asked] == [50, 50, 100]
    assert found.queries == 200
    np.testing.assert_array_equal(found.x, np.concatenate(asked))
    np.testing.assert_array_equal(found.labels, other(found.x).argmax(-1))


def test_new_inputs_are_a_step_away(made):
    asked = made[1]
    before, new = asked[0], asked[1]
    inside = (before > 0.1) & (before < 0.9)
    np.testing.assert_allclose(np.abs(new - before)[inside], 0.1, rtol=1e-4)
    assert 0 <= new.min() < new.max() <= 1


def test_it_answers_as_the_other_does_and_its_attacks_break_the_other(made):
    found = made[0]
    held, labels = X[100:], other(X[100:]).argmax(-1)
    assert float((found.f(held).argmax(-1) == labels).mean()) > 0.75
    kept = {}
    for name, f in {"substitute": found.f, "itself": other}.items():
        moved = attacks.fgsm(f, held, labels, 0.1, "linf").x
        kept[name] = float((other(moved).argmax(-1) == labels).mean())
    signs = jax.random.rademacher(jax.random.key(3), held.shape, jnp.float32)
    noise = float((other(jnp.clip(held + 0.1 * signs, 0, 1)).argmax(-1) == labels).mean())
    assert kept["itself"] <= kept["substitute"] < noise - 0.2
