"""What is random while a network learns: expectations stay, and one draw is of what it says."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from tools import assert_close, jit

from jaxdl import nn
from jaxdl.nn import cnn


class Dropped(linen.Module):
    whole: bool = False

    @linen.compact
    def __call__(self, x):
        return nn.dropout_in(self, x, 0.25, self.whole)


def test_expectations_stay_and_nothing_is_dropped_without_a_key():
    x = jnp.ones((400, 3, 50))
    for whole in (False, True):
        y = np.asarray(Dropped(whole).apply({}, x, rngs={"dropout": jax.random.key(0)}))
        assert set(np.unique(y)) == {0, np.float32(4 / 3)}
        assert y.mean() == pytest.approx(1, abs=0.06 if whole else 0.01)
        assert (len(set(map(tuple, y.reshape(400, -1)))) == 2) == whole
        assert_close(Dropped(whole).apply({}, x), x)


def test_kernels_are_dropped_weight_by_weight_and_biases_stay():
    params = {"dense": {"kernel": jnp.ones((40, 50)), "bias": jnp.ones(50)}, "other": {"kernel": jnp.ones((40, 50))}}
    dropped = nn.drop_connect(params, 0.5, jax.random.key(0))
    assert_close(dropped["dense"]["bias"], 1)
    assert np.asarray(dropped["dense"]["kernel"]).mean() == pytest.approx(1, abs=0.1)
    assert (dropped["dense"]["kernel"] != dropped["other"]["kernel"]).any()


@pytest.mark.parametrize("n", [28, 7, 3])
def test_fractional_windows_cover_the_image_and_shrink_by_less_than_half(n):
    x = jax.random.uniform(jax.random.key(0), (2, n, n, 3))
    found = {nn.fractional_max_pool(x, jax.random.key(k)).tobytes() for k in range(20)}
    y = nn.fractional_max_pool(x)
    m = round(n / 2**0.5)
    assert y.shape == (2, m, m, 3)
    assert len(found) > 1 or n < 4
    assert_close(y.max((1, 2)), x.max((1, 2)))  # every pixel is in a window
    windows = list(itertools.pairwise((i * n + m // 2) // m for i in range(m + 1)))
    rows = [np.stack([np.asarray(x)[:, a : b + 1, c : d + 1].max((1, 2)) for c, d in windows], 1) for a, b in windows]
    assert_close(y, np.stack(rows, 1))


def test_groups_and_layers_are_normalized_in_each_example():
    class Normalized(linen.Module):
        kind: str

        @linen.compact
        def __call__(self, x):
            return nn.normalized(x, self.kind, True)

    x = 3 + 2 * jax.random.normal(jax.random.key(0), (5, 4, 4, 6))
    y, _ = Normalized("layer").init_with_output(jax.random.key(1), x)
    assert_close(y.mean((1, 2, 3)), 0, atol=1e-5)
    assert_close(y.var((1, 2, 3)), 1, rtol=1e-4)
    y, _ = Normalized("group").init_with_output(jax.random.key(1), x)  # 6 channels: two groups, which divide 32
    assert_close(y.reshape(5, 16, 2, 3).mean((1, 3)), 0, atol=1e-5)
    assert_close(y.reshape(5, 16, 2, 3).var((1, 3)), 1, rtol=1e-4)


def test_the_last_residual_block_is_left_out_most_often():
    """With blocks that add, the output is that of the first convolution and of those blocks that were kept."""
    network = cnn.CNN("resnet", None, depth=8, stochastic_depth=0.6)
    x = jax.random.uniform(jax.random.key(0), (1, 8, 8, 3))
    variables = network.init(jax.random.key(1), x)
    scales = jax.tree_util.tree_map_with_path(
        lambda path, w: jnp.ones_like(w) if path[-1].key == "scale" else w, variables["params"])
    variables = {"params": scales, "batch_stats": variables["batch_stats"]}
    apply = jit(lambda key: network.apply(variables, x, rngs={"dropout": key})[0])
    found = {np.asarray(apply(jax.random.key(k))).tobytes() for k in range(300)}
    assert len(found) == 8  # three blocks, each kept or not


def test_networks_without_normalization_take_one():
    for kind in ("batch", "group"):
        variables = jax.eval_shape(lambda x, kind=kind: cnn.CNN("lenet", 10, norm=kind).init(jax.random.key(0), x),
                                   jnp.zeros((1, 28, 28, 1)))
        assert ("batch_stats" in variables) == (kind == "batch")
        assert len(variables["params"]) == 5 + 2


def test_a_pool_is_that_of_flax_and_its_gradient_too():
    x = jax.random.normal(jax.random.key(0), (2, 7, 6, 3))  # no two are equal
    weights = jax.random.normal(jax.random.key(1), (2, 3, 3, 3))
    found, expected = (jax.value_and_grad(lambda x, pool=pool: (weights * pool(x) ** 2).sum())(x)
                       for pool in (nn.max_pool, lambda x: linen.max_pool(x, (2, 2), (2, 2))))
    assert_close(found, expected)
    assert_close(jax.jvp(nn.max_pool, (x,), (x,))[1], nn.max_pool(x))
    assert_close(jax.grad(lambda x: nn.max_pool(jax.nn.relu(x)).sum())(-jnp.abs(x)), 0)
