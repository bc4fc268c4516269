"""The leaves' probabilities sum to one, the tree is Huffman's, and one class costs its own decisions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import assert_close, random_like

from jaxdl import nn


@pytest.mark.parametrize("frequencies", [[1, 1], [5, 1, 1, 1, 2], [2.0**-i for i in range(9)], [1] * 16])
def test_ways_are_those_of_the_shortest_code(frequencies):
    tree = nn.huffman(frequencies)
    lengths = np.abs(tree.signs).sum(1)
    assert np.exp2(-lengths.astype(float)).sum() == 1  # Kraft: a whole tree
    p = np.array(frequencies) / sum(frequencies)
    entropy = -(p * np.log2(p)).sum()
    assert entropy - 1e-9 <= (p * lengths).sum() < entropy + 1
    if len(set(frequencies)) == 1:
        assert len(set(lengths)) == 1


def test_probabilities_of_all_leaves_sum_to_one_and_one_class_is_one_of_them():
    head = nn.HierarchicalHead(nn.huffman([5, 1, 1, 1, 2, 7]))
    x, labels = jax.random.normal(jax.random.key(0), (8, 4)), jnp.array([0, 1, 2, 3, 4, 5, 5, 0])
    params = random_like(head.init(jax.random.key(1), x))
    log_p = head.apply(params, x)
    np.testing.assert_allclose(jnp.exp(log_p).sum(-1), 1, rtol=1e-5)
    assert_close(head.apply(params, x, labels), jnp.take_along_axis(log_p, labels[:, None], 1)[:, 0])
    assert_close(jax.grad(lambda p: head.apply(p, x, labels).sum())(params),
                 jax.grad(lambda p: jnp.take_along_axis(head.apply(p, x), labels[:, None], 1).sum())(params))


def test_a_class_is_decided_on_its_own_way_alone():
    head, x = nn.HierarchicalHead(nn.huffman([8, 4, 2, 1, 1])), jnp.ones((1, 3))
    params = random_like(head.init(jax.random.key(0), x))
    grad = jax.grad(lambda p: head.apply(p, x, jnp.array([0]))[0])(params)["params"]["kernel"]
    assert (np.abs(grad).sum(0) > 0).sum() == 1  # the most frequent class is one decision away
