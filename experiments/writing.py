"""`jaxdl sample` of what writes: texts that continue a prompt, printed while they are written, and sequences for sequences.

Shapes: `N` texts, `P` characters of the prompt.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.core import files, stdio, streams
from jaxdl.core.errors import UserError
from jaxdl.core.streams import Purpose
from jaxdl.core.task import Translator, Writer
from jaxdl.data import text
from jaxdl.experiments import tasks
from jaxdl.experiments.commands import common

_CHUNK = 32  # characters that are written between two prints


@dataclass(frozen=True, kw_only=True)
class Args(common.RunArgs):
    """Flags of what writes texts."""

    prompt: str = ""
    """What the texts begin with; the first character of the vocabulary, which is a line's end in most texts, if not given."""
    length: int = 500
    """Characters to write after it."""
    num: int = 1
    """Texts to write, all at once."""
    temperature: float = 1.0
    """Above 1 is more surprising, below 1 less; 0 takes the likeliest character each time."""
    top_k: int | None = None
    """Draw among so many of the likeliest characters."""
    seed: int = 0
    """Seed of the draws."""
    out: Path | None = None
    """Also write the texts into this file."""


@dataclass(frozen=True, kw_only=True)
class TranslateArgs(common.RunArgs):
    """Flags of what writes a sequence for each sequence."""

    prompt: tuple[str, ...]
    """The sequences that are given, as many as you like."""
    beam_width: int = 1
    """Hypotheses that beam search keeps; 1 writes the likeliest token each time."""


def translate(args: TranslateArgs) -> dict[str, Any]:
    """Write a sequence for each of the sequences that are given."""
    common.check_between("beam_width", args.beam_width, 1, 1000)
    if not args.prompt or not all(args.prompt):
        raise UserError("prompt must be one sequence or more, none of them empty")
    opened = tasks.load_first(args.run, step=args.step, data_dir=args.data_dir, task=args.task)
    translator = opened.task.abilities[Translator]
    given = [text.encode(prompt, translator.vocabulary) for prompt in args.prompt]
    longest = max(map(len, given))
    if longest >= translator.length:
        stdio.say(f"jaxdl: the longest prompt has {longest} tokens, and those that were learned from have at most "
                  f"{translator.length - 1}")
    inputs = np.stack([np.pad(x, (0, longest + 1 - len(x))) for x in given])
    written = jax.jit(translator.write, static_argnums=2)(opened.params, inputs, args.beam_width)
    texts = [text.decode(row, translator.vocabulary) for row in np.asarray(written)]
    for prompt, answer in zip(args.prompt, texts, strict=True):
        print(f"{prompt} -> {answer}")
    return {"num": len(texts), "beam_width": args.beam_width, "prompts": list(args.prompt), "texts": texts}


def run(args: Args | TranslateArgs) -> dict[str, Any]:
    """Write texts with a language model, or a sequence for each sequence."""
    return translate(args) if isinstance(args, TranslateArgs) else write(args)


def write(args: Args) -> dict[str, Any]:
    """Write texts with a language model."""
    common.check_between("num", args.num, 1, 10_000)
    common.check_between("length", args.length, 1, 1_000_000)
    common.check_between("temperature", args.temperature, 0, 1e6)
    common.check_seed(args.seed)
    if args.top_k is not None and args.top_k < 1:
        raise UserError(f"top_k must be above 0, got {args.top_k}")
    if args.out is not None:
        common.check_parent(args.out)
    opened = tasks.load_first(args.run, step=args.step, data_dir=args.data_dir, task=args.task)
    writer = opened.task.abilities[Writer]
    prompt = args.prompt or writer.vocabulary[0]
    tokens = np.repeat(text.encode(prompt, writer.vocabulary)[:, None], args.num, 1)

    began = time.perf_counter()
    chunk = min(_CHUNK, args.length)
    state = jax.jit(writer.begin)(opened.params, jnp.asarray(tokens))
    extend = jax.jit(lambda params, state, key: writer.extend(params, state, key, chunk, args.temperature, args.top_k))
    keys = jax.random.split(streams.key(args.seed, Purpose.SAMPLES), -(-args.length // chunk))
    extend = extend.lower(opened.params, state, keys[0]).compile()
    compiled = time.perf_counter()
    alone, left, parts = args.num == 1, args.length, []
    if alone:
        print(args.prompt, end="", flush=True)
    for key in keys:
        state, drawn = extend(opened.params, state, key)
        parts.append(np.asarray(drawn)[:left])
        left -= chunk
        if alone:
            print(text.decode(parts[-1][:, 0], writer.vocabulary), end="", flush=True)
    took = time.perf_counter() - compiled
    texts = [args.prompt + text.decode(column, writer.vocabulary) for column in np.concatenate(parts).T]
    if alone:
        print()
    else:
        for i, one in enumerate(texts):
            print(f"--- {i + 1} of {args.num}\n{one}")
    if args.out is not None:
        files.write_bytes(args.out, "\n\n".join(texts).encode())
        stdio.say(str(args.out))
    return {"num": args.num, "seed": args.seed, "length": args.length, "compile_s": round(compiled - began, 3),
            "sample_s": round(took, 4), "characters_per_s": round(args.num * args.length / took, 1), "texts": texts}
