"""Optimizers against optax and by hand, schedules in closed form, populations, accumulation, and what is refused."""

import dataclasses
import functools
import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tools import assert_close

from jaxdl import optim
from jaxdl.core.config import leaves_as_arrays
from jaxdl.core.errors import UserError
from jaxdl.core.types import Mean
from jaxdl.optim import Config

PARAMS = {"kernel": jnp.array([[1.0, -2.0], [0.5, 0.0]]), "bias": jnp.array([3.0, -4.0])}


def gradient(i):
    return jax.tree.map(lambda p: jnp.sin(p + i) + 0.1, PARAMS)


def descend(tx, steps=6, jit=True):
    """Parameters after some updates with prescribed gradients."""
    update = jax.jit(tx.update) if jit else tx.update
    params, state = PARAMS, tx.init(PARAMS)
    for i in range(steps):
        updates, state = update(gradient(i), state, params)
        params = optax.apply_updates(params, updates)
    return params


assert_close = functools.partial(assert_close, rtol=2e-6, atol=1e-7)

ORACLES = {
    "sgd": optax.sgd(0.01),
    "momentum": optax.sgd(0.01, 0.8),
    "nesterov": optax.sgd(0.01, 0.8, nesterov=True),
    "rmsprop": optax.rmsprop(0.01, 0.95, 1e-3, eps_in_sqrt=False),
    "adam": optax.adam(0.01, 0.7, 0.95, 1e-3),
    "adamw": optax.adamw(0.01, 0.7, 0.95, 1e-3, weight_decay=0.01, mask={"kernel": True, "bias": False}),
    "muon": optax.partition({"kernel": optax.contrib.muon(0.01, beta=0.8, consistent_rms=0.2),
                             "bias": optax.adam(0.01, 0.7, 0.95, 1e-3)}, {"kernel": "kernel", "bias": "bias"}),
}


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("name", ORACLES)
def test_is_what_optax_does_leaf_by_leaf(name, jit):
    config = Config(optimizer=name, learning_rate=0.01, momentum=0.8, rms_decay=0.95, beta1=0.7, beta2=0.95, eps=1e-3)
    assert_close(descend(optim.transform(config, 100), jit=jit), descend(ORACLES[name]))


def test_adagrad_divides_by_the_root_of_the_sum_of_squares():
    params = descend(optim.transform(Config(optimizer="adagrad", learning_rate=0.1), 100))
    expected, total = jax.tree.map(np.array, PARAMS), jax.tree.map(np.zeros_like, PARAMS)
    for i in range(6):
        total = jax.tree.map(lambda t, g: t + g**2, total, gradient(i))
        expected = jax.tree.map(lambda p, g, t: p - 0.1 * g / np.sqrt(t), expected, gradient(i), total)
    assert_close(params, expected)


def test_the_first_step_of_adam_is_the_sign_of_the_gradient():
    tx = optim.transform(Config(learning_rate=0.5), 100)
    updates, _ = tx.update(gradient(0), tx.init(PARAMS), PARAMS)
    assert_close(updates, jax.tree.map(lambda g: -0.5 * jnp.sign(g), gradient(0)), rtol=1e-5)


def test_a_step_adds_what_the_transform_gives_for_the_mean_over_shards():
    config = Config(max_grad_norm=1.0, weight_decay=0.1, optimizer="adamw")
    optimizer, tx = optim.make(config, 10), optim.transform(config, 10)
    shards = jax.tree.map(lambda *x: jnp.stack(x), gradient(0), gradient(1))
    (params, opt) = jax.vmap(lambda grads: optimizer.step(grads, optimizer.init(PARAMS), PARAMS, "shards"),
                             axis_name="shards")(shards)
    updates, expected_opt = tx.update(jax.tree.map(lambda g: g.mean(0), shards), tx.init(PARAMS), PARAMS)
    for shard in range(2):
        assert_close(jax.tree.map(lambda x: x[shard], params), optax.apply_updates(PARAMS, updates))  # noqa: B023
        assert_close(jax.tree.map(lambda x: x[shard], opt), expected_opt)  # noqa: B023


def test_the_state_is_one_vector_a_moment():
    assert sorted(x.size for x in jax.tree.leaves(optim.transform(Config(), 10).init(PARAMS))) == [1, 6, 6]


E = 0.01
SCHEDULES = {  # share of the learning rate left at 0, 1/4, 1/2 and all of the run
    "constant": (1, 1, 1, 1),
    "linear": (1, 0.7525, 0.505, E),
    "cosine": (1, E + 0.99 * (1 + math.sqrt(0.5)) / 2, 0.505, E),
    "exponential": (1, 10**-0.5, 0.1, E),
    "inverse_time": (1, 1 / 25.75, 1 / 50.5, E),
    "step": (1, 1, 0.1, E),  # two steps down, each to a tenth
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_their_formulas_and_hold_their_end(name):
    config = Config(learning_rate=2.0, schedule=name, final_fraction=E, lr_steps=2)
    count = jnp.array([0, 20, 40, 80, 81, 10**6])
    rates = jax.jit(lambda c, n: optim.learning_rate(c, 80)(n))(leaves_as_arrays(config), count)
    first, quarter, half, end = SCHEDULES[name]
    np.testing.assert_allclose(rates, 2 * np.array([first, quarter, half, end, end, end]), rtol=1e-5)


def test_muon_orthogonalizes_each_matrix_whatever_it_is_stacked_with():
    shapes = {"in": (12, 5), "out": (5, 12), "square": (5, 5), "taps": (2, 2, 3, 5), "layers": (3, 2, 5, 3)}
    keys = jax.random.split(jax.random.key(0), len(shapes))
    params = {name: {"kernel": jax.random.normal(key, shape)} for key, (name, shape) in zip(keys, shapes.items(), strict=True)}
    params["layers"] |= {"bias": jnp.arange(9.0).reshape(3, 3) - 4.5, "noise_scale": jnp.ones((3, 5))}
    params["in"] |= {"bias": -jnp.arange(1.0, 6.0), "scalar": jnp.ones(())}
    tx = optim.transform(Config(optimizer="muon", learning_rate=1.0, momentum=0.5), 1)
    state = tx.init(params)
    updates, _ = tx.update(params, state, params)
    sizes = sorted(x.shape for x in jax.tree.leaves(state) if x.ndim == 3)
    assert sizes == [(1, 5, 5), (2, 5, 12), (10, 3, 5)]
    for name, layer in params.items():
        for part in layer.keys() - {"kernel"}:  # Adam's first step
            np.testing.assert_allclose(updates[name][part], -np.sign(layer[part]), rtol=1e-5)
        kernels, steps = (np.reshape(x[name]["kernel"], (-1, *shapes[name][-2:])) for x in (params, updates))
        for kernel, step in zip(kernels, steps, strict=True):
            alone, _ = tx.update({"kernel": kernel}, tx.init({"kernel": kernel}), {"kernel": kernel})
            np.testing.assert_allclose(step, alone["kernel"], rtol=1e-4, atol=1e-5)
            u, before, vt = np.linalg.svd(kernel, full_matrices=False)
            after = -u.T @ step @ vt.T / (0.2 * math.sqrt(max(kernel.shape)))
            np.testing.assert_allclose(after, np.diag(np.diag(after)), atol=0.01)  # the same singular vectors
            assert before.max() / before.min() > 1.2
            assert 0.6 < np.diag(after).min() < np.diag(after).max() < 1.3  # where optax's five steps leave them


@pytest.mark.parametrize(("name", "oracle"), [
    ("linear", optax.linear_schedule(3.0, 0.3, 50)),
    ("cosine", optax.cosine_decay_schedule(3.0, 50, 0.1)),
    ("exponential", optax.exponential_decay(3.0, 50, 0.1, end_value=0.3)),
])
def test_schedules_agree_with_optax(name, oracle):
    rate = optim.learning_rate(Config(learning_rate=3.0, schedule=name, final_fraction=0.1), 50)
    np.testing.assert_allclose([rate(i) for i in range(70)], [oracle(i) for i in range(70)], rtol=1e-5)


def test_warmup_rises_linearly_and_the_schedule_begins_after_it():
    rate = optim.learning_rate(Config(learning_rate=1.0, schedule="linear", warmup_fraction=0.4), 10)
    np.testing.assert_allclose([rate(i) for i in range(12)],
                               [0.25, 0.5, 0.75, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0, 0], atol=1e-6)
    plain = optim.learning_rate(Config(learning_rate=1.0, schedule="linear"), 10)
    none = optim.learning_rate(Config(learning_rate=1.0, schedule="linear", warmup_fraction=0.0), 10)
    assert [float(none(i)) for i in range(12)] == [float(plain(i)) for i in range(12)]


def test_the_schedule_counts_updates():
    config = Config(optimizer="sgd", learning_rate=1.0, schedule="linear")
    tx = optim.transform(config, 4)
    state, seen = tx.init(PARAMS), []
    for _ in range(6):
        updates, state = tx.update(jax.tree.map(jnp.ones_like, PARAMS), state, PARAMS)
        seen.append(float(updates["bias"][0]))
    np.testing.assert_allclose(seen, [-1, -0.75, -0.5, -0.25, 0, 0])


def test_clips_the_global_norm_before_penalties():
    grads = {"kernel": jnp.array([[3.0, 0.0], [0.0, 0.0]]), "bias": jnp.array([4.0, 0.0])}  # norm 5
    tx = optim.transform(Config(optimizer="sgd", learning_rate=1.0, max_grad_norm=1.0), 1)
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    assert_close(updates, jax.tree.map(lambda g: -g / 5, grads))
    tx = optim.transform(Config(optimizer="sgd", learning_rate=1.0, max_grad_norm=6.0), 1)
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    assert_close(updates, jax.tree.map(jnp.negative, grads))
    tx = optim.transform(Config(optimizer="sgd", learning_rate=1.0, max_grad_norm=1.0, l2=100.0), 1)
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    assert_close(updates["kernel"], -(grads["kernel"] / 5 + 100 * PARAMS["kernel"]))


def test_penalties_are_gradients_of_norms_of_kernels():
    tx = optim.transform(Config(optimizer="sgd", learning_rate=1.0, l1=0.3, l2=0.2), 1)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, PARAMS), tx.init(PARAMS), PARAMS)
    penalty = jax.grad(lambda p: 0.3 * jnp.abs(p).sum() + 0.1 * jnp.square(p).sum())
    nonzero = PARAMS["kernel"] != 0
    np.testing.assert_allclose(updates["kernel"], -jnp.where(nonzero, penalty(PARAMS["kernel"]), 0))
    assert not updates["bias"].any()


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_weight_decay_is_decoupled_and_spares_biases(name):
    tx = optim.transform(Config(optimizer=name, learning_rate=0.1, weight_decay=0.5), 1)
    params = {"layers": {"kernel": jnp.ones((3, 2, 2)), "bias": jnp.ones((3, 2))}} | PARAMS
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.1 * 0.5 * PARAMS["kernel"])
    assert updates["layers"]["kernel"].all()
    assert not updates["bias"].any()
    assert not updates["layers"]["bias"].any()


EVERYTHING = {"learning_rate": 0.01, "schedule": "cosine", "final_fraction": 0.1, "warmup_fraction": 0.2,
              "max_grad_norm": 1.0, "l1": 1e-3, "l2": 1e-2}


@pytest.mark.parametrize("name", [*ORACLES, "adagrad"])
def test_a_population_is_one_trace_and_each_member_is_the_single_run(name):
    traces = []

    def train(config):
        traces.append(1)
        tx = optim.transform(config, 10)

        def body(i, carry):
            params, state = carry
            updates, state = tx.update(gradient(i), state, params)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, 8, body, (PARAMS, tx.init(PARAMS)))[0]

    def member(k):
        decay = 0.1 * k if name in ("adamw", "muon") else None
        scaled = {f: v * (1 + k) for f, v in EVERYTHING.items() if isinstance(v, float) and f != "warmup_fraction"}
        return leaves_as_arrays(Config(name, **EVERYTHING | scaled, momentum=0.5 + 0.1 * k, beta1=0.6 + 0.1 * k,
                                       beta2=0.9 + 0.02 * k, eps=1e-4 * (1 + k), weight_decay=decay))

    def stack(*members):
        return jax.tree.map(lambda *xs: jnp.stack(xs), *members)

    program = jax.jit(jax.vmap(train))
    together = program(stack(member(0), member(1), member(2)))
    program(stack(member(2), member(0), member(3)))
    assert len(traces) == 1
    for k in range(3):
        alone = jax.jit(train)(member(k))
        assert_close(jax.tree.map(lambda x: x[k], together), alone, rtol=1e-5)  # noqa: B023
        assert not np.allclose(alone["kernel"], train(member(k + 1))["kernel"], atol=1e-4)


def test_off_and_on_are_different_programs_and_values_are_not():
    structure = jax.tree.structure
    assert structure(Config(max_grad_norm=1.0)) == structure(Config(max_grad_norm=2.0, learning_rate=0.5))
    assert structure(Config(max_grad_norm=1.0)) != structure(Config())
    assert structure(Config(grad_accumulation=2)) != structure(Config())


BATCH = {"x": jax.random.normal(jax.random.key(1), (12, 2)), "y": jnp.arange(12.0)}


def loss_fn(params, batch, key):
    error = jnp.tanh(batch["x"] @ params["kernel"] + params["bias"]).sum(-1) - batch["y"]
    loss = jnp.square(error)
    return loss.mean(), {"loss": Mean.of(loss), "error": error, "noise": jax.random.normal(key, (len(error),))}


@pytest.mark.parametrize("accumulate", [2, 3, 12])
@pytest.mark.parametrize("jit", [True, False])
def test_accumulated_gradients_are_the_whole_batchs(accumulate, jit):
    def run(n):
        return optim.gradients(loss_fn, PARAMS, BATCH, jax.random.key(0), optim.Config(grad_accumulation=n))

    grads, aux = (jax.jit(run, static_argnums=0) if jit else run)(accumulate)
    expected, expected_aux = run(1)
    assert_close(grads, expected, rtol=1e-5, atol=1e-5)
    assert_close(expected, jax.grad(lambda p: loss_fn(p, BATCH, jax.random.key(0))[0])(PARAMS))
    assert_close(aux["loss"], expected_aux["loss"], rtol=1e-5)
    np.testing.assert_allclose(aux["error"], expected_aux["error"], rtol=1e-5, atol=1e-6)  # in order
    assert len(np.unique(aux["noise"])) == 12  # no microbatch repeats another's noise


@pytest.mark.parametrize("accumulate", [2, 3])
def test_microbatches_are_cut_off_the_axis_that_holds_the_batch(accumulate):
    def time_major(params, batch, key):
        return loss_fn(params, {"x": batch["x"][0].T, "y": batch["more"]["y"]}, key)

    def run(n):
        batch = {"x": BATCH["x"].T[None], "more": {"y": BATCH["y"], "none": None}}
        config = optim.Config(grad_accumulation=n)
        return optim.gradients(time_major, PARAMS, batch, jax.random.key(0), config, {"x": 2, "more": 0})

    (grads, aux), (expected, expected_aux) = run(accumulate), run(1)
    assert_close(grads, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(aux["error"], expected_aux["error"], rtol=1e-5, atol=1e-6)  # in order


def test_accumulation_has_no_branches():
    config = optim.Config(grad_accumulation=3)
    jaxpr = str(jax.make_jaxpr(lambda p: optim.gradients(loss_fn, p, BATCH, jax.random.key(0), config))(PARAMS))
    assert "scan[" in jaxpr
    assert "cond[" not in jaxpr


def test_microbatches_must_divide_the_batch():
    with pytest.raises(UserError, match=r"grad_accumulation=5 must divide the batch of 12"):
        optim.gradients(loss_fn, PARAMS, BATCH, jax.random.key(0), optim.Config(grad_accumulation=5))
    with pytest.raises(UserError, match=r"grad_accumulation=5 must divide the batch of 12"):
        optim.validate(Config(grad_accumulation=5), batch_size=12)
    optim.validate(Config(grad_accumulation=4), batch_size=12)


@pytest.mark.parametrize(("field", "value"), [
    ("learning_rate", 0.0), ("learning_rate", -1e-3), ("learning_rate", math.nan), ("learning_rate", math.inf),
    ("final_fraction", -0.1), ("final_fraction", 1.1), ("final_fraction", math.nan), ("lr_steps", 0),
    ("warmup_fraction", 1.0), ("warmup_fraction", -0.1), ("momentum", 1.0), ("momentum", -0.5), ("momentum", math.nan),
    ("beta1", 1.0), ("beta2", 1.5), ("beta2", math.nan), ("rms_decay", 1.0), ("eps", 0.0), ("eps", -1e-8),
    ("max_grad_norm", 0.0), ("max_grad_norm", -1.0), ("weight_decay", -0.1), ("l1", -1.0), ("l2", math.nan),
    ("l2", math.inf), ("grad_accumulation", 0), ("grad_accumulation", -2),
])
def test_numbers_that_make_no_sense_are_refused_by_name(field, value):
    with pytest.raises(UserError, match=rf"^{field} must be .*, got {value}"):
        optim.validate(Config(optimizer="adamw", **{field: value}))


def test_choices_that_need_another_field_say_so():
    for schedule in ("exponential", "inverse_time", "step"):
        with pytest.raises(UserError, match=f"final_fraction must be above 0 .* for schedule={schedule}, got 0.0"):
            optim.validate(Config(schedule=schedule))
        optim.validate(Config(schedule=schedule, final_fraction=0.1))
    with pytest.raises(UserError, match=r"weight_decay=0.1 .*optimizer=sgd.*l2"):
        optim.validate(Config(optimizer="sgd", weight_decay=0.1))


def test_every_setting_is_documented():
    source = inspect.getsource(Config)
    for field in dataclasses.fields(Config):
        after = source[source.index(f"    {field.name}: "):].split("\n", 2)
        assert after[1].strip().startswith('"""'), field.name


@pytest.mark.parametrize("accumulate", [1, 3])
def test_minimize_is_gradients_and_a_step(accumulate):
    config = optim.Config(grad_accumulation=accumulate, max_grad_norm=1.0)
    optimizer, key = optim.make(config, 10), jax.random.key(0)
    params, opt, aux = optim.minimize(optimizer, loss_fn, PARAMS, optimizer.init(PARAMS), BATCH, key, config)
    grads, expected_aux = optim.gradients(loss_fn, PARAMS, BATCH, key, config)
    expected = optimizer.step(grads, optimizer.init(PARAMS), PARAMS)
    assert_close((params, opt), expected, rtol=0, atol=0)
    assert_close(aux, expected_aux, rtol=0, atol=0)
