"""Returns by hand, by a loop that is plain to read, and against rlax; episodes that end within the n steps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from jaxdl.rl import returns

variants = pytest.mark.parametrize("variant", [jax.jit, lambda f: f], ids=["jit", "plain"])


def column(*values, dtype=bool):
    return jnp.array(values, dtype)[:, None]


REWARD = column(1.0, 2.0, 4.0, dtype=jnp.float32)
NO, YES = column(0, 0, 0), column(1, 1, 1)


@variants
@pytest.mark.parametrize(("terminated", "done", "available", "expected"), [
    (NO, NO, YES, (3.0, 0.125, 2)),  # 1 + 2 / 2 + 4 / 4, bootstrap after three steps
    (column(0, 1, 0), column(0, 1, 0), YES, (2.0, 0.0, 1)),  # terminated: the third reward is another episode's
    (NO, column(0, 1, 0), YES, (2.0, 0.25, 1)),  # truncated: bootstrap from that step's next observation
    (NO, column(1, 0, 0), YES, (1.0, 0.5, 0)),
    (column(1, 0, 0), column(1, 0, 0), YES, (1.0, 0.0, 0)),
    (column(0, 0, 1), column(0, 0, 1), YES, (3.0, 0.0, 2)),
    (NO, column(0, 0, 1), YES, (3.0, 0.125, 2)),
    (NO, column(0, 1, 1), YES, (2.0, 0.25, 1)),  # a second end does not matter
    (column(0, 0, 1), column(0, 1, 1), YES, (2.0, 0.25, 1)),  # nor that it terminates
    (NO, NO, column(1, 1, 0), (2.0, 0.25, 1)),  # the newest step is the second: a shorter return
    (NO, NO, column(1, 0, 0), (1.0, 0.5, 0)),
    (column(0, 1, 0), column(0, 1, 0), column(1, 0, 0), (1.0, 0.5, 0)),  # the end is not in yet
    (column(0, 0, 1), column(0, 0, 1), column(1, 1, 0), (2.0, 0.25, 1)),
])
def test_n_step_transitions_by_hand(variant, terminated, done, available, expected):
    reward, discount, last = variant(returns.n_step_transition)(REWARD, terminated, done, available, 0.5)
    assert (float(reward[0]), float(discount[0]), int(last[0])) == expected
    assert reward.dtype == discount.dtype == jnp.float32
    assert last.dtype == jnp.int32


def by_loop(reward, terminated, done, available, gamma):
    total, discount, last = 0.0, 1.0, 0
    for j in range(len(reward)):
        if not available[j]:
            break
        total, discount, last = total + discount * reward[j], discount * gamma, j
        if done[j]:
            break
    return total, discount * (not terminated[last]), last


@variants
@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_n_step_transitions_are_the_loops(variant, n, gamma):
    rng = np.random.default_rng(n)
    reward = rng.normal(size=(n, 200)).astype(np.float32)
    terminated, truncated = rng.random((2, n, 200)) < 0.15
    available = np.arange(n)[:, None] < rng.integers(1, n + 1, 200)
    reward[~available] = np.nan  # what is not available is not looked at
    done = terminated | truncated
    got = variant(returns.n_step_transition)(reward, terminated, done, available, gamma)
    expected = [by_loop(*(x[:, b] for x in (reward, terminated, done, available)), gamma) for b in range(200)]
    for a, b in zip(got, zip(*expected, strict=True), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_one_discount_a_member_of_a_population():
    run = jax.jit(jax.vmap(lambda gamma: returns.n_step_transition(REWARD, NO, NO, YES, gamma)))
    np.testing.assert_allclose(run(jnp.array([0.0, 0.5, 1.0]))[0][:, 0], [1, 3, 7])


METHODS = {
    "n_step": lambda f: returns.n_step_returns(f["reward"], f["discount"], f["continues"], f["next_value"], 3),
    "lambda": lambda f: returns.lambda_returns(f["reward"], f["discount"], f["continues"], f["next_value"], 0.8),
    "gae": lambda f: returns.gae(*(f[k] for k in VALUES), 0.8),
    "vtrace_target": lambda f: returns.vtrace(*(f[k] for k in VALUES), f["log_rho"], 0.8, 1.5, 1.2, 0.7)[0],
    "vtrace_advantage": lambda f: returns.vtrace(*(f[k] for k in VALUES), f["log_rho"], 0.8, 1.5, 1.2, 0.7)[1],
}
STEPS = ("reward", "discount", "continues", "next_value")
VALUES = ("reward", "discount", "continues", "value", "next_value")
each_method = pytest.mark.parametrize("method", METHODS)


def fragment(length=12, width=32, end=0.2, truncations=True, seed=0):
    """Episodes that end at random places, and in the first columns where it is easiest to be wrong."""
    rng = np.random.default_rng(seed)
    terminated, truncated = rng.random((2, length, width)) < end
    terminated[:, :8] = truncated[:, :8] = False
    terminated[0, 0] = truncated[0, 1] = terminated[-1, 2] = truncated[-1, 3] = True
    truncated[4, 4] = terminated[5, 4] = terminated[4, 5] = truncated[5, 5] = True
    truncated[4, 6] = terminated[4, 6] = True  # both at once; column 7 never ends
    truncated &= truncations
    continues = ~(terminated | truncated)
    value, other = rng.normal(size=(2, length, width))
    follows = continues & (np.arange(length) < length - 1)[:, None]
    arrays = {"reward": rng.normal(size=(length, width)), "discount": 0.9 * ~terminated, "value": value,
              "next_value": np.where(follows, np.roll(value, -1, 0), other), "log_rho": rng.normal(size=(length, width))}
    return {k: x.astype(np.float32) for k, x in arrays.items()} | {"continues": continues}


def steps_left(continues):
    """Steps from each one to the end of its episode or of the fragment, itself among them."""
    left = np.ones(continues.shape, int)
    for t, b in np.ndindex(continues.shape):
        while t + left[t, b] < len(continues) and continues[t + left[t, b] - 1, b]:
            left[t, b] += 1
    return left


def by_sums(f, formula):
    """Each element by its own explicit sum, in float64, over the rest of its episode in the fragment."""
    left, out = steps_left(f["continues"]), np.zeros(f["reward"].shape)
    for t, b in np.ndindex(out.shape):
        out[t, b] = formula({k: x[t:t + left[t, b], b].astype(float) for k, x in f.items()}, left[t, b])
    return out


def near(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-5)


def after(e, n):
    """The n-step return of the first step of e."""
    left = np.cumprod([1.0, *e["discount"][:n]])
    return left[:n] @ e["reward"][:n] + left[n] * e["next_value"][n - 1]


def mixture(e, left, lam):
    """Sutton's forward view: the first n-step returns by (1 - lam) * lam^(n-1), the longest by the weight that is left."""
    return sum((1 - lam) * lam ** (n - 1) * after(e, n) for n in range(1, left)) + lam ** (left - 1) * after(e, left)


def equation_1(e, left, lam, clip_rho, clip_c, first=0):
    """The target of the step `first` of e, term by term."""
    rho = np.exp(e["log_rho"])
    delta = np.minimum(clip_rho, rho) * (e["reward"] + e["discount"] * e["next_value"] - e["value"])
    trace = e["discount"] * lam * np.minimum(clip_c, rho)
    return e["value"][first] + sum(np.prod(trace[first:t]) * delta[t] for t in range(first, left))


def pg_advantage(e, left, lam, clip_rho, clip_c, clip_pg_rho):
    q = e["next_value"][0]
    if left > 1:
        q = lam * equation_1(e, left, lam, clip_rho, clip_c, first=1) + (1 - lam) * e["value"][1]
    return min(clip_pg_rho, np.exp(e["log_rho"][0])) * (e["reward"][0] + e["discount"][0] * q - e["value"][0])


@variants
@pytest.mark.parametrize("n", [1, 2, 3, 12, 20])
def test_n_step_returns_are_the_sums_to_the_end_of_each_episode(variant, n):
    f = fragment()
    got = variant(partial(returns.n_step_returns, n=n))(*(f[k] for k in STEPS))
    near(got, by_sums(f, lambda e, left: after(e, min(n, left))))


@variants
@pytest.mark.parametrize("lam", [0.0, 0.8, 1.0])
def test_lambda_returns_and_advantages_are_the_mixture_of_n_step_returns(variant, lam):
    f = fragment()
    expected = by_sums(f, partial(mixture, lam=lam))
    near(variant(returns.lambda_returns)(*(f[k] for k in STEPS), lam), expected)
    near(variant(returns.gae)(*(f[k] for k in VALUES), lam), expected - f["value"])


@variants
@pytest.mark.parametrize(("lam", "clips"), [(1.0, (1.0, 1.0, 1.0)), (0.8, (1.5, 1.2, 0.7)), (0.0, (0.5, 9.0, 9.0))])
def test_vtrace_is_equation_1_of_impala_term_by_term(variant, lam, clips):
    f = fragment()
    target, advantage = variant(returns.vtrace)(*(f[k] for k in VALUES), f["log_rho"], lam, *clips)
    near(target, by_sums(f, lambda e, left: equation_1(e, left, lam, *clips[:2])))
    near(advantage, by_sums(f, lambda e, left: pg_advantage(e, left, lam, *clips)))


def test_by_hand_with_a_truncation_inside_and_a_termination_at_the_end():
    reward, continues = np.float32([1, 2, 4, 8]), np.array([True, False, True, False])
    discount, next_value = np.float32([0.5, 0.5, 0.5, 0]), np.float32([100, 8, 16, 99])
    value = np.float32([3, 100, 5, 16])
    by_n = {1: [51, 6, 12, 8], 2: [1 + 0.5 * (2 + 0.5 * 8), 2 + 0.5 * 8, 4 + 0.5 * 8, 8]}
    for n, expected in (1, by_n[1]), (2, by_n[2]), (4, by_n[2]):
        np.testing.assert_array_equal(returns.n_step_returns(reward, discount, continues, next_value, n), expected)
    for lam, expected in (0, by_n[1]), (1, by_n[2]), (0.5, [27.5, 6, 10, 8]):  # halfway between one step and two
        np.testing.assert_array_equal(returns.lambda_returns(reward, discount, continues, next_value, lam), expected)
        np.testing.assert_array_equal(returns.gae(reward, discount, continues, value, next_value, lam), expected - value)
    sums = returns.lambda_returns(reward, np.ones(4, np.float32), continues, np.zeros(4, np.float32), 1.0)
    np.testing.assert_array_equal(sums, [3, 2, 12, 8])  # Monte Carlo


@pytest.mark.parametrize("end", [0.0, 0.2])
def test_without_truncations_all_are_rlaxs(end):
    f = fragment(end=end, truncations=False)
    reward, discount, value, next_value = (jnp.asarray(f[k]) for k in ("reward", "discount", "value", "next_value"))
    # rlax has one sequence of values: where an episode ends the discount is 0 and the value does not matter
    v_t = jnp.where(jnp.asarray(f["discount"]) > 0, next_value, jnp.concatenate([value[1:], next_value[-1:]]))
    values, rho = jnp.concatenate([value[:1], v_t]), jnp.exp(f["log_rho"])
    batch = partial(jax.vmap, in_axes=(1, 1, 1, None), out_axes=1)
    for n in (1, 3, 12):
        oracle = batch(lambda r, d, v, _, n=n: rlax.n_step_bootstrapped_returns(r, d, v, n))
        near(returns.n_step_returns(*(f[k] for k in STEPS), n), oracle(reward, discount, v_t, None))
    lambda_returns = jax.jit(batch(rlax.lambda_returns))
    gae = jax.jit(batch(lambda r, d, v, lam: rlax.truncated_generalized_advantage_estimation(r, d, lam, v)))
    vtrace = jax.jit(jax.vmap(rlax.vtrace_td_error_and_advantage, (1, 1, 1, 1, 1, None, None, None), 1))
    for lam in (0.0, 0.8, 1.0):
        near(returns.lambda_returns(*(f[k] for k in STEPS), lam), lambda_returns(reward, discount, v_t, lam))
        near(returns.gae(*(f[k] for k in VALUES), lam), gae(reward, discount, values, lam))
        for clip_rho, clip_pg_rho in (1.0, 1.0), (1.5, 0.7):
            expected = vtrace(value, v_t, reward, discount, rho, lam, clip_rho, clip_pg_rho)
            target, advantage = returns.vtrace(*(f[k] for k in VALUES), f["log_rho"], lam, clip_rho, 1.0, clip_pg_rho)
            near(target, value + expected.errors)
            near(advantage, expected.pg_advantage)


def test_on_policy_vtrace_is_the_lambda_return_and_its_advantage_gae():
    f = fragment()
    for lam in (0.0, 0.8, 1.0):
        target, advantage = returns.vtrace(*(f[k] for k in VALUES), np.zeros_like(f["reward"]), lam)
        near(target, returns.lambda_returns(*(f[k] for k in STEPS), lam))
        near(advantage, returns.gae(*(f[k] for k in VALUES), lam))


@pytest.mark.parametrize("clip_rho", [0.5, 1.0, 100.0])
def test_the_fixed_point_of_vtrace_is_the_value_of_the_clipped_policy(clip_rho):
    gamma, pi, mu = 0.8, np.array([[0.9, 0.1], [0.3, 0.7]]), np.array([[0.4, 0.6], [0.5, 0.5]])
    successor, paid = np.array([[0, 1], [1, 0]]), np.array([[1.0, -2.0], [0.5, 3.0]])  # of state and action
    clipped = np.minimum(clip_rho * mu, pi)
    clipped /= clipped.sum(1, keepdims=True)
    moves = np.einsum("sa,sat->st", clipped, np.eye(2)[successor])
    fixed = np.linalg.solve(np.eye(2) - gamma * moves, (clipped * paid).sum(1))
    # every way to act for four steps from either state, with its probability under mu: the expectation is exact
    action = np.array(np.meshgrid(*[[0, 1]] * 4, indexing="ij")).reshape(4, 16).repeat(2, 1)
    state = np.zeros((5, 32), int)
    state[0] = np.tile([0, 1], 16)
    for t in range(4):
        state[t + 1] = successor[state[t], action[t]]
    probability = mu[state[:-1], action].prod(0)
    log_rho = np.log(pi / mu)[state[:-1], action].astype(np.float32)
    reward = paid[state[:-1], action].astype(np.float32)
    continues = np.array([True, True, False, True])[:, None].repeat(32, 1)  # a truncation does not move it either

    @jax.jit
    def operator(v):
        target, _ = returns.vtrace(reward, jnp.full_like(reward, gamma), continues, v[state[:-1]], v[state[1:]], log_rho,
                                   0.9, clip_rho, 0.8)
        return jnp.stack([(probability * target[0])[state[0] == s].sum() for s in (0, 1)])

    near(operator(jnp.float32(fixed)), fixed)
    v = jnp.zeros(2)
    for _ in range(100):
        v = operator(v)
    near(v, fixed)


@each_method
def test_a_truncation_inside_gives_what_two_fragments_give(method):
    f = fragment()
    f["continues"][6] = False
    whole = METHODS[method](f)
    for says in (False, True):  # of a last row it does not matter
        first, second = ({k: x[part].copy() for k, x in f.items()} for part in (slice(7), slice(7, None)))
        first["continues"][-1] = second["continues"][-1] = says
        np.testing.assert_array_equal(whole, np.concatenate([METHODS[method](first), METHODS[method](second)]))


@each_method
def test_gradients_reach_the_rest_of_the_episode_and_nothing_else(method):
    f = fragment()
    of_column = lambda f: jax.jacobian(lambda reward: METHODS[method](f | {"reward": reward}))(f["reward"])  # noqa: E731
    reached = jax.jit(jax.vmap(of_column, 1, 1))(f) != 0  # [return, column, reward]
    ahead = np.arange(12) - np.arange(12)[:, None, None]
    reach = np.minimum(steps_left(f["continues"]), 3 if method == "n_step" else 12)
    np.testing.assert_array_equal(reached, (ahead >= 0) & (ahead < reach[..., None]))


@each_method
def test_jit_vmap_and_strict_promotion_change_nothing(method):
    f = fragment()
    expected = METHODS[method](f)
    wide = {k: x.reshape(12, 4, 8) for k, x in f.items()}
    with jax.numpy_dtype_promotion("strict"):
        for got in (jax.jit(METHODS[method])(f), jax.vmap(METHODS[method], 1, 1)(f), METHODS[method](wide).reshape(12, 32)):
            assert got.dtype == jnp.float32
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


def test_one_lambda_a_member_of_a_population():
    f, lams = fragment(), jnp.array([0.0, 0.8, 1.0])
    for name, run in {
        "lambda": lambda lam: returns.lambda_returns(*(f[k] for k in STEPS), lam),
        "gae": lambda lam: returns.gae(*(f[k] for k in VALUES), lam),
        "vtrace_target": lambda lam: returns.vtrace(*(f[k] for k in VALUES), f["log_rho"], lam, 1.5, 1.2, 0.7)[0],
    }.items():
        got = jax.jit(jax.vmap(run))(lams)
        np.testing.assert_allclose(got[1], METHODS[name](f), rtol=1e-5, atol=1e-5)


def test_a_hopeless_action_cuts_the_trace_and_a_certain_one_is_clipped():
    f = fragment(width=8)
    for log_rho, rho in (-np.inf, 0.0), (1e4, 1.0):  # exp overflows
        target, advantage = returns.vtrace(*(f[k] for k in VALUES), np.full_like(f["reward"], log_rho))
        near(target, f["value"] + rho * returns.gae(*(f[k] for k in VALUES), 1.0))
        near(advantage, rho * returns.gae(*(f[k] for k in VALUES), 1.0))


def test_steps_and_fragments_have_the_same_n_step_returns():
    f, n = fragment(), 4
    reward, terminated, done, next_value = f["reward"], f["discount"] == 0, ~f["continues"], f["next_value"]
    whole, transition = returns.n_step_returns(*(f[k] for k in STEPS), n), jax.jit(returns.n_step_transition)
    for t in range(len(reward)):
        index = np.minimum(np.arange(t, t + n), len(reward) - 1)
        available = jnp.broadcast_to((np.arange(t, t + n) < len(reward))[:, None], (n, 32))
        total, left, last = transition(reward[index], terminated[index], done[index], available, 0.9)
        near(total + left * next_value[t + last, np.arange(32)], whole[t])


@each_method
@pytest.mark.parametrize("name", ["next_value", "continues"])
def test_an_array_that_would_be_broadcast_is_refused(method, name):
    with pytest.raises(AssertionError, match="shape"):
        METHODS[method](fragment() | {name: fragment()[name][:, :1]})
