"""Captions: words about a picture, with soft attention or hard attention, and then for what they are worth.

    loss = -sum_t log p(y_t | y_<t, picture)    of one of a picture's captions, told the words before (`caption_network`)

**Hard attention** looks at one place a step, which is drawn, and so has no gradient: it is a policy, learned by REINFORCE. With
places s the bound sum_s p(s) log p(y | s) <= log p(y) has the gradient

    E_s[grad log p(y | s) + sum_t (R_t - b_t) grad log p(s_t)],    R_t = sum_{k >= t} log p(y_k | s, y_<k)

(Xu et al., "Show, attend and tell", 2015, eq. 11 to 14; there R is that of the whole caption, and here, as in REINFORCE, what
follows the place). b is any of the baselines of `ops.baselines`; `entropy_coef` adds the entropy of the shares of places.

**Self-critical training** replaces the loss after a share of the run: captions are drawn, and

    loss = -(CIDEr-D(drawn) - CIDEr-D(greedy)) sum_t log p(drawn_t)

(Rennie et al., "Self-critical sequence training", 2017), with `ops.captions.cider` in the same program; how rare n-grams are is
counted in the references of all batches so far.

Shapes: `B` batch, `D` draws for each, `N` pictures, `R` references of a picture, `L` words of a caption, `P` places.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.core import axis
from jaxdl.core.config import config as settings
from jaxdl.core.config import require, require_positive, require_unit
from jaxdl.core.errors import UserError
from jaxdl.core.task import Captioner, Curve, Score
from jaxdl.core.types import Array, DataSpec, Key, Learner, Mean, PyTree, UpdateResult
from jaxdl.data.annotated import Annotated
from jaxdl.data.dataset import Dataset
from jaxdl.data.minibatches import run_maker, total_steps
from jaxdl.ops import baselines, captions, losses
from jaxdl.optim import Config as OptimConfig
from jaxdl.runtime.dataset_task import Evaluation, dataset_algorithm
from jaxdl.supervised import caption_network, caption_report, decoding, vision
from jaxdl.supervised.caption_network import CaptionNetwork, Memory, Seen
from jaxdl.supervised.networks import Variables
from jaxdl.supervised.seq2seq import before, counted

_CELLS = 1 << 16  # of the table of n-grams


@settings
class Config(vision.ConvConfig):
    """Settings of the captioner."""

    applies: ClassVar = {
        "baseline": ("look", "hard"), "draws": ("look", "hard"), "entropy_coef": ("look", "hard"),
        "baseline_decay": ("baseline", "constant"), "vf_coef": ("baseline", "value")}

    look: caption_network.Look = "soft"
    """How the picture is seen: in the first state, as an input of each step, by soft attention, or by hard attention."""
    cell: caption_network.Cell = "lstm"
    """The recurrent cell that writes."""
    hidden_size: int = 256
    """Size of its state."""
    embedding_size: int = 64
    """Size of a word's vector."""
    baseline: baselines.Name = "leave_one_out"
    """What the log-likelihood of the words is compared with (hard)."""
    draws: int = 2
    """Drawn ways of looking at each picture (hard)."""
    baseline_decay: float = 0.9
    """Factor by which an update reduces the weight of earlier ones (constant)."""
    vf_coef: float = 0.5
    """Weight of the value's loss (value)."""
    entropy_coef: float = 0.01
    """Weight of the entropy of the shares of places (hard)."""
    self_critical: float | None = None
    """Share of the planned updates after which captions are drawn and judged by CIDEr-D."""
    optim: OptimConfig = OptimConfig(learning_rate=2e-3, schedule="cosine", max_grad_norm=1.0)
    """The optimizer."""


class State(NamedTuple):
    """State of the learner."""

    learner: vision.State
    rewards: Mean | None  # of earlier updates, where their average is the baseline
    table: Array | None  # [_CELLS] pictures whose references have an n-gram, where CIDEr-D is a reward
    pictures: Array | None  # () so far


class Model(NamedTuple):
    """A learner and its functions."""

    learner: Learner
    write: Callable[..., Array]  # (variables, pictures, decode, width, key) -> words int32 [N, L]
    looked: Callable[..., tuple[Array, Array]]  # (variables, pictures) -> words [N, L], shares of places [N, L, P]
    nll: Callable[..., tuple[Array, Array]]  # (variables, pictures, captions [N, L]) -> nats and words of each, [N]


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the dataset.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    vision.validate_conv(config)
    require_positive(config, "hidden_size", "embedding_size", "draws")
    require_unit(config, "baseline_decay")
    require(config, "self_critical", config.self_critical is None or 0 <= config.self_critical < 1, "at least 0 and below 1")
    vision.refuse_moves(config, "captions speak of places, which moved pictures change")
    one = config.draws * config.batch_size // config.optim.grad_accumulation == 1
    if config.look == "hard" and config.baseline in ("batch", "leave_one_out") and one:
        raise UserError(f"baseline={config.baseline} compares a reward with others, and there is one at a time: batch_size="
                        f"{config.batch_size}, draws=1; raise one of them, or use baseline=value")


def make(config: Config, spec: DataSpec, axis_name: str | None = None) -> Model:
    """The learner and its functions for a dataset of pictures with captions.

    Raises:
        UserError: the dataset has none.
    """
    vision.require_arrays(spec, "a captioner", "words.captions")
    num, length = next(x.shape for x in spec.arrays if x.name == "words.captions")
    network = CaptionNetwork(config.look, len(spec.vocabulary), config.cell, config.hidden_size, config.embedding_size,
                             config.channels, vision.norm_of(config), config.activation, axis_name,
                             config.optim.compute_dtype)
    horizon = total_steps(config, spec)

    def told(call: Callable, state: PyTree, memory: Memory, words: Array, key: Key | None = None) -> tuple[Array, Seen, Array]:
        """Logits [B, L, V] where each word is told the ones before, where each looked, and the values before each."""
        def body(state: PyTree, x: tuple[Array, Array]) -> tuple[PyTree, tuple]:
            word, at = x
            valued = call(state, method="values_of")
            k_place = None if key is None else jax.random.fold_in(key, at)
            state, logits, seen = call(state, memory, word, k_place, method="step")
            return state, (logits, seen, valued)

        _, found = jax.lax.scan(body, state, (before(words).T, jnp.arange(length)))
        return jax.tree.map(lambda x: x.swapaxes(0, 1), found)

    def caption_loss(call: Callable, state: PyTree, memory: Memory, words: Array, key: Key, rewards: Mean | None
                     ) -> tuple[Array, dict[str, Array]]:
        """The loss of each picture [B] where its captions [B, L] are told, and metrics [B, L]."""
        hard, draws = config.look == "hard", config.draws if config.look == "hard" else 1
        state, memory, words = jax.tree.map(lambda x: jnp.repeat(x, draws, 0), (state, memory, words))
        logits, seen, valued = told(call, state, memory, words, key if hard else None)
        counts = counted(words)
        nll = jnp.where(counts, losses.cross_entropy(logits, words), 0)
        metrics = {"nll": nll, "accuracy": logits.argmax(-1) == words}
        of = nll.sum(-1)
        if hard:
            to_go = -jnp.cumsum(nll[:, ::-1], 1)[:, ::-1]
            by_draw, value = (x.reshape(-1, draws, length) for x in (to_go, valued))
            compared = baselines.compared_with(config.baseline, by_draw, value, rewards, axis_name)
            advantage = jnp.where(counts, (by_draw - jax.lax.stop_gradient(compared)).reshape(to_go.shape), 0)
            entropy = jnp.where(counts, -(seen.shares * jnp.log(seen.shares + 1e-12)).sum(-1), 0)
            of -= (jax.lax.stop_gradient(advantage) * _log_share(seen)).sum(-1) + config.entropy_coef * entropy.sum(-1)
            metrics |= {"reward": to_go, "entropy": entropy}
            if config.baseline == "value":
                off = jnp.where(counts, losses.squared(valued - jax.lax.stop_gradient(to_go)), 0)
                of += config.vf_coef * off.sum(-1)
        return of.reshape(-1, draws).mean(-1), metrics | {"counts": counts}

    def critical_loss(call: Callable, state: PyTree, memory: Memory, references: Array, key: Key, table: Array, pictures: Array
                      ) -> tuple[Array, dict[str, Array]]:
        """The loss of each picture [B] whose captions are drawn."""
        keys = jax.random.split(key)
        drawn, greedy = (_written(call, state, memory, length, k) for k in (keys, None))
        grams = captions.ngrams(references)
        rare = captions.rarity(table, pictures, grams)

        def worth(words: Array) -> Array:
            own = captions.ngrams(words)
            return jax.vmap(captions.cider)(own, captions.rarity(table, pictures, own), grams, rare)

        drawn = jax.lax.stop_gradient(drawn)
        reward, usual = worth(drawn), worth(greedy)
        logits, seen, _ = told(call, state, memory, drawn, keys[0] if config.look == "hard" else None)  # as they were drawn
        counts = counted(drawn)
        log_p = -jnp.where(counts, losses.cross_entropy(logits, drawn), 0)
        if config.look == "hard":
            log_p += jnp.where(counts, _log_share(seen), 0)
        of = -(reward - usual) * log_p.sum(-1)
        return of, {"cider": usual, "cider_drawn": reward}

    def loss(state: State, params: PyTree, stats: PyTree, batch: Annotated, key: Key) -> tuple[Array, tuple[dict, PyTree]]:
        k_change, k_caption, k_look = jax.random.split(key, 3)
        images = vision.changed(config.augment, k_change, batch.images).images
        which = jnp.minimum((num * jax.random.uniform(k_caption, (len(images),))).astype(jnp.int32), num - 1)
        words = jnp.take_along_axis(batch.words.captions, which[:, None, None], 1)[:, 0].astype(jnp.int32)
        (begun, memory), stats = vision.learn(network, params, stats, images, True, method="encode")
        call = vision.bound(network, Variables(params, stats))

        def by_truth() -> tuple[Array, dict[str, Mean]]:
            of, found = caption_loss(call, begun, memory, words, k_look, state.rewards)
            counts = found.pop("counts")
            return of, {name: Mean.of(x, counts) for name, x in found.items()}

        if config.self_critical is None:
            of, metrics = by_truth()
            return of.mean(), ({"loss": Mean.of(of)} | metrics, stats)

        def by_worth() -> tuple[Array, dict[str, Mean]]:
            of, found = critical_loss(call, begun, memory, batch.words.captions.astype(jnp.int32), k_look, state.table,
                                      state.pictures)
            return of, {name: Mean.of(x) for name, x in found.items()}

        # a condition, and not both: of a population on a GPU both are computed
        shapes = [jax.eval_shape(f)[1] for f in (by_truth, by_worth)]
        none = {name: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), x) for part in shapes for name, x in part.items()}
        critical = state.learner.count >= config.self_critical * horizon
        of, metrics = jax.lax.cond(critical, *(lambda f=f: (lambda of, found: (of, none | found))(*f())
                                               for f in (by_worth, by_truth)))
        return of.mean(), ({"loss": Mean.of(of)} | metrics, stats)

    def update(state: State, batch: Annotated, key: Key) -> tuple[State, UpdateResult]:
        one = vision.make_learner(config, spec, init, lambda *args: loss(state, *args), axis_name)
        after, result = one.update(state.learner, batch, key)
        rewards, table, pictures = state.rewards, state.table, state.pictures
        if rewards is not None:
            rewards = baselines.moved(rewards, axis.sum_over(result.metrics["reward"], axis_name), config.baseline_decay)
        if table is not None:
            new = captions.counted(jnp.zeros_like(table), captions.ngrams(batch.words.captions))
            new, more = axis.sum_over((new, jnp.float32(len(batch.images))), axis_name)
            table, pictures = table + new, pictures + more
        return State(after, rewards, table, pictures), result

    init = vision.init_of(network, config, jnp.zeros((1, *spec.shape)))
    plain = vision.make_learner(config, spec, init, None, axis_name)

    def begin(key: Key) -> State:
        critical = config.self_critical is not None
        return State(plain.init(key), baselines.none_yet() if config.look == "hard" and config.baseline == "constant" else None,
                     jnp.zeros(_CELLS) if critical else None, jnp.zeros(()) if critical else None)

    def write(variables: Variables, images: Array, decode: str = "greedy", width: int = 3, key: Key | None = None) -> Array:
        call = vision.trained(network, variables)
        state, memory = vision.apply(network, variables, images, method="encode")
        if decode != "beam":
            return _written(call, state, memory, length, jax.random.split(key) if decode == "sampled" else None)
        state, memory = jax.tree.map(lambda x: jnp.repeat(x, width, 0), (state, memory))

        def step(state: PyTree, word: Array) -> tuple[PyTree, Array]:
            return call(state, memory, word, method="step")[:2]

        return decoding.beam_search(step, state, len(images), width, length)[0][:, 0]

    def looked(variables: Variables, images: Array) -> tuple[Array, Array]:
        call = vision.trained(network, variables)
        state, memory = vision.apply(network, variables, images, method="encode")
        words = _written(call, state, memory, length)
        return words, told(call, state, memory, words)[1].shares

    def nll(variables: Variables, images: Array, words: Array) -> tuple[Array, Array]:
        state, memory = vision.apply(network, variables, images, method="encode")
        logits = told(vision.trained(network, variables), state, memory, words)[0]
        counts = counted(words)
        return jnp.where(counts, losses.cross_entropy(logits, words), 0).sum(-1), counts.sum(-1)

    return Model(Learner(begin, update, lambda state: plain.params(state.learner)), write, looked, nll)


def _log_share(seen: Seen) -> Array:
    """The log-probability of the place that was looked at, [...]."""
    return jnp.log(jnp.take_along_axis(seen.shares, seen.place[..., None], -1)[..., 0] + 1e-12)


def _written(call: Callable, state: PyTree, memory: Memory, length: int, keys: Key | None = None) -> Array:
    """Words int32 [B, L], the likeliest each time, or drawn with two keys, of places and of words; 0 after the end."""
    def body(now: tuple, at: Array) -> tuple[tuple, Array]:
        state, word, ended = now
        k_place, k_word = (None, None) if keys is None else (jax.random.fold_in(key, at) for key in keys)
        state, logits, _ = call(state, memory, word, k_place, method="step")
        new = logits.argmax(-1) if k_word is None else jax.random.categorical(k_word, logits)
        word = jnp.where(ended, 0, new).astype(jnp.int32)
        return (state, word, ended | (word == 0)), word

    num = len(memory.values)
    start = state, jnp.zeros(num, jnp.int32), jnp.zeros(num, bool)
    return jax.lax.scan(body, start, jnp.arange(length))[1].T


make_run = run_maker(make, validate)


def abilities(config: Config, spec: DataSpec, model: Model) -> dict[type, Any]:
    """What a trained model can do."""
    del config
    return {Captioner: Captioner(model.write, spec.vocabulary)}


def _evaluation(config: Config, train: Any, splits: Mapping[str, Dataset], model: Model, can: dict[type, Any]) -> Evaluation:
    del can
    judged = caption_report.judge(model.write, model.nll)

    def in_words(found: dict[str, Any]) -> str:
        true = f"{found['true']:.2%} of the captions are true, " if "true" in found else ""
        return (f"held-out pictures of {config.dataset}: {true}BLEU-4 {found['bleu4']:.1f}, CIDEr-D {found['cider']:.3f}, "
                f"{found['nll']:.4f} nats a word")

    picture = caption_report.attention_picture(splits, model.looked, config.look in ("soft", "hard"))
    return Evaluation(caption_report.Options(train.seed), judged, {"captions.png": picture}, in_words)


def _score(config: Config) -> Score:
    if config.dataset.startswith("scenes"):
        return Score("true", True, "share of captions that are true of held-out pictures")
    return Score("cider", True, "CIDEr-D of held-out pictures")


ALGORITHM = dataset_algorithm(
    "captioner", "words about pictures: soft attention, hard attention by REINFORCE, self-critical training", Config, validate,
    make, make_run, total_steps, _score,
    (Curve("eval/true", True, "share of captions that are true", None, 0.0, "true"),
     Curve("nll", False, "nats per word", "eval/nll", 0.05, "nll", panel=True),
     Curve("cider", True, "CIDEr-D", "eval/cider", 0.0, "CIDEr", panel=True)), abilities, "pictures", _evaluation)
