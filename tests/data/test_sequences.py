"""Windows of a stream are contiguous, an epoch reads each item once, and the recurrent state goes from window to window."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import jit, leaves, same_bits

from jaxdl import nn
from jaxdl.core.axis import AXIS
from jaxdl.core.errors import UserError
from jaxdl.core.run import compose
from jaxdl.core.types import Learner, Mean, UpdateResult
from jaxdl.data import sequences
from jaxdl.data.sequences import SequenceState, steps_per_epoch


def sums(n):
    return jnp.zeros(n, jnp.int32)


def adding():
    """A learner whose recurrent state is the sum of all that its stream has shown, and that learns nothing."""
    def update(state, batch, key):
        carry = batch.carry + batch.inputs.sum(0, dtype=jnp.int32)
        return state + 1, UpdateResult({"sum": Mean.of(carry), "start": Mean.of(batch.start)}, carry)

    return Learner(init=lambda key: jnp.zeros((), jnp.int32), update=update, params=lambda state: state)


def read(source, data, steps, seed=0, state=None):
    """The state after `steps` batches, and the batches with a leading axis of steps."""
    state = source.init(jax.random.key(seed)) if state is None else state
    return jit(lambda s: jax.lax.scan(lambda s, _: source.sample(s, None, 0, data), s, length=steps))(state)


@pytest.mark.parametrize(("n", "b", "t", "shift"), [
    (101, 4, 5, 1), (100, 4, 5, 0), (100, 4, 5, 1), (17, 1, 16, 1), (2, 1, 1, 1), (997, 7, 13, 1), (50, 3, 4, 2)])
def test_windows_are_contiguous_and_an_epoch_reads_each_item_once(n, b, t, shift):
    steps = steps_per_epoch(n, b, t, shift)
    assert steps == (n - shift) // (b * t)
    source, data = sequences.sequences(n, b, t, shift=shift), jnp.arange(n)
    state, batches = read(source, data, 6 * steps)
    assert (int(state.epoch), int(state.batch)) == (6, 0)
    epochs = np.asarray(batches.inputs).reshape(6, steps, t, b)
    begins = []
    for epoch in epochs:
        streams = epoch.transpose(2, 0, 1).reshape(b, steps * t)  # each stream from window to window
        assert (np.diff(streams, axis=1) == 1).all()
        np.testing.assert_array_equal(np.sort(epoch.ravel()), epoch.min() + np.arange(steps * t * b))
        begins.append(epoch.min())
    left_over = n - shift - steps * b * t
    assert 0 <= min(begins) <= max(begins) <= left_over
    if left_over > 5:
        assert len(set(begins)) > 1  # what is left out is not always the same
    if shift:
        np.testing.assert_array_equal(batches.targets, batches.inputs + shift)
    else:
        assert batches.targets is None
    np.testing.assert_array_equal(batches.start, np.arange(6 * steps) % steps == 0)


def test_any_tree_is_windowed_with_its_leaves_together():
    data = {"x": jnp.arange(60).reshape(20, 3), "y": jnp.arange(20.0)}
    _, batches = read(sequences.sequences(20, 2, 3), data, 3)
    assert batches.inputs["x"].shape == (3, 3, 2, 3)
    np.testing.assert_array_equal(batches.inputs["x"][..., 0], 3 * batches.inputs["y"])
    np.testing.assert_array_equal(batches.targets["y"], batches.inputs["y"] + 1)


def run_of(n, b, t, **options):
    return compose(adding(), sequences.sequences(n, b, t, sums, **options), stride=1)


def test_the_carry_goes_from_window_to_window_and_begins_anew_with_each_epoch():
    n, b, t = 41, 2, 5
    run, data = run_of(n, b, t), jnp.arange(n) ** 2
    state, step = run.init(jax.random.key(3), None), jit(run.step)
    _, batches = read(sequences.sequences(n, b, t), data, 9, state=state.source._replace(carry=None))
    expected = np.zeros(b, int)
    for i in range(9):
        expected = np.asarray(batches.inputs[i]).sum(0) + (0 if i % 4 == 0 else expected)
        state, metrics = step(state, data)
        np.testing.assert_array_equal(state.source.carry, expected)
        assert float(metrics["start"].total) == (i % 4 == 0)


def test_truncated_backpropagation_sees_what_one_long_unroll_sees():
    """An LSTM over windows, each begun where the last one ended, gives the outputs of one pass over the whole stream."""
    n, b, t, size = 49, 3, 4, 5
    data = jnp.asarray(np.random.default_rng(0).normal(size=(n, 2)), jnp.float32)
    cell = nn.LSTM(size)

    def zeros(n):
        return nn.zero_carry("lstm", size, n)

    params = cell.init(jax.random.key(0), zeros(b), data[:b], method=lambda cell, carry, x: cell.step(carry, cell.project(x)))

    def update(state, batch, key):
        carries, outputs = nn.unroll(cell, params, batch.carry, batch.inputs)
        return state + outputs.sum((0, 1)), UpdateResult({}, jax.tree.map(lambda x: x[-1], carries))

    learner = Learner(init=lambda key: jnp.zeros(size), update=update, params=lambda state: state)
    run = compose(learner, sequences.sequences(n, b, t, zeros), stride=1)
    state, step = run.init(jax.random.key(1), None), jit(run.step)
    for _ in range(4):
        state, _ = step(state, data)
    whole = data[: b * 16].reshape(b, 16, 2).swapaxes(0, 1)
    carries, outputs = nn.unroll(cell, params, zeros(b), whole)
    np.testing.assert_allclose(state.learner, outputs.sum((0, 1)), rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b[-1], rtol=1e-5), state.source.carry, carries)


def test_a_run_continues_mid_epoch_from_its_state_alone():
    run, data = run_of(203, 4, 7), jnp.arange(203)
    step = jit(run.step)
    state = run.init(jax.random.key(0), None)
    for i in range(17):
        if i == 10:  # 3 into the second epoch of 7
            assert (int(state.source.epoch), int(state.source.batch)) == (1, 3)
            read_back = dict(leaves(state))
        state, _ = step(state, data)
    like, structure = jax.tree_util.tree_flatten_with_path(state)
    values = [read_back[jax.tree_util.keystr(path)] for path, _ in like]
    again = jax.tree.unflatten(structure, [jax.random.wrap_key_data(jnp.asarray(x)) if jnp.issubdtype(
        old.dtype, jax.dtypes.prng_key) else jnp.asarray(x) for x, (_, old) in zip(values, like, strict=True)])
    run = run_of(203, 4, 7)
    for _ in range(7):
        again, _ = jit(run.step)(again, data)
    same_bits(again, state)


@pytest.mark.parametrize("shards", [2, 3])
def test_shards_read_parts_of_their_own_with_carries_of_their_own(shards):
    n, b, t = 600, 6, 5
    config = sequences.Config(batch_size=b, window=t)
    run = sequences.run_of(adding(), n, config, sums, axis_name=AXIS, shards=shards)
    parts = jnp.arange(n).reshape(shards, -1)

    def program(part, key):
        state = run.init(key, None)
        for _ in range(3):
            state, metrics = run.step(state, part)
        return state, metrics

    state, metrics = jit(jax.vmap(program, (0, None), axis_name=AXIS))(parts, jax.random.key(0))
    assert state.source.carry.shape == (shards, b // shards)
    assert len(np.unique(state.source.carry)) == b
    alone = sequences.sequences(n // shards, b // shards, t, sums)
    for i in range(shards):
        source = SequenceState(*(x[i] for x in state.source[:3]), None)
        _, batches = read(alone, parts[i], 3, state=alone.init(source.key))
        np.testing.assert_array_equal(state.source.carry[i], batches.inputs.sum((0, 1)))
    assert float(metrics["sum"].count[0]) == b
    assert float(metrics["sum"].total[0]) == state.source.carry.sum()


def test_members_of_a_population_read_from_places_of_their_own():
    source, data = sequences.sequences(997, 2, 100), jnp.arange(997)
    keys = jax.random.split(jax.random.key(0), 4)
    together = jit(jax.vmap(lambda s: source.sample(s, None, 0, data)[1].inputs))(jax.vmap(source.init)(keys))
    for key, batch in zip(keys, together, strict=True):
        np.testing.assert_array_equal(batch, source.sample(source.init(key), None, 0, data)[1].inputs)
    assert len({int(x.min()) for x in together}) > 1


def test_without_a_carry_feedback_changes_nothing():
    source = sequences.sequences(20, 2, 3)
    state = source.init(jax.random.key(0))
    assert state.carry is None
    assert source.feedback(state, None, None) is state


@pytest.mark.parametrize(("n", "b", "t", "message"), [
    (0, 1, 1, "num_items must lie between 1 and 2147483647, got 0"), (10, 0, 1, "batch_size must be at least 1, got 0"),
    (10, 1, 0, "window must be at least 1, got 0"),
    (10, 2, 5, "batch_size=2 streams of window=5 items take 11 items, and the data has 10")])
def test_sizes_that_do_not_fit_are_refused(n, b, t, message):
    with pytest.raises(UserError, match=message):
        sequences.sequences(n, b, t)


def test_a_feedback_that_is_no_carry_and_data_of_another_size_are_refused():
    source = sequences.sequences(20, 2, 3, sums)
    state, batch = source.sample(source.init(jax.random.key(0)), None, 0, jnp.arange(20))
    with pytest.raises(UserError, match=r"must be its recurrent state .*\(2,\), 'int32'.*got None"):
        source.feedback(state, batch, None)
    with pytest.raises(UserError, match="every array of the data must have 20 examples"):
        source.sample(state, None, 0, jnp.arange(19))


def test_the_planned_run_counts_whole_batches():
    spec = type("Spec", (), {"num_examples": 1000})
    assert sequences.total_steps(sequences.Config(batch_size=4, window=10, epochs=3), spec) == 3 * 24
    assert sequences.total_steps(sequences.Config(total_steps=7), spec) == 7
    with pytest.raises(UserError, match="window must be above 0, got 0"):
        sequences.validate(sequences.Config(window=0))
