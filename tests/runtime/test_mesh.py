"""An update on shards under vmap, pmap and shard_map is the update of the whole batch on one device."""

import enum
import functools
import itertools
from typing import NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_pictures
from maps import MAPS
from tools import assert_near, jit, vector
from toy_scenes import read

from jaxdl.adversarial import defences
from jaxdl.agents import actor_critic, dqn, ppo, reinforce
from jaxdl.core.axis import AXIS
from jaxdl.core.errors import UserError
from jaxdl.core.types import ArraySpec, DataSpec, Examples
from jaxdl.data import pairs
from jaxdl.data.dataset import from_tree
from jaxdl.data.sequences import Windows
from jaxdl.generative import autoencoder, gan, vae, vqvae
from jaxdl.generative.pixel import pixelcnn, pixelrnn
from jaxdl.generative.text import language_model
from jaxdl.optim import Config as OptimConfig
from jaxdl.rl import policy
from jaxdl.rl.policy import Config as PolicyConfig
from jaxdl.rl.types import EnvSpec, Trajectory, Transition
from jaxdl.runtime import mesh
from jaxdl.supervised import attention_reader, captioner, classifier, detector, localizer, regressor, segmenter, seq2seq, vqa

B, T = 16, 6
RATE = 0.05


def split(tree, n):
    """`n` parts of a batch; time is the first axis of trajectories and windows, but not of their carry."""
    if isinstance(tree, Trajectory | Windows):
        rows = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(len(x), n, -1, *x.shape[2:]), 1, 0), tree._replace(carry=None))
        return rows._replace(carry=split(tree.carry, n))
    return jax.tree.map(lambda x: x.reshape(n, -1, *x.shape[1:]), tree)


def assert_replicated(tree):
    for x in map(np.asarray, jax.tree.leaves(tree)):
        assert all(np.array_equal(x[0], shard) for shard in x)


class Noise(enum.Enum):
    """What an update draws, and so what an update on shards is compared with."""

    NONE = enum.auto()  # nothing: with the update of the whole batch on one device
    ROWS = enum.auto()  # numbers for each row: the same, where row i draws the same in every shard (`same_noise_for_a_row`)
    SHARDS = enum.auto()  # numbers for its shard: with the mean of the shards' gradients, and later with what vmap gives
    LATER = enum.auto()  # as SHARDS, and nothing in the first update


class Case(NamedTuple):
    """An algorithm as a function of the optimizer, and a batch for it."""

    learner: object  # (OptimConfig, axis_name) -> Learner
    batch: object
    noise: Noise = Noise.NONE
    rate: float = RATE
    by_field: bool = False  # gradients of some leaves are zero but for rounding: as in `assert_near`


def dqn_learner(optim, axis_name, **settings):
    box = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    config = dqn.Config(hidden_sizes=(5,), batch_size=B, double=True, dueling=True, loss="huber", tau=0.5, optim=optim,
                        **settings)
    return dqn.make(config, EnvSpec("two actions", box, gymnasium.spaces.Discrete(2), None), axis_name).learner


def rainbow_learner(optim, axis_name):
    return dqn_learner(optim, axis_name, prioritized=True, distribution="c51", v_min=-3.0, v_max=3.0, atoms=7,
                       normalize_obs=True)


def vae_learner(**settings):
    def learner(optim, axis_name):
        config = vae.Config(latent_size=2, hidden_sizes=(5,), batch_size=B, total_steps=10, optim=optim, **settings)
        return vae.make(config, DataSpec("small", 100, (3, 3, 1)), axis_name).learner

    return learner


def pixelcnn_learner(optim, axis_name):
    config = pixelcnn.Config(variant="plain", width=4, num_blocks=2, window=3, head_features=4, binarize="threshold",
                             batch_size=B, total_steps=10, optim=optim)
    return pixelcnn.make(config, DataSpec("small", 100, (3, 3, 1)), axis_name).learner


def pixelrnn_learner(optim, axis_name):
    config = pixelrnn.Config(variant="row", width=3, num_blocks=1, binarize="threshold", batch_size=B, total_steps=10,
                             optim=optim)
    return pixelrnn.make(config, DataSpec("small", 100, (3, 3, 1)), axis_name).learner


def autoencoder_learner(optim, axis_name):
    config = autoencoder.Config(network="mlp", hidden_sizes=(5,), corruption="gaussian", corruption_level=0.3, batch_size=B,
                                total_steps=10, optim=optim)
    return autoencoder.make(config, DataSpec("small", 100, (3, 3, 1)), axis_name).learner


def gan_learner(**settings):
    def learner(optim, axis_name):
        config = gan.Config(width=2, latent_size=3, batch_size=B, total_steps=10, optim=optim,
                            discriminator_learning_rate=optim.learning_rate, **settings)
        return gan.make(config, DataSpec("small", 100, (4, 4, 1)), axis_name).learner

    return learner


def vqvae_learner(optim, axis_name):
    config = vqvae.Config(conv_channels=(3,), num_codes=4, embedding_size=2, batch_size=B, total_steps=10, optim=optim)
    return vqvae.make(config, DataSpec("small", 100, (4, 4, 1)), axis_name).learner


def policy_learner(module, **settings):
    """Of `T` steps of `B` environments."""
    def learner(optim, axis_name):
        config = module.Config(**{
            "num_envs": B, "rollout_steps": T, "total_steps": 10_000, "ent_coef": 0.05, "optim": optim,
            "policy": PolicyConfig(hidden_sizes=(5,), normalize_obs=True)} | settings)
        box = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
        return module.make(config, EnvSpec("two actions", box, gymnasium.spaces.Discrete(2), 2), axis_name).learner

    return learner


def trajectory(carry=None):
    """Episodes of one step or two, as many in no shard as in another, and rows that count for nothing."""
    rng = np.random.default_rng(0)
    obs, next_obs = np.float32(rng.normal(size=(2, T, B, 3)))
    done, first = np.zeros((2, T, B), bool)
    first[0], done[-1] = True, True
    for t in range(1, T):
        done[t - 1] = ~first[t - 1] | (rng.random(B) < np.linspace(0, 1, B))
        first[t] = done[t - 1]
    terminated = done & (rng.random((T, B)) < 0.7)
    valid = rng.random((T, B)) < np.linspace(1.2, 0.5, B)
    choice = policy.ActionInfo(np.int32(rng.integers(2, size=(T, B))), np.float32(0.2 * rng.normal(size=(T, B, 2))))
    return Trajectory(obs, choice, np.float32(3 * rng.normal(size=(T, B))), next_obs, terminated, done & ~terminated, first,
                      valid, carry)


def transitions():
    k = jax.random.split(jax.random.key(0), 4)
    obs, next_obs = jax.random.normal(k[0], (2, B, 3))
    return Transition(obs, jax.random.bernoulli(k[1], shape=(B,)).astype(jnp.int32), 3 * jax.random.normal(k[2], (B,)),
                      0.9 * jax.random.bernoulli(k[3], 0.7, (B,)), next_obs)


def language_model_learner(cell):
    def learner(optim, axis_name):
        config = language_model.Config(cell=cell, num_layers=1, hidden_size=8, batch_size=B, window=T, total_steps=10,
                                       optim=optim)
        return language_model.make(config, DataSpec("small", 1000, (), vocabulary=tuple("abcd"), input="tokens"),
                                   axis_name).learner

    return learner


def classifier_learner(optim, axis_name, norm="batch", **robust):
    """With statistics of the batch, and averaged weights."""
    config = classifier.Config(network="mlp", hidden_sizes=(6,), norm=norm, average="ema", batch_size=B, total_steps=10,
                               robust=defences.Config(**robust), optim=optim)
    spec = DataSpec("small", 100, (3, 3, 1), 3, arrays=(ArraySpec("labels", (), "int32"),), target="labels")
    return classifier.make(config, spec, axis_name).learner


def attention_reader_learner(optim, axis_name, **settings):
    """With a baseline of all shards' images."""
    config = attention_reader.Config(glimpse_size=3, num_glimpses=2, hidden_size=6, glimpse_features=5, ema_decay=0.9,
                                     batch_size=B, total_steps=10, optim=optim, **{"baseline": "leave_one_out"} | settings)
    spec = DataSpec("small", 100, (4, 4, 1), 3, arrays=(ArraySpec("labels", (), "int32"),), target="labels")
    return attention_reader.make(config, spec, axis_name).learner


def detector_learner(optim, axis_name, method="fast_rcnn"):
    """Of regions that are drawn; those that a network proposes turn with its last bits."""
    config = detector.Config(method=method, channels=(4, 6), features=6, anchor_sizes=(8,), anchor_ratios=(1.0,), batch_size=B,
                             total_steps=10, ema_decay=0.9, optim=optim)
    spec = from_tree(PICTURES, class_names=toy_pictures.NAMES).spec
    return detector.make(config, spec, axis_name).learner


def regressor_learner(optim, axis_name):
    config = regressor.Config(hidden_sizes=(6,), loss="huber", batch_size=B, total_steps=10, optim=optim)
    spec = DataSpec("small", 100, (3,), arrays=(ArraySpec("y", (), "float32"),), input="x", target="y",
                    target_scale=((1.0,), (2.0,)))
    return regressor.make(config, spec, axis_name).learner


def windows(carry=None):
    tokens = jax.random.randint(jax.random.key(0), (T + 1, B), 0, 4)
    return Windows([tokens[:-1]], [tokens[1:]], carry, jnp.zeros((1, B), bool))


PICTURES = toy_pictures.pictures(B)
SUMS = pairs.addition(1).read(None, "train")  # targets of one token and of two: shards have other numbers that count


def seq2seq_learner(optim, axis_name):
    config = seq2seq.Config(cell="gru", hidden_size=4, attention="additive", batch_size=B, total_steps=10, optim=optim)
    return seq2seq.make(config, SUMS.spec, axis_name).learner


SCENES = read("scenes_single", "test", 16)


def scenes_learner(module, **settings):
    """Of annotated pictures, with statistics of the batch, and averaged weights."""
    def learner(optim, axis_name):
        config = module.Config(channels=(3, 4), batch_size=B, total_steps=10, ema_decay=0.9, optim=optim, **settings)
        return module.make(config, SCENES.spec, axis_name).learner

    return learner


def images(*shape):
    return Examples(jax.random.randint(jax.random.key(0), (B, *shape), 0, 256).astype(jnp.uint8))


CASES = {
    "dqn": Case(dqn_learner, transitions()),
    "rainbow": Case(rainbow_learner, transitions()._replace(weight=jnp.linspace(0.5, 3.0, B))),
    "ppo": Case(policy_learner(ppo, num_epochs=1, num_minibatches=1), trajectory()),
    "actor_critic": Case(policy_learner(actor_critic, policy=PolicyConfig(hidden_sizes=(5,), recurrent="gru", recurrent_size=4),
                                        normalize_advantage=True),
                         trajectory(list(np.float32(np.random.default_rng(1).normal(size=(2, B, 4)))))),
    "reinforce": Case(policy_learner(reinforce), trajectory()),
    "reinforce, left out": Case(policy_learner(reinforce, baseline="leave_one_out", learn_from="complete"), trajectory()),
    "vae": Case(vae_learner(), images(3, 3, 1), Noise.SHARDS),
    "vae, importance-weighted": Case(
        vae_learner(objective="iwae", num_samples=3, estimator="doubly_reparameterized", second_latent_size=2,
                    second_hidden_sizes=(4,)), images(3, 3, 1), Noise.SHARDS),
    "language_model": Case(language_model_learner("gru"), windows([jnp.ones((B, 8))])),
    "language_model, transformer": Case(language_model_learner("transformer"), windows()),
    "classifier": Case(classifier_learner, images(3, 3, 1)._replace(labels=jnp.arange(B) % 3)),
    "classifier, bounds": Case(functools.partial(classifier_learner, norm=None, defence="interval", epsilon=0.1),
                               images(3, 3, 1)._replace(labels=jnp.arange(B) % 3)),
    "classifier, trades": Case(functools.partial(classifier_learner, defence="trades", epsilon=0.1, attack_steps=2),
                               images(3, 3, 1)._replace(labels=jnp.arange(B) % 3), Noise.ROWS),
    "attention_reader": Case(attention_reader_learner, images(4, 4, 1)._replace(labels=jnp.arange(B) % 3), Noise.ROWS),
    "attention_reader, constant": Case(functools.partial(attention_reader_learner, baseline="constant", draws=2),
                                       images(4, 4, 1)._replace(labels=jnp.arange(B) % 3), Noise.ROWS),
    "detector": Case(detector_learner, PICTURES._asdict(), Noise.ROWS),
    "detector, one stage": Case(functools.partial(detector_learner, method="one_stage"), PICTURES._asdict()),
    "regressor": Case(regressor_learner, {"x": jax.random.normal(jax.random.key(0), (B, 3)), "y": jnp.linspace(-3, 4, B)}),
    "seq2seq": Case(seq2seq_learner, SUMS.rows(slice(B))),
    "segmenter": Case(scenes_learner(segmenter, class_balance=0.5, activation="tanh"), SCENES.rows(slice(B)), rate=0.01,
                      by_field=True),  # tanh: what is 0 but for rounding is on either side of the kink of relu
    "localizer": Case(scenes_learner(localizer, hidden_size=6), SCENES.rows(slice(B)), rate=0.002),
    "captioner": Case(scenes_learner(captioner, hidden_size=6, embedding_size=4), SCENES.rows(slice(B)), Noise.ROWS),
    "captioner, hard": Case(scenes_learner(captioner, look="hard", hidden_size=6, embedding_size=4), SCENES.rows(slice(B)),
                            Noise.ROWS),
    "vqa": Case(scenes_learner(vqa, hidden_size=6, embedding_size=4, features=4, blocks=1), SCENES.rows(slice(B))),
    "pixelcnn": Case(pixelcnn_learner, images(3, 3, 1)),
    "pixelrnn": Case(pixelrnn_learner, images(3, 3, 1)),
    "vqvae": Case(vqvae_learner, images(4, 4, 1), Noise.LATER, 0.01),  # dead codes begin anew
    "autoencoder": Case(autoencoder_learner, images(3, 3, 1), Noise.ROWS),
    "gan": Case(gan_learner(), images(4, 4, 1), Noise.ROWS, 0.003, by_field=True),
    "gan, spectral": Case(gan_learner(network="resnet", objective="hinge", spectral_norm=True), images(4, 4, 1), Noise.ROWS,
                          0.01, by_field=True),
    "gan, penalty": Case(gan_learner(objective="non_saturating", gradient_penalty=1.0), images(4, 4, 1), Noise.ROWS, 0.01,
                         by_field=True),
}
CASES = {name: case._replace(batch=jax.tree.map(jnp.asarray, case.batch)) for name, case in CASES.items()}


def by_row(draw):
    """`jax.random.normal` or `uniform`, with the noise of row i out of key i, whichever shard the row is in."""
    def drawn(key, shape, *args, **kwargs):
        if args or kwargs:  # initial parameters, which all shards draw alike
            return draw(key, shape, *args, **kwargs)
        try:
            first = jax.lax.axis_index(AXIS) * shape[0]
        except NameError:  # there is no axis on one device
            first = 0
        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(5), i))(first + jnp.arange(shape[0]))
        return jax.vmap(lambda key: draw(key, shape[1:]))(keys)

    return drawn


def categorical_by_row(key, logits):
    """`jax.random.categorical`, with the noise of row i out of key i."""
    u = jax.random.uniform(key, logits.shape)  # which is by row too
    return jnp.argmax(logits - jnp.log(-jnp.log(jnp.clip(u, 1e-6, 1 - 1e-6))), -1)


@pytest.fixture(autouse=True)
def same_noise_for_a_row(request, monkeypatch):
    """In cases of `Noise.ROWS` a row draws the same on one device and in any shard."""
    name = getattr(getattr(request.node, "callspec", None), "params", {}).get("name")
    if name is not None and CASES[name].noise == Noise.ROWS:
        monkeypatch.setattr(jax.random, "normal", by_row(jax.random.normal))
        monkeypatch.setattr(jax.random, "uniform", by_row(jax.random.uniform))
        monkeypatch.setattr(jax.random, "categorical", categorical_by_row)


def the_learner(name, optimizer, rate, axis_name):
    optim = OptimConfig(optimizer=optimizer, learning_rate=rate, schedule="constant", eps=1e-3, max_grad_norm=None)
    return CASES[name].learner(optim, axis_name)


@functools.cache
def started(name):
    return jit(the_learner(name, "sgd", CASES[name].rate, None).init)(jax.random.key(1))


def updates(learner):
    """(part, (state, n)) -> the state after n updates with it, and the metrics of the last."""
    def run(part, shared):
        state, n = shared
        metrics = jax.eval_shape(learner.update, state, *part)[1].metrics
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metrics)

        def body(_, carry):
            state, result = learner.update(carry[0], *part)
            return state, result.metrics

        return jax.lax.fori_loop(0, n, body, (state, nothing))

    return run


@functools.cache
def alone(name, optimizer):
    """(n) -> the state after n updates of the whole batch on one device."""
    learner = the_learner(name, optimizer, CASES[name].rate, None)
    state = jit(learner.init)(jax.random.key(1))
    program = jit(lambda n: updates(learner)((CASES[name].batch, jax.random.key(0)), (state, n))[0])
    return {n: program(n) for n in (1, 10)}


@functools.cache
def gradient(name, shards):
    """The gradient of the whole batch on one device, read off a step of SGD: the mean over shards with their noise."""
    learner, batch = the_learner(name, "sgd", 1.0, None), CASES[name].batch
    state = jit(learner.init)(jax.random.key(1))
    parts = [(jax.tree.map(lambda x: x[i], split(batch, shards)), jax.random.key(10 + i)) for i in range(shards)]  # noqa: B023
    update = jit(learner.update)
    steps = [update(state, *part)[0].params for part in parts]
    grads = [jax.tree.map(jnp.subtract, state.params, stepped) for stepped in steps]
    return jax.tree.map(lambda *g: sum(g) / shards, *grads)


def by_hand(name, optimizer, params, grads):
    """The first step of an optimizer."""
    step = {"sgd": lambda g: g, "adam": lambda g: g / (jnp.abs(g) + 1e-3)}[optimizer]
    return jax.tree.map(lambda p, g: p - CASES[name].rate * step(g), params, grads)


@functools.cache
def mapped(name, optimizer, how, shards):
    """States and metrics after 1 update and after 10, shard by shard."""
    learner = the_learner(name, optimizer, CASES[name].rate, AXIS)
    state = jit(learner.init)(jax.random.key(1))
    keys = jax.vmap(jax.random.key)(10 + jnp.arange(shards, dtype=jnp.uint32))
    program = MAPS[how](updates(learner), shards)
    part = split(CASES[name].batch, shards), keys
    return {n: jax.device_get(program(part, (state, jnp.int32(n)))) for n in (1, 10)}


EVERY = list(itertools.product(CASES, ("sgd", "adam"), MAPS, (1, 2, 4, 8)))
FEW = [name for name in CASES if "," not in name]  # every algorithm; its other settings are for `make test-slow`, and the rest
SOME = [(name, "sgd", "shard_map", 4) for name in FEW] + [("dqn", "adam", "vmap", 8), ("vae", "adam", "pmap", 2)]
TRIED = [pytest.param(*how, marks=[] if how in SOME else pytest.mark.slow) for how in EVERY]


@pytest.mark.parametrize(("name", "optimizer", "how", "shards"), TRIED)
def test_updates_over_shards_are_those_of_the_whole_batch(name, optimizer, how, shards):
    results = mapped(name, optimizer, how, shards)
    for state, _ in results.values():
        assert_replicated(state)
    one, ten = (jax.tree.map(lambda x: x[0], state) for state, _ in results.values())
    learner, noise = the_learner(name, optimizer, CASES[name].rate, None), CASES[name].noise
    before, after = vector(learner.params(started(name))), vector(learner.params(ten))
    assert np.linalg.norm(after - before) > 1e-3 * np.linalg.norm(before)
    if noise == Noise.SHARDS:
        assert_near(one.params, by_hand(name, optimizer, started(name).params, gradient(name, shards)))
    else:  # all of the state: target network, moments, statistics
        assert_near(one, alone(name, optimizer)[1], CASES[name].by_field)
    if noise in (Noise.SHARDS, Noise.LATER):
        assert_near(ten, jax.tree.map(lambda x: x[0], mapped(name, optimizer, "vmap", shards)[10][0]))
    else:
        assert_near(ten, alone(name, optimizer)[10], CASES[name].by_field)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name.startswith("pixel") else ())
                                  for name, case in CASES.items()  # where there is noise, shards show it
                                  if case.noise == Noise.NONE and "vqvae" not in name])
@pytest.mark.parametrize("optimizer", ["sgd", pytest.param("adam", marks=pytest.mark.slow)])
def test_the_first_update_is_the_step_of_the_gradient(name, optimizer):
    assert_near(alone(name, optimizer)[1].params, by_hand(name, optimizer, started(name).params, gradient(name, 1)))


def counted(name):
    """Rows that are learned from."""
    batch = CASES[name].batch
    if name != "reinforce, left out":
        return batch.valid.sum()
    begin = np.maximum.accumulate(np.where(batch.first, np.arange(T)[:, None], -1))
    return (batch.valid & (begin <= T - 2)).sum()


@pytest.mark.parametrize("name", [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in CASES])
def test_shards_have_metrics_of_their_own_parts(name):
    """They are sums and counts, reduced once for a whole step (`core.run`)."""
    metrics = mapped(name, "sgd", "shard_map", 4)[1][1]
    assert all(m.count.shape == (4,) for m in metrics.values())
    told = seq2seq.counted(CASES["seq2seq"].batch.targets).sum()
    loss = metrics[next(k for k in ("loss", "policy_loss", "nll", "loss_discriminator") if k in metrics)]
    assert len(np.unique(loss.total)) == 4
    if isinstance(CASES[name].batch, Trajectory):
        assert loss.count.sum() == counted(name)
    else:
        assert loss.count.sum() == {"vae": 4, "language_model": T * B, "seq2seq": told}.get(name, B)


@pytest.mark.parametrize("devices", [1025, 2**31 - 1, 10**12])
def test_devices_that_a_process_cannot_have_are_refused_before_they_are_made(devices):
    with pytest.raises(UserError, match="devices must be at most 1,024 in one process"):
        mesh.provide(devices)
