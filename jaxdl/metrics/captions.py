"""How good captions are, beside several references each: BLEU-4 and CIDEr-D.

Shapes: `N` pictures, `R` references of each, `L` tokens of a text.
"""

from collections.abc import Sequence

import jax
import numpy as np

from jaxdl.ops import captions


def bleu4(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """BLEU of up to 4-grams of all texts together, 0 to 100 (Papineni et al. 2002), by sacreBLEU (Post 2018).

    Args:
        texts: N, words with blanks between.
        references: R of each text.
    """
    from sacrebleu.metrics import BLEU  # slow to import

    streams = [list(stream) for stream in zip(*references, strict=True)]
    return float(BLEU(tokenize="none", force=True).corpus_score(list(texts), streams).score)


def cider(texts: np.ndarray, references: np.ndarray) -> np.ndarray:
    """CIDEr-D of each text, [N] (`ops.captions`); how rare n-grams are is counted in these references.

    Args:
        texts: tokens [N, L], 0 ends a text.
        references: [N, R, L'].
    """
    said, theirs = (np.asarray(captions.ngrams(x)) for x in (texts, references))
    of_picture = [np.unique(x[x > 0]) for x in theirs]
    known, pictures = np.unique(np.concatenate(of_picture), return_counts=True)

    def rarity(grams: np.ndarray) -> np.ndarray:
        at = np.minimum(np.searchsorted(known, grams), len(known) - 1)
        have = np.where(known[at] == grams, pictures[at], 1)
        return (np.log(len(texts)) - np.log(have)).astype(np.float32)

    return np.asarray(_cider(said, rarity(said), theirs, rarity(theirs)))


_cider = jax.jit(jax.vmap(captions.cider))
