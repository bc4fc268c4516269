"""Captions: gradients of drawn places and drawn words against exact ones, ways to write, and that all ways of looking learn."""

import functools
import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import assert_close, jit, random_like
from toy_scenes import read

from jaxdl.core.types import ArraySpec, DataSpec, Mean
from jaxdl.data.annotated import Annotated
from jaxdl.ops import captions
from jaxdl.optim import Config as OptimConfig
from jaxdl.supervised import captioner, vision
from jaxdl.supervised.caption_network import CaptionNetwork
from jaxdl.supervised.captioner import Config
from jaxdl.supervised.networks import Variables

V, L, B = 3, 2, 3  # words, of which 0 ends a caption of two at most
SPEC = DataSpec("tiny", 100, (4, 4, 1), vocabulary=("", "a", "b"), arrays=(ArraySpec("words.captions", (1, L), "uint8"),),
                input="images")
IMAGES = np.uint8(np.random.default_rng(0).integers(0, 256, (B, 4, 4, 1)))
CAPTIONS = np.array([[1, 2], [2, 0], [2, 2]])
EVERY = np.array(list(itertools.product(range(V), repeat=L)))  # texts; those that go on after an end are none
EVERY = EVERY[~((EVERY[:, 0] == 0) & (EVERY[:, 1] > 0))]
LOOKS = ("first_state", "each_step", "soft", "hard")
SGD = OptimConfig(optimizer="sgd", learning_rate=1.0, schedule="constant", max_grad_norm=None)


def config(**how):
    return Config(**{"cell": "gru", "hidden_size": 4, "embedding_size": 3, "channels": (2,), "norm": "none", "batch_size": B,
                     "total_steps": 10, "ema_decay": None, "optim": SGD} | how)


def batch_of(captions=CAPTIONS):
    return Annotated(IMAGES, None, None, None, None, None, SimpleNamespace(captions=np.uint8(captions)[:, None]))


jax.tree_util.register_pytree_node(SimpleNamespace, lambda x: ((x.captions,), None),
                                   lambda _, leaves: SimpleNamespace(captions=leaves[0]))


@functools.cache
def made(look, **how):
    """The model, its network, and a state with weights of which none is zero."""
    settings = config(look=look, **how)
    model = captioner.make(settings, SPEC)
    network = CaptionNetwork(look, V, settings.cell, 4, 3, (2,), None, "relu")
    state = jit(model.learner.init)(jax.random.key(0))
    params = jax.tree.map(lambda x: 1.5 * x, random_like(state.learner.params, 3))
    return model, network, state._replace(learner=state.learner._replace(params=params))


def chances(network, params, words, places=None):
    """Logarithms of p of texts [S, L] given places [S, L], and of the places, for each picture: [S, B] each."""
    state, memory = network.apply(params, vision.as_numbers(jnp.asarray(IMAGES)), method="encode")

    def of_one(words, places):
        now, last, of_words, of_places, ended = state, 0, jnp.zeros(B), jnp.zeros(B), False
        for t in range(L):
            chosen = SimpleNamespace(categorical=lambda key, score: jnp.full(B, places[t]))  # noqa: B023
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("jax.random.categorical", chosen.categorical)
                now, logits, seen = network.apply(params, now, memory, jnp.full(B, last),
                                                  None if places is None else jax.random.key(0), method="step")
            of_words += jnp.where(ended, 0, jax.nn.log_softmax(logits)[:, words[t]])
            if places is not None:
                of_places += jnp.log(seen.shares[:, places[t]])  # of what is after an end too: they sum to 1
            last, ended = words[t], ended | (words[t] == 0)
        return of_words, of_places

    return jax.vmap(of_one, (0, None if places is None else 0))(words, places)


def flat(tree):
    """All gradients but those of the value, which learns by a loss of its own."""
    return np.concatenate([np.asarray(x).reshape(*x.shape[:1], -1) for path, x in
                           jax.tree_util.tree_leaves_with_path(tree) if "value" not in jax.tree_util.keystr(path)], -1)


def drawn_gradients(model, state, num=10_000):
    def grad(key):
        new = model.learner.update(state, batch_of(), key)[0].learner.params
        return jax.tree.map(jnp.subtract, state.learner.params, new)

    return flat(jit(jax.vmap(grad))(jax.random.split(jax.random.key(1), num)))


def assert_mean(found, exact):
    error = found.std(0) / len(found) ** 0.5
    assert np.linalg.norm(error) < 0.1 * np.linalg.norm(exact)
    assert np.all(np.abs(found.mean(0) - exact) < 4.5 * error + 1e-3 * np.linalg.norm(exact))


PLACES = np.array(list(itertools.product(range(4), repeat=L)))


@functools.cache
def gradient_of_bound():
    """Of -sum_s p(s) log p(y | s), by going through all places of all steps."""
    _, network, state = made("hard", baseline="value", entropy_coef=0.0)

    def bound(params):
        def of(text, i):
            of_words, of_places = chances(network, params, jnp.tile(text, (len(PLACES), 1)), jnp.asarray(PLACES))
            return (jnp.exp(of_places) * of_words).sum(0)[i]

        return -sum(of(jnp.asarray(text), i) for i, text in enumerate(CAPTIONS)) / B

    grad = jit(jax.grad(bound))(state.learner.params)
    return flat(jax.tree.map(lambda x: x[None], grad))[0]


@pytest.mark.parametrize(("baseline", "draws"), [("none", 1), ("constant", 1), ("leave_one_out", 3), ("leave_one_out", 1),
                                                 ("value", 1)])
def test_the_mean_gradient_of_drawn_places_is_that_of_the_bound(baseline, draws):
    model, _, state = made("hard", baseline=baseline, draws=draws, entropy_coef=0.0)
    if baseline == "constant":
        state = state._replace(rewards=Mean(jnp.float32(-3.0), jnp.float32(2.0)))
    assert_mean(drawn_gradients(model, state), gradient_of_bound())


@pytest.mark.parametrize("look", ["soft", "hard"])
def test_the_mean_gradient_of_drawn_captions_is_that_of_their_worth(look):
    """Of -E[CIDEr-D], through all texts and, where places are drawn too, all places."""
    model, network, state = made(look, self_critical=0.0, **({"draws": 1, "baseline": "none"} if look == "hard" else {}))
    state = state._replace(pictures=jnp.float32(20.0))
    if look == "hard":
        strong = jax.tree.map(lambda x: 2.5 * x, random_like(state.learner.params, 37))  # the worth depends much on places
        state = state._replace(learner=state.learner._replace(params=strong))
    grams, own = captions.ngrams(jnp.asarray(CAPTIONS)[:, None]), captions.ngrams(jnp.asarray(EVERY))
    rare = np.log(20.0)
    worth = np.array([[captions.cider(o, jnp.full(o.shape, rare), g, jnp.full(g.shape, rare)) for g in grams] for o in own])
    assert np.ptp(worth, 0).min() > 1

    def expected(params):
        if look == "soft":
            return -(jnp.exp(chances(network, params, jnp.asarray(EVERY))[0]) * worth).sum(0).mean()
        texts, places = (np.repeat(EVERY, len(PLACES), 0), np.tile(PLACES, (len(EVERY), 1)))
        of_words, of_places = chances(network, params, jnp.asarray(texts), jnp.asarray(places))
        return -(jnp.exp(of_words + of_places) * np.repeat(worth, len(PLACES), 0)).sum(0).mean()

    exact = flat(jax.tree.map(lambda x: x[None], jit(jax.grad(expected))(state.learner.params)))[0]
    assert_mean(drawn_gradients(model, state), exact)


@pytest.mark.parametrize("look", ["soft", "hard"])
def test_a_drawn_caption_that_is_the_greedy_one_teaches_nothing(look):
    model, _, state = made(look, self_critical=0.0, **({"draws": 1, "baseline": "none"} if look == "hard" else {}))
    params = state.learner.params
    params = {"params": params["params"] | {"head": {"kernel": 0 * params["params"]["head"]["kernel"],
                                                     "bias": jnp.array([0.0, 60.0, 0.0])}}}
    state = state._replace(learner=state.learner._replace(params=params), pictures=jnp.float32(20.0))
    new, result = jit(model.learner.update)(state, batch_of(), jax.random.key(0))
    assert float(result.metrics["cider"].total) == float(result.metrics["cider_drawn"].total) > 0
    assert all((a == b).all() for a, b in zip(*map(jax.tree.leaves, (new.learner.params, params)), strict=True))
    assert float(new.pictures) == 20 + B
    assert float(new.table.sum()) == 3 + 1 + 2  # n-grams of each picture: a, b, a b; b; b, b b


def test_the_loss_changes_when_its_share_of_the_run_is_over():
    model, _, state = made("soft", self_critical=0.5)
    update = jit(model.learner.update)
    early, late = (update(state._replace(learner=state.learner._replace(count=jnp.int32(count))), batch_of(), jax.random.key(0)
                          )[1].metrics for count in (4, 5))
    assert float(early["nll"].count) == 6
    assert float(early["cider"].count) == 0 == float(late["nll"].count)
    assert float(late["cider"].count) == B


@pytest.mark.parametrize("look", LOOKS)
def test_what_is_told_at_once_is_told_step_by_step(look):
    model, network, state = made(look, **({"draws": 1, "baseline": "none"} if look == "hard" else {}))
    variables = Variables(state.learner.params, {})
    nats, num = jit(model.nll)(variables, IMAGES, CAPTIONS)
    np.testing.assert_array_equal(num, [2, 2, 2])
    if look == "hard":  # the likeliest place
        now, memory = network.apply(state.learner.params, vision.as_numbers(jnp.asarray(IMAGES)), method="encode")
        last, expected = jnp.zeros(B, jnp.int32), 0
        for t in range(L):
            now, logits, seen = network.apply(state.learner.params, now, memory, last, method="step")
            assert (seen.place == seen.shares.argmax(-1)).all()
            expected -= jnp.take_along_axis(jax.nn.log_softmax(logits), CAPTIONS[:, t : t + 1], 1)[:, 0]
            last = jnp.asarray(CAPTIONS[:, t])
        return assert_close(nats, expected, 1e-5, 1e-5)
    of_words = chances(network, state.learner.params, jnp.asarray(CAPTIONS))[0]
    return assert_close(nats, -jnp.diag(of_words), 1e-5, 1e-5)


def test_soft_attention_is_the_formula():
    model, network, state = made("soft")
    p = jax.tree.map(np.asarray, state.learner.params["params"])
    _, shares = jit(model.looked)(Variables(state.learner.params, {}), IMAGES)
    values = np.asarray(network.apply(state.learner.params, vision.as_numbers(jnp.asarray(IMAGES)), method="encode")[1].values)
    assert values.shape == (B, 4, 4)
    np.testing.assert_array_equal(values[0, :, 2:], [[-1, -1], [1, -1], [-1, 1], [1, 1]])  # x and y of each place
    dense = lambda name, x: x @ p[name]["kernel"] + p[name].get("bias", 0)  # noqa: E731
    h = np.tanh(dense("begin", values.mean(1)))
    score = dense("to_score", np.tanh(dense("to_query", h)[:, None] + dense("to_keys", values)))[..., 0]
    np.testing.assert_allclose(shares[:, 0], np.exp(score) / np.exp(score).sum(-1, keepdims=True), rtol=1e-4)
    np.testing.assert_allclose(shares.sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize("look", ["each_step", "hard"])
def test_a_beam_of_one_is_greedy_and_a_wide_one_finds_the_likeliest(look):
    model, _, state = made(look, **({"draws": 1, "baseline": "none"} if look == "hard" else {}))
    variables = Variables(state.learner.params, {})
    write = jit(model.write, static_argnums=(2, 3))
    greedy, one, wide = (write(variables, IMAGES, *how) for how in (("greedy", 3), ("beam", 1), ("beam", len(EVERY))))
    np.testing.assert_array_equal(greedy, one)
    nats = np.stack([jit(model.nll)(variables, IMAGES, np.tile(text, (B, 1)))[0] for text in EVERY])
    np.testing.assert_array_equal(wide, EVERY[nats.argmin(0)])


def test_captions_are_drawn_from_their_distribution():
    model, network, state = made("hard", baseline="value", entropy_coef=0.0)
    num = 6000
    said = jit(model.write, static_argnums=2)(Variables(state.learner.params, {}), jnp.repeat(IMAGES[:1], num, 0), "sampled",
                                              key=jax.random.key(0))
    texts, places = np.repeat(EVERY, len(PLACES), 0), np.tile(PLACES, (len(EVERY), 1))
    of_words, of_places = chances(network, state.learner.params, jnp.asarray(texts), jnp.asarray(places))
    exact = np.exp(of_words + of_places)[:, 0].reshape(len(EVERY), -1).sum(1)
    found = np.array([(np.asarray(said) == text).all(1).mean() for text in EVERY])
    assert exact.sum() == pytest.approx(1, abs=1e-5)
    assert found.sum() == pytest.approx(1)
    assert np.all(np.abs(found - exact) < 4.5 * np.sqrt(exact * (1 - exact) / num) + 1e-3)


@pytest.mark.parametrize("look", LOOKS)
def test_every_way_of_looking_learns_a_few_scenes_by_heart(look):
    scenes = read("scenes_single", "test")
    batch = jax.tree.map(lambda x: jnp.asarray(x[:4]), scenes.arrays)
    settings = Config(look=look, hidden_size=48, embedding_size=16, channels=(8, 16), batch_size=4, total_steps=120,
                      optim=OptimConfig(learning_rate=1e-2, max_grad_norm=1.0), ema_decay=0.9)
    model = captioner.make(settings, scenes.spec)
    state = jit(model.learner.init)(jax.random.key(0))

    def many(state):
        return jax.lax.scan(lambda state, key: (model.learner.update(state, batch, key)[0], None), state,
                            jax.random.split(jax.random.key(1), 120))[0]

    variables = model.learner.params(jit(many)(state))
    words = batch.words.captions[:, 1].astype(jnp.int32)  # "a small red circle"
    before, after = (jit(model.nll)(v, batch.images, words) for v in (model.learner.params(state), variables))
    others = jit(model.nll)(variables, jnp.roll(batch.images, 1, 0), words)[0]  # pictures of something else
    assert float(before[0].sum()) > 3 * float(before[1].sum())
    assert float(after[0].sum() / after[1].sum()) < 0.8
    assert float(others.sum()) > float(after[0].sum()) + 2
