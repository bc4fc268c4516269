"""How good captions of held-out pictures are, and pictures of where a captioner looks.

Shapes: `N` pictures, `R` references of a picture, `L` words of a caption, `P` places.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from jaxdl.core import files, streams
from jaxdl.core.config import require
from jaxdl.core.streams import Purpose
from jaxdl.core.types import PyTree
from jaxdl.data import scene_grammar
from jaxdl.data.dataset import Dataset
from jaxdl.data.scene_grammar import Facts
from jaxdl.metrics import captions
from jaxdl.runtime import dataset_task
from jaxdl.supervised import report

_BLOCK = 100  # pictures whose captions are written side by side
_SHOWN = 6  # pictures
_WIDEST = 100


@dataclass(frozen=True)
class Options(dataset_task.Options):
    """Settings of an evaluation."""

    decode: Literal["greedy", "sampled", "beam"] = "greedy"
    """The likeliest word each time, drawn words, or beam search."""
    beam_width: int = 3
    """Hypotheses that beam search keeps."""

    def validate(self) -> None:
        """Refuse options that make no sense.

        Raises:
            UserError: names the option, what was given and what would do.
        """
        require(self, "beam_width", 1 <= self.beam_width <= _WIDEST, f"between 1 and {_WIDEST}")


def texts(words: np.ndarray, vocabulary: tuple[str, ...]) -> list[str]:
    """Words int [N, L] as texts, up to their ends."""
    return [" ".join(vocabulary[w] for w in row[: _length(row)]) for row in words]


def _length(row: np.ndarray) -> int:
    return int(np.argmin(row)) if (row == 0).any() else len(row)


def judge(write: Callable, nll: Callable) -> Callable[[PyTree, Options, Dataset], dict[str, Any]]:
    """`(variables, options, held-out pictures) -> numbers`: true (of scenes), bleu4, cider, nll."""
    writes = jax.jit(write, static_argnums=(2, 3))
    measures = jax.jit(nll)

    def more(variables: PyTree, options: Options, held: Dataset) -> dict[str, Any]:
        of, key = held.arrays, streams.key(options.seed, Purpose.EVALUATION)
        written, nats, num = [], 0.0, 0
        for i in range(0, held.spec.num_examples, _BLOCK):
            images, references = of.images[i : i + _BLOCK], of.words.captions[i : i + _BLOCK]
            k_words = jax.random.fold_in(key, i)
            written.append(np.asarray(writes(variables, images, options.decode, options.beam_width, k_words)))
            total, counts = measures(variables, images, references[:, i // _BLOCK % references.shape[1]].astype(np.int32))
            nats, num = nats + float(total.sum()), num + int(counts.sum())
        return figures(np.concatenate(written), held) | {"nll": nats / num}

    return more


def figures(written: np.ndarray, held: Dataset) -> dict[str, float]:
    """How good captions [N, L] are; of scenes the share that is true among them."""
    of, vocabulary = held.arrays, held.spec.vocabulary
    said = texts(written, vocabulary)
    references = [texts(rows, vocabulary) for rows in of.words.captions]
    found = {"bleu4": captions.bleu4(said, references), "cider": float(captions.cider(written, of.words.captions).mean())}
    if getattr(of.words, "colours", None) is None:
        return found
    true = [scene_grammar.caption_is_true(text, facts_of(of, i)) for i, text in enumerate(said)]
    return {"true": float(np.mean(true))} | found


def facts_of(of: Any, i: int) -> Facts:
    """What there is in the scene i."""
    return Facts(of.labels[i], of.words.colours[i], of.words.big[i], of.boxes[i])


def attention_picture(splits: Mapping[str, Dataset], looked: Callable, attention: bool) -> Callable[[PyTree, int, Path], None]:
    """(params, seed, path): write test pictures with their captions, and where each word looked."""
    program = jax.jit(looked)

    def draw(params: PyTree, seed: int, path: Path) -> None:
        test = splits["test"]
        at = report.some(test, _SHOWN, seed)
        images = test.arrays.images[at]
        words, shares = (np.asarray(x) for x in program(params, images))
        said = texts(words, test.spec.vocabulary)
        columns = 1 + (max(len(caption.split()) for caption in said) if attention else 0)
        figure = report.blank((1.25 * columns if attention else 6, 1.45 * len(at)))
        for row, axes in enumerate(figure.subplots(len(at), columns, squeeze=False)):
            caption = said[row]
            for axis in axes:
                axis.axis("off")
            axes[0].imshow(report.as_picture(images[row]), cmap="gray", vmin=0, vmax=255)
            axes[0].set_title(caption, fontsize=8, loc="left", pad=3)
            for t, word in enumerate(caption.split()[: columns - 1]):
                _draw_look(axes[1 + t], images[row], shares[row, t], word)
        files.write_bytes(path, report.png(figure))

    return draw


def _draw_look(axes: Any, image: np.ndarray, shares: np.ndarray, word: str) -> None:
    """A picture that is bright where a word looked; shares [P] of a square map."""
    height, width = image.shape[:2]
    side = round(np.sqrt(len(shares) * height / width))
    map_of = shares.reshape(side, -1)
    light = np.repeat(np.repeat(map_of, -(-height // map_of.shape[0]), 0), -(-width // map_of.shape[1]), 1)[:height, :width]
    light = 0.25 + 0.75 * light / max(light.max(), 1e-9)
    axes.imshow(np.rint(image * light[..., None]).astype(np.uint8), vmin=0, vmax=255)
    axes.set_title(word, fontsize=8, pad=2, y=-0.22)


def answers_picture(splits: Mapping[str, Dataset], answer: Callable) -> Callable[[PyTree, int, Path], None]:
    """(params, seed, path): write test pictures with their questions and what is answered; the truth beside what is wrong."""
    def draw(params: PyTree, seed: int, path: Path) -> None:
        test = splits["test"]
        of = test.rows(report.some(test, _SHOWN, seed))
        said = np.asarray(answer(params, of.images, of.words.questions))
        figure = report.blank((12, 1.55 * len(said) / 2))
        axes = figure.subplots(-(-len(said) // 2), 2, squeeze=False)
        for i, axis in enumerate(axes.flat):
            axis.axis("off")
            if i >= len(said):
                continue
            axis.imshow(report.as_picture(of.images[i]), cmap="gray", vmin=0, vmax=255)
            axis.set_anchor("W")
            for q, (question, own, truth) in enumerate(zip(*(texts(x[i], test.spec.vocabulary) for x in (
                    of.words.questions, said, of.words.answers)), strict=True)):
                wrong = "" if own == truth else f"   (it is {truth})"
                axis.text(1.06, 0.93 - 0.17 * q, f"{question}? {own}{wrong}", transform=axis.transAxes, fontsize=7,
                          color="#D55E00" if wrong else "black")
        files.write_bytes(path, report.png(figure))

    return draw
