"""What an algorithm says of itself. The command line asks this of it and nothing else.

A module of an algorithm ends in one `Algorithm`; opening it on a config gives a `Task`: the algorithm on its environment or
dataset, ready to be driven, evaluated and looked at. What else a trained model can do are its `abilities`, found by type:
`task.abilities.get(Sampler)`.

Shapes: `N` images or environments, `H W C` an image, `Z` a latent.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jaxdl.core.types import Array, DataSpec, Key, Learner, PyTree, Run


class Score(NamedTuple):
    """A number that says how good something is."""

    name: str  # its key in what `evaluate` returns
    higher: bool  # better when higher
    label: str  # of its axis, with the unit

    @property
    def sign(self) -> int:
        """1 where higher is better, else -1: `sign * value` is better when higher."""
        return 1 if self.higher else -1


class Curve(NamedTuple):
    """A metric that is worth drawing over the steps of a run."""

    name: str  # of the metric; `eval/x` is the x of an evaluation
    higher: bool  # better when higher
    label: str  # of its axis, with the unit
    beside: str | None = None  # a metric that is drawn dashed beside it
    skip: float = 0.0  # share of the steps, from the first on, that does not count for the limits of the axis
    short: str | None = None  # its name in a progress bar, None: it is not shown there
    panel: bool = False  # it is drawn too, on axes of its own, where it is not the first


@dataclass(frozen=True)
class NoOptions:
    """Nothing can be chosen. An ability's options extend it."""

    def validate(self) -> None:
        """Refuse options that make no sense.

        Raises:
            UserError: names the option, what was given and what would do.
        """


@dataclass(frozen=True)
class Options(NoOptions):
    """Settings of an evaluation; an algorithm's own extend it."""

    seed: int = 0
    """Seed of the evaluation."""


class Task(NamedTuple):
    """An algorithm on its environment or dataset, ready. Nothing is compiled before `drive` is called."""

    subject: str  # the environment or the dataset
    total_steps: int  # of the planned run
    learner: Learner
    drive: Callable[..., Any]  # (configs, seeds, train config, written_by) -> runtime.device_driver.Driver
    evaluate: Callable[[PyTree, Any], dict[str, Any]]  # (params, options) -> numbers, the score's among them
    options: Any  # of `evaluate`: a dataclass with its defaults
    abilities: dict[type, Any]  # {Sampler: Sampler(...), Density: ...}
    pictures: Mapping[str, Callable[[PyTree, int, Path], None]]  # file name -> (params, seed, path): write it
    describe: Callable[[dict[str, Any]], str]  # an evaluation in words
    examples: tuple[int, str]  # what one step is of, for rates: (128, "images")
    make_run: Callable[..., Run] | None = None  # (config, axis_name=, shards=); None where environments live on the host
    splits: dict[str, Any] | None = None  # "train", "test" -> data.Dataset, where it learns from one
    warn: Callable[[dict[str, Any]], str | None] = lambda values: None  # a row of metrics -> what the user should know of it
    choose: Callable[[PyTree], dict[str, Any]] | None = None  # (params) -> numbers as of `evaluate`, but of others: they
    # decide while it trains. None: those of `evaluate` do
    spec: DataSpec | None = None  # of the training split, where there are splits


class Algorithm(NamedTuple):
    """An algorithm by name: `jaxdl train NAME`, or `package.module:OBJECT` for one from outside."""

    name: str
    summary: str
    Config: type  # its settings: a `core.config.config` whose defaults are valid
    validate: Callable[[Any], None]  # refuses settings that make no sense
    open: Callable[[Any, Any], Task]  # (config, train config) -> Task
    score: Score | Callable[[Any], Score]  # which decides what is best, sweeps and early stops; or a function of the config
    curves: tuple[Curve, ...]  # of which the first that a run has is drawn
    subject: str  # the field of the config that names what it learns from: "env_id", "dataset"
    unit: str  # of a step: "environment steps", "updates"
    TrainConfig: type | None = None  # settings of the loop; `runtime.fit.Config` if not given
    reopen: Callable[[Any, Any, DataSpec], Task] | None = None  # (config, train config, spec) -> Task of a trained run, which
    # reads its dataset when it is asked for it

    def score_of(self, config: Any) -> Score:
        """The score of a run with this config."""
        return self.score if isinstance(self.score, Score) else self.score(config)


class Sampler(NamedTuple):
    """Draws images."""

    draw: Callable[..., Array]  # (params, key, N, labels [N] int32 or None, **options) -> images [N, H, W, C] in [0, 1]
    Options: type = NoOptions  # a dataclass: how to draw
    at_once: int | None = None  # at most so many in one call
    raster: bool = False  # pixel by pixel, in the order of reading
    levels: int | None = None  # values that a pixel takes, where they are counted
    num_classes: int | None = None  # of which each image is told one; None: it is told none


class Completer(NamedTuple):
    """Draws the rest of images of which some pixels are given."""

    complete: Callable[..., Array]  # (params, key, images [N, H, W, C] uint8, known [H, W], labels or None, **options)
    num_classes: int | None = None  # of which each image is told one; None: it is told none


class Density(NamedTuple):
    """Says how likely examples are."""

    log_prob: Callable[..., Array]  # (params, examples, key, num_samples, chunk) -> [N] nats
    exact: bool  # else a bound by importance sampling, which rises with num_samples


class Latents(NamedTuple):
    """A space of continuous latents between which and beside which one can go."""

    decode: Callable[..., Array]  # (params, z [N, Z], labels or None) -> images [N, H, W, C]
    encode: Callable[..., Array] | None = None  # (params, examples, key) -> z [N, Z]
    prior: Callable[[Key, int], Array] | None = None  # (key, N) -> z [N, Z]
    num_classes: int | None = None  # of which `decode` is told one; None: it is told none


class Codes(NamedTuple):
    """Images as maps of codes out of a codebook."""

    encode: Callable[..., Array]  # (params, examples, key) -> int32 [N, h, w]
    decode: Callable[..., Array]  # (params, codes [N, h, w]) -> images [N, H, W, C]
    num_codes: int


class Reconstructor(NamedTuple):
    """Gives back images that it has seen."""

    reconstruct: Callable[..., Array]  # (params, examples, key) -> images [N, H, W, C]


class Features(NamedTuple):
    """An encoder that can be put under a classifier."""

    network: Any  # flax.linen.Module
    apply: Callable[[Any, Array], Array]  # (bound network, images [N, H, W, C]) -> features [N, F]
    prepare: Callable[[Array], Array]  # uint8 images -> what the network takes
    learned: Callable[[PyTree], dict[str, PyTree]]  # (params) -> the network's parameters in them


class Classifier(NamedTuple):
    """Tells classes apart."""

    logits: Callable[[PyTree, Array], Array]  # (params, inputs [N, ...] as the dataset has them) -> [N, Y]


class Segmenter(NamedTuple):
    """Gives each pixel a class."""

    scores: Callable[[PyTree, Array], Array]  # (params, pictures [N, H, W, C] uint8) -> [N, H, W, Y]
    class_names: tuple[str, ...]  # of the Y classes, the first is ground


class Localizer(NamedTuple):
    """Finds the one object of a picture, or joints."""

    find: Callable[[PyTree, Array], Any]  # (params, pictures [N, H, W, C] uint8) -> logits [N, Y] or None, places [N, P, 2]
    # x and y in pixels: the first corner and the last one of a box, or joints
    class_names: tuple[str, ...] | None  # of the Y classes; None: joints are found


class Captioner(NamedTuple):
    """Writes words about pictures."""

    write: Callable[..., Array]  # (params, pictures [N, H, W, C] uint8, decode, beam width, key) -> words int32 [N, L]; 0 ends
    vocabulary: tuple[str, ...]  # what each word is


class Answerer(NamedTuple):
    """Answers questions about pictures."""

    answer: Callable[..., Array]  # (params, pictures [N, H, W, C] uint8, questions [N, Q, L]) -> words int32 [N, Q, L']; 0 ends
    vocabulary: tuple[str, ...]  # what each word is


class Ensemble(NamedTuple):
    """Predicts by several trained networks together."""

    evaluate: Callable[[Sequence[PyTree], Any], dict[str, Any]]  # (params of each, options of the evaluation) -> numbers


class Writer(NamedTuple):
    """Continues texts, token by token."""

    begin: Callable[[PyTree, Array], PyTree]  # (params, prompt int32 [P, N], P above 0) -> the state after it
    extend: Callable[..., tuple[PyTree, Array]]  # (params, state, key, num, temperature, top_k) -> state, int32 [num, N]
    vocabulary: tuple[str, ...]  # what each token stands for


class Translator(NamedTuple):
    """Writes a sequence for a sequence. Token 0 ends both, and fills what is left."""

    write: Callable[..., Array]  # (params, inputs int [N, S], beam width) -> int32 [N, L]
    vocabulary: tuple[str, ...]  # what each token stands for
    length: int  # S of the examples that it learned from


class Detections(NamedTuple):
    """What is found in pictures, the surest first."""

    boxes: Array  # float32 [N, D, 4]: x0 y0 x1 y1 in pixels
    labels: Array  # int32 [N, D]: class, from 1; 0 where nothing more is found
    scores: Array  # float32 [N, D]
    masks: Array | None = None  # bool [N, D, H, W]
    joints: Array | None = None  # float32 [N, D, J, 3]: x, y and how sure; they mean something of classes that have joints


class Detector(NamedTuple):
    """Finds objects in pictures."""

    detect: Callable[[PyTree, Array], Detections]  # (params, images [N, H, W, C] uint8)
    class_names: tuple[str, ...]  # of every class, the ground first


class Film(NamedTuple):
    """Films what was learned."""

    record: Callable[[PyTree, int, Path], None]  # (params, seed, path of a .gif): one episode
