"""Distributions over the actions of spaces, against distrax, scipy, enumeration and integrals; draws follow them."""

import functools
import itertools

import distrax
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from scipy import integrate, special, stats
from tools import jit

from jaxdl.core.errors import EnvError, UserError
from jaxdl.rl import actions

DISCRETE = {"one": Discrete(4, start=-3), "equal": MultiDiscrete([3, 3], start=[2, -1]), "unequal": MultiDiscrete([3, 1, 5]),
            "two axes": MultiDiscrete([[2, 3], [4, 1]], start=[[1, -2], [0, 7]], dtype=np.int8),
            "binary": MultiBinary(3), "binary, two axes": MultiBinary((2, 2))}
LOW, HIGH = np.float32([[-1.0, 0.0], [-2.0, 5.0]]), np.float32([[1.0, 0.5], [3.0, 9.0]])
BOX = Box(LOW, HIGH)
N = 20_000


plain = functools.partial(actions.for_space, env_id="Some-v0")


def of(space, squash=False):
    """Its functions, compiled."""
    made = plain(space, squash=squash)
    return made._replace(**{name: jit(getattr(made, name)) for name in ("sample", "log_prob", "entropy", "mode", "to_env")},
                         noise=jit(made.noise, static_argnums=1))


MADE = {name: of(space) for name, space in DISCRETE.items()} | {"clipped": of(BOX), "squashed": of(BOX, squash=True)}
SPACES = DISCRETE | {"clipped": BOX, "squashed": BOX}
PLAIN = {name: plain(space, squash=name == "squashed") for name, space in SPACES.items()}  # to be transformed


def draw(made, key, params):
    """An action for each row of parameters."""
    return made.sample(made.noise(key, params.shape[:-1]), params)


def params_of(name, lead=(), seed=0, scale=1.0):
    made = MADE[name]
    return jnp.asarray(scale * np.random.default_rng(seed).normal(size=(*lead, made.size + made.free)), jnp.float32)


def sizes_of(space):
    if isinstance(space, Discrete):
        return [int(space.n)]
    return [2] * int(np.prod(space.shape)) if isinstance(space, MultiBinary) else space.nvec.reshape(-1).tolist()


def every(name):
    """All actions [N, *shape], and where they are in the product of the components [N, M]."""
    index = np.array(list(itertools.product(*map(range, sizes_of(SPACES[name])))), np.int32)
    return index.reshape(-1, *SPACES[name].shape), index


def log_probs(name, params):
    """Of all actions, in float64 by scipy: a sum over components."""
    sizes = sizes_of(SPACES[name])
    parts = [special.log_softmax(p) for p in np.split(np.float64(params), np.cumsum(sizes)[:-1])]
    return sum(part[i] for part, i in zip(parts, every(name)[1].T, strict=True))


def draws(name, params, n=N, seed=1):
    """Draws [n, *shape] and their parameters [n, P]."""
    params = jnp.tile(params, (n, 1))
    return draw(MADE[name], jax.random.key(seed), params), params


# --- What there is.


def test_a_box_has_means_from_the_network_and_free_log_stds_and_the_others_have_logits():
    sizes = {name: (made.size, made.free) for name, made in MADE.items()}
    assert sizes == {"one": (4, 0), "equal": (6, 0), "unequal": (9, 0), "two axes": (10, 0), "binary": (6, 0),
                     "binary, two axes": (8, 0), "clipped": (4, 4), "squashed": (4, 4)}


@pytest.mark.parametrize("name", MADE)
def test_leading_axes_are_rows_and_half_precision_is_widened(name):
    made, shape = MADE[name], SPACES[name].shape
    params = params_of(name, (3, 2))
    action = draw(made, jax.random.key(0), params)
    best, log_prob, entropy = made.mode(params), made.log_prob(params, action), made.entropy(params)
    assert action.shape == best.shape == made.to_env(action).shape == (3, 2, *shape)
    assert log_prob.shape == entropy.shape == (3, 2)
    assert action.dtype == best.dtype == (jnp.int32 if name in DISCRETE else jnp.float32)
    one = PLAIN[name]
    rows = jit(jax.vmap(jax.vmap(
        lambda p, a: (one.mode(p), one.log_prob(p, a), one.entropy(p), one.to_env(a)))))(params, action)
    for got, row in zip((best, log_prob, entropy, made.to_env(action)), rows, strict=True):
        np.testing.assert_allclose(got, row, rtol=1e-5, atol=1e-6)
    half = params.astype(jnp.bfloat16)
    wide = half.astype(jnp.float32)
    np.testing.assert_array_equal(draw(made, jax.random.key(0), half), draw(made, jax.random.key(0), wide))
    for got, there in ((made.log_prob(half, action), made.log_prob(wide, action)), (made.entropy(half), made.entropy(wide))):
        assert got.dtype == jnp.float32
        np.testing.assert_array_equal(got, there)


# --- Categoricals, against all of their actions.


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_probabilities_entropy_and_mode_are_those_of_an_enumeration(name):
    made, params = MADE[name], params_of(name, scale=1.5)
    action, expected = every(name)[0], log_probs(name, params)
    log_prob = made.log_prob(jnp.tile(params, (len(action), 1)), action)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.exp(np.float64(log_prob)).sum(), 1, rtol=1e-5)
    np.testing.assert_allclose(made.entropy(params), -(np.exp(expected) * expected).sum(), rtol=1e-5)
    np.testing.assert_array_equal(made.mode(params), action[expected.argmax()])
    if name == "one":
        np.testing.assert_allclose(log_prob, distrax.Categorical(params).log_prob(action), rtol=1e-5)


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_draws_come_as_often_as_they_should(name):
    params = params_of(name)
    drawn, _ = draws(name, params)
    place = np.ravel_multi_index(np.asarray(drawn).reshape(N, -1).T, sizes_of(SPACES[name]))  # raises where out of range
    count, expected = np.bincount(place, minlength=len(every(name)[0])), N * np.exp(log_probs(name, params))
    assert expected.min() > 5
    assert stats.chisquare(count, expected * count.sum() / expected.sum()).pvalue > 1e-4


def test_many_classes_come_as_often_as_they_should():
    made, logits = of(Discrete(300)), jnp.linspace(-3.0, 1.0, 300)
    drawn = draw(made, jax.random.key(0), jnp.tile(logits, (N, 1)))
    expected = N * special.softmax(np.float64(logits)).reshape(60, 5).sum(-1)
    assert stats.chisquare(np.bincount(drawn // 5, minlength=60), expected).pvalue > 1e-4


def test_a_class_without_probability_never_comes_whatever_noise_was_drawn():
    rng, made = np.random.default_rng(0), of(Discrete(13))
    noise = np.asarray(made.noise(jax.random.key(0), (N,)))
    least, most = -4.5, 17.0  # -log(-log(u)) of the float32 numbers next to 0 and to 1
    assert least < noise.min() < -2
    assert 10 < noise.max() < most
    out = rng.random((N, 13)) < 0.5
    out[np.arange(N), rng.integers(0, 13, N)] = False
    logits = np.where(out, rng.choice([-np.inf, -1e4], (N, 13)), rng.normal(size=(N, 13))).astype(np.float32)
    for chance in (noise, np.where(out, most, least).astype(np.float32)[:, None]):
        assert not out[np.arange(N), made.sample(chance, logits)].any()


def test_a_class_that_is_ruled_out_leaves_all_to_the_others():
    made = MADE["unequal"]
    params = params_of("unequal").at[jnp.array([1, 8])].set(-jnp.inf)
    action, expected = every("unequal")[0], log_probs("unequal", params)
    np.testing.assert_allclose(made.log_prob(jnp.tile(params, (len(action), 1)), action), expected, rtol=1e-5, atol=1e-6)
    left = expected > -np.inf
    np.testing.assert_allclose(made.entropy(params), -(np.exp(expected[left]) * expected[left]).sum(), rtol=1e-5)
    for grad in (jit(jax.grad(PLAIN["unequal"].entropy))(params),
                 jit(jax.grad(PLAIN["unequal"].log_prob))(params, jnp.array([0, 0, 0]))):
        assert np.isfinite(grad).all()


# --- Gaussians.


def test_gaussian_log_prob_and_entropy_are_those_of_distrax_and_scipy():
    made, params = MADE["clipped"], params_of("clipped", (5, 3))
    mean, std = params[..., :4], jnp.exp(params[..., 4:])
    action = np.random.default_rng(1).normal(size=(5, 3, 2, 2)).astype(np.float32) * 2
    theirs, flat = distrax.MultivariateNormalDiag(mean, std), action.reshape(5, 3, 4)
    np.testing.assert_allclose(made.log_prob(params, action), theirs.log_prob(flat), rtol=1e-5)
    np.testing.assert_allclose(made.log_prob(params, action), stats.norm(mean, std).logpdf(flat).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(made.entropy(params), theirs.entropy(), rtol=1e-5)
    np.testing.assert_array_equal(made.mode(params), mean.reshape(5, 3, 2, 2))


@pytest.mark.parametrize("name", ["clipped", "squashed"])
def test_gaussian_draws_are_normal_and_independent(name):
    params = params_of(name)
    drawn = np.float64(draws(name, params)[0]).reshape(N, 4)
    z = (drawn - params[:4]) / np.exp(np.float64(params[4:]))
    for i in range(4):
        assert stats.kstest(z[:, i], stats.norm.cdf).pvalue > 1e-4
    np.testing.assert_allclose(np.corrcoef(z.T), np.eye(4), atol=4.5 / np.sqrt(N))


def test_squashed_log_prob_is_that_of_distrax_for_what_the_environment_gets():
    made, params = MADE["squashed"], 0.5 * params_of("squashed", (50,))
    action = draw(made, jax.random.key(0), params)
    scale = (HIGH - LOW).reshape(-1) / 2
    theirs = distrax.Transformed(
        distrax.MultivariateNormalDiag(params[:, :4], jnp.exp(params[:, 4:])),
        distrax.Block(distrax.Chain([distrax.ScalarAffine(LOW.reshape(-1) + scale, scale), distrax.Tanh()]), 1))
    u = np.float64(action).reshape(-1, 4)
    inside = np.abs(u).max(-1) < 2  # theirs needs the inverse of tanh
    assert inside.sum() > 20
    expected = theirs.log_prob(made.to_env(action).reshape(-1, 4))
    np.testing.assert_allclose(made.log_prob(params, action)[inside], expected[inside], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(made.to_env(made.mode(params)).reshape(-1, 4),
                               LOW.reshape(-1) + scale * (np.tanh(params[:, :4]) + 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.3), (0.5, 1.0), (-1.0, 2.0)])
def test_the_squashed_density_integrates_to_1_and_gives_the_draws(mean, std):
    made, params = of(Box(-2.0, 5.0, (1,)), squash=True), jnp.array([mean, np.log(std)], jnp.float32)
    u = np.linspace(mean - 7 * std, mean + 7 * std, 4001)
    a = -2 + 7 * special.expit(2 * u)  # the environment's actions, a grid that is finer near the bounds
    density = np.exp(made.log_prob(jnp.tile(params, (len(u), 1)), u[:, None].astype(np.float32)), dtype=np.float64)
    cdf = integrate.cumulative_trapezoid(density, a, initial=0)
    np.testing.assert_allclose(cdf[-1], 1, atol=1e-3)
    drawn = made.to_env(draw(made, jax.random.key(3), jnp.tile(params, (N, 1))))[:, 0]
    assert stats.kstest(drawn, lambda x: np.interp(x, a, cdf)).pvalue > 1e-4


@pytest.mark.parametrize(("std", "value", "slope"), [
    (0.01, 5e-6, 5e-6), (0.5, 5e-6, 5e-6), (2.0, 5e-6, 5e-6), (3.0, 3e-5, 3e-4), (5.0, 1.2e-3, 0.015), (7.4, 9e-3, 0.09)])
def test_the_squashed_entropy_and_its_gradient_are_as_exact_as_is_said(std, value, slope):
    entropy, mean = plain(Box(-2.0, 5.0, ()), squash=True).entropy, np.linspace(-5, 5, 41)
    params = jnp.stack([jnp.asarray(mean, jnp.float32), jnp.full(41, np.log(std), jnp.float32)], -1)
    mean, std = np.float64(params[:, :1]), np.exp(np.float64(params[0, 1]))
    z = np.linspace(-12, 12, 20_001)
    weight = stats.norm.pdf(z) * (z[1] - z[0])
    u = mean + std * z
    log_slope = 2 * (np.log(2) - np.logaddexp(u, -u))
    expected = stats.norm(0, std).entropy() + np.log(3.5) + log_slope @ weight
    d_mean, d_log_std = (-2 * np.tanh(u)) @ weight, 1 + (-2 * np.tanh(u) * std * z) @ weight
    rounding = 4 * 2.0**-23 * np.abs(expected).max()  # of float32
    got, grad = jit(jax.vmap(jax.value_and_grad(entropy)))(params)
    np.testing.assert_allclose(got, expected, atol=value + rounding, rtol=0)
    np.testing.assert_allclose(grad, np.stack([d_mean, d_log_std], -1), atol=slope + rounding, rtol=0)


# --- What is true of all of them.


@pytest.mark.parametrize("name", MADE)
def test_entropy_is_the_mean_of_minus_log_prob_and_the_score_has_mean_zero(name):
    params = 0.5 * params_of(name)
    drawn, tiled = draws(name, params)
    log_prob, score = jit(jax.vmap(jax.value_and_grad(PLAIN[name].log_prob)))(tiled, drawn)
    log_prob, score = np.float64(log_prob), np.float64(score)
    assert abs(log_prob.mean() + MADE[name].entropy(params)) < 4.5 * log_prob.std() / np.sqrt(N) + 1e-5
    assert (np.abs(score.mean(0)) < 4.5 * score.std(0) / np.sqrt(N) + 1e-6).all()
    assert (score.std(0) > 0.1).any()


@pytest.mark.parametrize("name", MADE)
def test_gradients_are_those_of_finite_differences(name):
    made, params = PLAIN[name], params_of(name)
    action = draw(MADE[name], jax.random.key(2), params)
    step = 2e-2 * np.eye(len(params), dtype=np.float32)
    for f in (made.entropy, lambda p: made.log_prob(p, action)):
        grad, up, down = jit(lambda p, f=f: (jax.grad(f)(p), jax.vmap(f)(p + step), jax.vmap(f)(p - step)))(params)
        np.testing.assert_allclose(grad, (up - down) / 4e-2, rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize("name", MADE)
def test_gradients_are_finite_at_extreme_parameters(name):
    made = PLAIN[name]
    if name in DISCRETE:
        params = np.tile(np.float32([1e4, 0.0]), made.size)[:made.size] * np.float32([[1], [-1], [0]])
        action = np.zeros((3, *SPACES[name].shape), np.int32)
    else:
        rows = np.array(list(itertools.product([0, 50.0, -50.0], [-20.0, 0.0, 5.0], [0, 50.0, -50.0])), np.float32)
        params = np.concatenate([np.tile(rows[:, :1], 4), np.tile(rows[:, 1:2], 4)], -1)
        action = np.tile(rows[:, 2:], 4).reshape(-1, 2, 2)
    numbers = jit(jax.vmap(lambda p, a: (jax.value_and_grad(made.log_prob, (0, 1) if name not in DISCRETE else 0)(p, a),
                                         jax.value_and_grad(made.entropy)(p))))(params, action)
    for x in jax.tree.leaves(numbers):
        assert np.isfinite(x).all()


def test_draws_of_a_box_are_reparameterized():
    made, key, params = PLAIN["squashed"], jax.random.key(0), params_of("squashed")
    u = draw(MADE["squashed"], key, params).reshape(-1)
    grad = jit(jax.jacobian(lambda p: draw(made, key, p).reshape(-1)))(params)
    np.testing.assert_allclose(grad, np.concatenate([np.eye(4), np.diag(u - params[:4])], -1), rtol=1e-4, atol=1e-6)


# --- What the environment takes.


@pytest.mark.parametrize("name", DISCRETE)
def test_every_action_of_the_space_is_some_action_of_the_policy(name):
    space, taken = SPACES[name], np.asarray(MADE[name].to_env(every(name)[0]))
    assert taken.dtype == jax.dtypes.canonicalize_dtype(space.dtype)
    start = getattr(space, "start", np.zeros(space.shape, int))
    np.testing.assert_array_equal(taken, every(name)[0] + start)
    for action in taken:
        assert space.contains(action[()])


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("space", [
    BOX, Box(-1.0, 1.0, ()), Box(0.1, 0.3, (3,), np.float64), Box(-0.3, -0.1, (3,), np.float64),
    Box(-0.1, 0.7, (2,), np.float16), Box(-3e38, 3e38, (1,))], ids=str)
def test_box_actions_reach_the_bounds_and_never_leave_them(space, squash):
    made = of(space, squash)
    u = np.concatenate([np.random.default_rng(0).normal(size=500), [50.0, -50.0]])[:, None] * np.ones(made.size)
    action = np.asarray(made.to_env(u.reshape(-1, *space.shape).astype(np.float32)))
    assert action.dtype == jax.dtypes.canonicalize_dtype(space.dtype)
    for a in action:
        assert space.contains(a if space.shape else np.asarray(a))
    if squash or np.all(space.high < 50):
        np.testing.assert_allclose(action[-2:], [space.high, space.low], rtol=1e-6)


def test_a_clipped_action_within_bounds_is_left_alone_and_so_is_a_side_without():
    space = Box(np.float32([-1, -np.inf, -1, -np.inf]), np.float32([1, 1, np.inf, np.inf]))
    action = np.float32([[-9, -9, -9, -9], [9, 9, 9, 9], [0.5, 0.25, -0.5, 0]])
    np.testing.assert_array_equal(of(space).to_env(action), [[-1, -9, -1, -9], [1, 1, 9, 9], [0.5, 0.25, -0.5, 0]])


def test_a_squashed_action_is_tanh_scaled_to_the_bounds():
    u = np.linspace(-4, 4, 9, dtype=np.float32)[:, None, None] * np.ones((2, 2), np.float32)
    np.testing.assert_allclose(MADE["squashed"].to_env(u), LOW + (HIGH - LOW) * (np.tanh(u) + 1) / 2, rtol=1e-5, atol=1e-6)


# --- Mistakes.


@pytest.mark.parametrize("space", [
    Box(0, 255, (2,), np.uint8), gymnasium.spaces.Dict(a=Discrete(2)), gymnasium.spaces.Tuple([Discrete(2)]),
    gymnasium.spaces.Text(3), gymnasium.spaces.Graph(Discrete(2), None), gymnasium.spaces.Sequence(Discrete(2))], ids=str)
def test_other_spaces_are_refused(space):
    with pytest.raises(EnvError) as error:
        plain(space, squash=True)
    assert str(error.value) == ("a policy acts in Discrete, MultiDiscrete, MultiBinary or Box of floating-point numbers, and "
                                f"Some-v0 has {space}")


@pytest.mark.parametrize(("space", "squash", "kind", "message"), [
    (Discrete(2), True, UserError, "squash is for Box actions, and Some-v0 has Discrete(2); use squash=False"),
    (MultiBinary(2), True, UserError, "squash is for Box actions, and Some-v0 has MultiBinary(2); use squash=False"),
    *((space, True, UserError, "squash needs finite bounds, the low ones below the high ones, and Some-v0 has "
       f"{space}; use squash=False") for space in (Box(-np.inf, 1, (2,)), Box(-1, np.inf, (2,)), Box(1, 1, (2,)))),
    (Box(-1, 1, (0,)), False, EnvError,
     "a policy needs actions that are not empty, and Some-v0 has Box([], [], (0,), float32)"),
    (Discrete(2, start=2**31 - 1), False, EnvError,
     "Some-v0 has actions beyond int32, Discrete(2, start=2147483647); count them from 0 in a wrapper (gymnasium.wrappers."
     "TransformAction adds the rest)")])
def test_what_cannot_be_done_is_refused_with_a_way_out(space, squash, kind, message):
    with pytest.raises(kind) as error:
        plain(space, squash=squash)
    assert str(error.value) == message


def test_the_largest_integers_that_jax_holds_are_taken():
    np.testing.assert_array_equal(of(Discrete(2, start=2**31 - 2)).to_env(jnp.array([0, 1])), [2**31 - 2, 2**31 - 1])


@pytest.mark.parametrize("name", MADE)
def test_the_divergence_is_the_mean_difference_of_log_probabilities(name):
    made, (params, others) = MADE[name], (params_of(name, seed=seed) for seed in (3, 4))
    if name in DISCRETE:
        log_p, log_q = log_probs(name, params), log_probs(name, others)
        expected, tolerance = (np.exp(log_p) * (log_p - log_q)).sum(), 1e-4
    else:
        drawn = draw(made, jax.random.key(0), jnp.tile(params, (N, 1)))
        difference = jax.vmap(PLAIN[name].log_prob, (None, 0))(params, drawn) - jax.vmap(PLAIN[name].log_prob, (None, 0))(
            others, drawn)
        expected, tolerance = difference.mean(), 0.05
    assert made.divergence(params, others) == pytest.approx(float(expected), rel=tolerance)
    assert made.divergence(params, params) == pytest.approx(0, abs=1e-6)
    grad = jax.grad(PLAIN[name].divergence)(params, others)
    assert np.isfinite(grad).all()
