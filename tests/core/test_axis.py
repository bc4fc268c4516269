"""The axis of devices: reductions over it, keys of shards, and sources on another number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from maps import MAPS

from jaxdl.agents import dqn
from jaxdl.core import axis
from jaxdl.core.axis import AXIS
from jaxdl.core.errors import UserError
from jaxdl.optim import Config as OptimConfig

TREE = {"a": jnp.arange(12.0).reshape(4, 3), "b": (jnp.array([1.0, -2.0, 4.0, 8.0]), jnp.ones((4, 2, 2)))}


@pytest.mark.parametrize("how", MAPS)
@pytest.mark.parametrize(("reduce", "numpy"), [(axis.mean_over, np.mean), (axis.sum_over, np.sum)])
def test_reductions_are_those_of_numpy_on_every_shard(how, reduce, numpy):
    got = MAPS[how](lambda part, _: reduce(part, AXIS), 4)(TREE, 0.0)
    jax.tree.map(lambda x, t: np.testing.assert_allclose(x, np.broadcast_to(numpy(t, 0), t.shape), rtol=1e-6), got, TREE)


@pytest.mark.parametrize("reduce", [axis.mean_over, axis.sum_over])
def test_all_leaves_are_reduced_together(reduce):
    traced = str(jax.make_jaxpr(lambda t: reduce(t, AXIS), axis_env=[(AXIS, 4)])(jax.tree.map(lambda x: x[0], TREE)))
    assert traced.count("psum") == 1


def test_one_device_reduces_nothing():
    assert axis.mean_over(TREE, None) is TREE
    assert axis.sum_over(TREE, None) is TREE
    key = jax.random.key(0)
    assert axis.shard_key(key, None) is key


@pytest.mark.parametrize("how", MAPS)
def test_every_shard_has_a_key_of_its_own(how):
    key = jax.random.key(3)
    drawn = MAPS[how](lambda _, key: jax.random.bits(axis.shard_key(key, AXIS)), 4)(jnp.zeros(4), key)
    np.testing.assert_array_equal(drawn, [jax.random.bits(jax.random.fold_in(key, i)) for i in range(4)])
    assert len(np.unique(drawn)) == 4


def test_resharding_keeps_environments_in_order_along_their_axis():
    of_env = jnp.arange(8)  # 2 on each of 4 devices
    state = {"obs": jnp.stack([10 * of_env, 10 * of_env + 1], -1).reshape(4, 2, 2),
             "sums": jnp.stack([of_env, -of_env]).reshape(2, 4, 2).swapaxes(0, 1), "count": jnp.arange(4)}
    env_axis = {"obs": 0, "sums": 1, "count": None}
    for devices in (1, 2, 8):
        got = axis.reshard(state, env_axis, devices)
        np.testing.assert_array_equal(got["obs"].reshape(8, 2), state["obs"].reshape(8, 2))
        np.testing.assert_array_equal(np.concatenate(list(got["sums"]), -1), [of_env, -of_env])
        np.testing.assert_array_equal(got["count"], [0] * devices)


def test_devices_that_are_new_have_keys_of_their_own():
    keys = jax.random.split(jax.random.key(0), 2)
    got = axis.reshard({"key": keys, "nothing": None}, None, 4)["key"]
    assert (got[:2] == keys).all()
    assert len(np.unique(jax.random.key_data(got), axis=0)) == 4


def test_a_part_can_be_resharded_by_a_function_of_its_own():
    got = axis.reshard((jnp.ones((2, 3)), jnp.arange(2)), (lambda x, devices: jnp.full(devices, x.sum()), None), 3)
    np.testing.assert_array_equal(got, ([6, 6, 6], [0, 0, 0]))


@pytest.mark.parametrize(("shards", "near"), [(3, "3 or 6"), (8, "8")])
def test_sizes_that_do_not_divide_are_refused_with_the_nearest_that_would(shards, near):
    with pytest.raises(UserError, match=rf"num_envs=4 .* {shards} devices; {near} would"):
        axis.share(dqn.Config(num_envs=4, buffer_size=48, batch_size=48), shards)


def test_settings_that_declare_no_shared_sizes_are_for_one_device():
    assert axis.share(OptimConfig(), 1) == OptimConfig()
    with pytest.raises(UserError, match=r"devices=2 .* shared_sizes"):
        axis.share(OptimConfig(), 2)


def test_a_share_is_of_the_sizes_that_the_class_declares_alone():
    config = dqn.Config(num_envs=4, buffer_size=80, batch_size=8, total_steps=1000)
    assert axis.share(config, 2) == dqn.Config(num_envs=2, buffer_size=40, batch_size=4, total_steps=1000)
