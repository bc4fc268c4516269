"""Ring buffers: what goes in comes out, bit by bit, and every item is as likely as any other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from tools import same_bits

from jaxdl.core.errors import UserError
from jaxdl.rl.replay import ring_buffer

EXAMPLE = {
    "vector": jax.ShapeDtypeStruct((3,), jnp.float32),
    "pixels": jax.ShapeDtypeStruct((3, 3, 1), jnp.uint8),  # 9 bytes: padded to whole words
    "flag": jax.ShapeDtypeStruct((), jnp.bool_),
    "half": jax.ShapeDtypeStruct((5,), jnp.bfloat16),
    "count": jax.ShapeDtypeStruct((2,), jnp.int32),
    "small": jax.ShapeDtypeStruct((), jnp.int8),
}


def items(key, *lead):
    """Random items, negative numbers, NaN and infinities among them."""
    k = jax.random.split(key, 6)
    vector = jax.random.normal(k[0], (*lead, 3)).at[..., 0].set(jnp.nan).at[..., 1].set(-jnp.inf)
    return {
        "vector": vector,
        "pixels": jax.random.randint(k[1], (*lead, 3, 3, 1), 0, 256).astype(jnp.uint8),
        "flag": jax.random.bernoulli(k[2], shape=lead),
        "half": jax.random.normal(k[3], (*lead, 5), jnp.bfloat16),
        "count": jax.random.randint(k[4], (*lead, 2), -(2**31), 2**31 - 1),
        "small": jax.random.randint(k[5], lead, -128, 128).astype(jnp.int8),
    }


def sample(memory, state, key, size, n=1):
    """Uniform draws, read with those that follow them."""
    return memory.read(state, memory.sample_indices(state, key, size), n)


def test_every_dtype_comes_out_with_the_bits_that_went_in():
    memory = ring_buffer.make(EXAMPLE, capacity=4, num_envs=4)
    added = items(jax.random.key(0), 1, 4)
    state = memory.add(memory.init(), added)
    drawn, _ = sample(memory, state, jax.random.key(1), 64)
    by_count = {np.asarray(added["count"][0, e]).tobytes(): e for e in range(4)}
    which = [by_count[np.asarray(c).tobytes()] for c in drawn["count"][0]]
    assert set(which) == {0, 1, 2, 3}
    same_bits(jax.tree.map(lambda x: x[0], drawn), jax.tree.map(lambda x: x[0][jnp.array(which)], added))


def numbered(k, num_envs, begin):
    """Items [k, E] whose number is 1000 * environment + time."""
    t = begin + jnp.arange(k)[:, None]
    return {"id": 1000 * jnp.arange(num_envs) + t}


def contents(memory, state, draws=4000, seed=0):
    drawn, _ = sample(memory, state, jax.random.key(seed), draws)
    return set(np.asarray(drawn["id"][0]).tolist())


@pytest.mark.parametrize("k", [1, 3])
def test_the_oldest_items_make_room_for_the_newest(k):
    memory = ring_buffer.make({"id": jax.ShapeDtypeStruct((), jnp.int32)}, capacity=10, num_envs=2)
    state, t = memory.init(), 0
    for _ in range(7):
        state = memory.add(state, numbered(k, 2, t))
        t += k
        newest = range(max(0, t - 5), t)
        assert contents(memory, state) == {1000 * e + i for e in range(2) for i in newest}


def test_an_item_that_is_not_valid_leaves_no_trace():
    memory = ring_buffer.make({"id": jax.ShapeDtypeStruct((), jnp.int32)}, capacity=6, num_envs=2)
    state, kept = memory.init(), ([], [])
    rng = np.random.default_rng(0)
    for t in range(12):
        valid = rng.random(2) < 0.6
        state = memory.add(state, numbered(1, 2, t), jnp.asarray(valid)[None])
        for e in range(2):
            if valid[e]:
                kept[e].append(1000 * e + t)
        held = set(kept[0][-3:]) | set(kept[1][-3:])
        assert np.asarray(state.size).tolist() == [min(3, len(k)) for k in kept]
        if held:
            assert contents(memory, state) == held


def test_every_item_is_equally_likely_also_where_rings_differ_in_size():
    memory = ring_buffer.make({"id": jax.ShapeDtypeStruct((), jnp.int32)}, capacity=24, num_envs=3)
    state = memory.init()
    for t in range(6):
        state = memory.add(state, numbered(1, 3, t), jnp.array([[True, t % 2 == 0, t < 1]]))
    drawn, _ = sample(memory, state, jax.random.key(3), 100_000)
    values, counts = np.unique(np.asarray(drawn["id"][0]), return_counts=True)
    assert len(values) == 6 + 3 + 1
    assert stats.chisquare(counts).pvalue > 1e-3


def test_the_items_that_follow_are_those_of_the_same_environment_up_to_the_newest():
    memory = ring_buffer.make({"id": jax.ShapeDtypeStruct((), jnp.int32)}, capacity=12, num_envs=3)
    state = memory.init()
    for t in range(9):  # rings of 4: times 5..8 remain, across the seam
        state = memory.add(state, numbered(1, 3, t))
    drawn, available = sample(memory, state, jax.random.key(0), 500, n=3)
    ids, available = np.asarray(drawn["id"]), np.asarray(available)
    for i in range(500):
        env, t = divmod(ids[0, i], 1000)
        assert 5 <= t <= 8
        assert available[:, i].tolist() == [t + j <= 8 for j in range(3)]
        for j in range(3):
            if available[j, i]:
                assert ids[j, i] == 1000 * env + t + j


def test_draws_agree_under_jit_and_vmap():
    memory = ring_buffer.make({"id": jax.ShapeDtypeStruct((), jnp.int32)}, capacity=12, num_envs=3)
    keys = jax.random.split(jax.random.key(5), 4)
    state = memory.add(memory.init(), numbered(2, 3, 0))
    one_by_one = [sample(memory, state, k, 16)[0]["id"] for k in keys]
    together = jax.jit(jax.vmap(lambda k: sample(memory, state, k, 16)[0]["id"]))(keys)
    np.testing.assert_array_equal(together, jnp.stack(one_by_one))


@pytest.mark.parametrize(("capacity", "num_envs"), [(10, 3), (0, 2), (2, 4), (-4, 2)])
def test_a_capacity_that_the_environments_do_not_divide_is_refused(capacity, num_envs):
    with pytest.raises(UserError, match="buffer_size must be a positive multiple of num_envs"):
        ring_buffer.make(EXAMPLE, capacity, num_envs)


def test_leaves_of_eight_bytes_keep_their_bits():
    with jax.enable_x64(True):
        items = {"i": np.array([[[2**40 + 1, -3]]]), "f": np.array([[[1 / 3]]]), "b": np.array([[[True]]])}
        layout = ring_buffer.Layout.of(jax.tree.map(lambda x: x[0, 0], items))
        assert layout.width == 4 + 2 + 1
        same_bits(layout.unpack(layout.pack(items)), items)
