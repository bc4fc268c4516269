"""The dataset source: minibatches of examples that lie on the device, in a new order each epoch.

No permutation is stored or made. The order of an epoch is a keyed bijection of [0, N), evaluated only at the positions
that a batch takes: O(B) a batch, three small leaves of state, and a run continues mid-epoch from the state alone. The
bijection is an unbalanced Feistel network on Z_a x Z_b, a * b >= N, in modular form,

    l <- l + F_k(r) mod a,    r <- r + F_k'(l) mod b,    ...

with F a keyed integer hash; what lands in [N, a * b) is sent through again until it falls below N ("cycle walking"):
Black and Rogaway, "Ciphers with arbitrary finite domains" (2002). It is a shuffle, not a cipher. a and b are chosen
near sqrt(N) with a * b as close to N as it gets (equal for 60,000 = 250 * 240), so that hardly any position walks.

Shapes: `N` examples, `B` batch.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.core import axis
from jaxdl.core.config import config as settings
from jaxdl.core.config import require_positive, validate_untraced
from jaxdl.core.errors import UserError
from jaxdl.core.run import compose
from jaxdl.core.types import Array, DataSpec, Key, Learner, PyTree, Run, Source
from jaxdl.data import made
from jaxdl.data.shuffle import shuffled_index

DEFAULT_EPOCHS = 10


@settings
class Config:
    """Settings of all that learns from a dataset: which, for how long, in what parts."""

    shared_sizes: ClassVar[tuple[str, ...]] = ("batch_size",)  # devices share these: `axis.share`
    usual_steps: ClassVar[int | None] = None  # updates of a run of which nothing is said; None: those of DEFAULT_EPOCHS

    dataset: str = "digits"
    """Name of the dataset (`jaxdl list`), or package.module:NAME of one of your own."""
    data_dir: str | None = None
    """Folder with the dataset's files; without it a known dataset is fetched."""
    epochs: int | None = None
    """Passes over the training examples (10 if neither this nor total_steps is given)."""
    total_steps: int | None = None
    """Updates of the planned run, in place of epochs; schedules run over it."""
    batch_size: int = 128
    """Examples in one update."""


class DatasetState(NamedTuple):
    """Where in the data the run is."""

    key: Key  # never changes: the order of an epoch is a function of (key, epoch)
    epoch: Array  # int32 (): epochs completed
    batch: Array  # int32 (): batches taken in this epoch


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Whole batches in an epoch, N // B; the rest is left out."""
    return num_examples // batch_size


def validate(config: Any) -> None:
    """Refuse a config whose `epochs`, `total_steps` and `batch_size` make no sense.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    if config.epochs is not None and config.total_steps is not None:
        raise UserError(f"epochs={config.epochs} and total_steps={config.total_steps} both say how long to train; give one")
    require_positive(config, "epochs", "total_steps", "batch_size")


def total_steps(config: Any, spec: DataSpec) -> int:
    """Updates of the planned run: `config.total_steps`, or those of `config.epochs`, 10 if neither is given."""
    return planned_updates(config, steps_per_epoch(num_learned(config, spec), config.batch_size))


def num_learned(config: Any, spec: DataSpec) -> int:
    """Examples that are learned from: all, or those of all folds but one (of the largest, where they differ by one)."""
    folds = getattr(config, "folds", None)
    return spec.num_examples if folds is None else _without_a_fold(spec.num_examples, folds)


def _without_a_fold(num_examples: int, folds: int) -> int:
    return num_examples - -(-num_examples // folds)


def fold_of(num_examples: int, folds: int, fold: Any) -> tuple[Any, Any]:
    """The first example of a fold and the first after it, of examples that are cut into folds in their order."""
    return fold * num_examples // folds, (fold + 1) * num_examples // folds


def planned_updates(config: Any, an_epoch: int) -> int:
    """Updates of the planned run of which an epoch has `an_epoch`."""
    if config.total_steps is not None:
        return config.total_steps
    if config.epochs is None and config.usual_steps is not None:
        return config.usual_steps
    return (config.epochs or DEFAULT_EPOCHS) * an_epoch


def run_of(learner: Learner, num_examples: int, batch_size: int, axis_name: str | None = None, shards: int = 1,
           without: tuple[int, Array] | None = None) -> Run:
    """The run of a learner on a dataset: an update a step.

    Under an axis each of the `shards` has its part of every batch and of the dataset, whose last N % shards examples are
    left out.

    Args:
        without: (folds, fold), int32 (): the fold that is not learned from.

    Raises:
        UserError: as `dataset`, or the shards cannot share the batch.
    """
    axis.check_share("batch_size", batch_size, shards)
    source = dataset(num_examples // shards, batch_size // shards, without)
    return compose(learner, source, stride=1, axis_name=axis_name)


def run_maker(make: Callable[..., Any], validate: Callable[[Any], None] = lambda config: None) -> Callable[..., Run]:
    """The function `(config, spec, axis_name=None, shards=1) -> Run` of a module.

    It is made of the module's `make(config, spec, axis_name)` and its `validate(config)`, which refuses settings first.

    The run is one on a dataset that lies on the device; what `make` gives has a `learner`.
    """

    def make_run(config: Any, spec: DataSpec, axis_name: str | None = None, shards: int = 1) -> Run:
        validate_untraced(validate, config)
        without = None
        if getattr(config, "folds", None):
            if shards > 1:
                raise UserError(f"fold={config.fold} is of a run on one device, got devices={shards}; devices share folds "
                                "where all of them are trained at once")
            without = config.folds, jnp.asarray(0 if config.fold is None else config.fold).astype(jnp.int32)
        return run_of(make(config, spec, axis_name).learner, spec.num_examples, config.batch_size, axis_name, shards, without)

    return make_run


def dataset(num_examples: int, batch_size: int, without: tuple[int, Array] | None = None) -> Source:
    """Minibatches of `data`, a pytree of arrays [N, ...]; a batch is the same tree with arrays [B, ...].

    An epoch is N // B batches in which no example comes twice. The N % B examples that would make a smaller batch are
    left out of that epoch; they are others in each epoch, since the order is.

    Args:
        num_examples: N, at most 2**31 - 1.
        batch_size: B.
        without: (folds, fold), int32 (): of the N examples, cut into folds in their order, those that are left out.

    Raises:
        UserError: a size is below 1 or B is above N; `sample` raises it where `data` has not N examples.
    """
    total = num_examples
    if without is not None:
        folds, fold = without
        first, after = fold_of(total, folds, fold)
        num_examples = _without_a_fold(total, folds)
    if not 1 <= num_examples < 2**31:
        raise UserError(f"num_examples must lie between 1 and {2**31 - 1}, got {num_examples}")
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {batch_size}")
    if batch_size > num_examples:
        raise UserError(f"batch_size={batch_size} is above the {num_examples} examples of the dataset: there would be "
                        "no whole batch in an epoch; lower batch_size")
    steps = steps_per_epoch(num_examples, batch_size)

    def init(key: Key) -> DatasetState:
        return DatasetState(key, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def sample(state: DatasetState, _key: Key, _t: Array, data: PyTree) -> tuple[DatasetState, PyTree]:
        # the order is a function of the state's key alone, or an epoch would not be a permutation
        check_data(data, total)
        positions = state.batch * batch_size + jnp.arange(batch_size, dtype=jnp.int32)
        index = shuffled_index(state.key, state.epoch, positions, num_examples)
        if without is not None:
            index = jnp.where(index < first, index, index + after - first)
        batch = made.rows(data, index)
        ended = state.batch + 1 == steps
        state = DatasetState(state.key, state.epoch + ended.astype(jnp.int32), jnp.where(ended, 0, state.batch + 1))
        return state, batch

    return Source(init, sample)


def check_data(data: PyTree, num_examples: int) -> None:
    """Refuse data that has not so many examples.

    Raises:
        UserError: gives the shapes.
    """
    leaves = jax.tree.leaves(made.per_example(data))
    if not leaves or any(x.ndim == 0 or x.shape[0] != num_examples for x in leaves):
        raise UserError(f"every array of the data must have {num_examples} examples on its first axis, "
                        f"got shapes {[list(x.shape) for x in leaves]}")
