"""CIDEr-D against the published code, BLEU-4 by hand, and the form of CIDEr-D that a program can have as a reward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import jit

from jaxdl.metrics import captions as metrics
from jaxdl.ops import captions

N, R, L = 40, 3, 9


def random_texts(seed, *shape, words=7):
    """Tokens [*shape, L] of texts of 0 to L words, few of which are frequent."""
    rng = np.random.default_rng(seed)
    tokens = rng.choice(np.arange(1, words + 1), (*shape, L), p=np.arange(1, words + 1) / (words * (words + 1) / 2))
    return np.where(np.arange(L) < rng.integers(1, L + 1, (*shape, 1)), tokens, 0).astype(np.int32)


def as_words(rows):
    return [" ".join(f"w{t}" for t in row if t) for row in rows]


def test_cider_is_that_of_the_published_code():
    cider = pytest.importorskip("pycocoevalcap.cider.cider")
    references, said = random_texts(0, N, R), random_texts(1, N)
    said[:10] = references[:10, 0]  # and texts that are right
    _, expected = cider.Cider().compute_score({i: as_words(rows) for i, rows in enumerate(references)},
                                              {i: as_words([row]) for i, row in enumerate(said)})
    found = metrics.cider(said, references)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert np.ptp(found) > 1


def test_the_table_gives_what_counting_gives():
    """Where no two n-grams share a cell; counted in parts."""
    references, said = random_texts(2, N, R), random_texts(3, N)
    grams = captions.ngrams(jnp.asarray(references))
    size = 1 << 20
    known = np.unique(grams[grams > 0])
    assert len(np.unique(known % size)) == len(known)
    table = jnp.zeros(size)
    for part in (slice(0, 15), slice(15, N)):
        table = captions.counted(table, grams[part])
    assert float(table.sum()) == sum(len(np.unique(x[x > 0])) for x in np.asarray(grams))

    @jit
    def by_table(said):
        own = captions.ngrams(said)
        rare = (captions.rarity(table, jnp.float32(N), x) for x in (own, grams))
        return jax.vmap(captions.cider)(own, next(rare), grams, next(rare))

    np.testing.assert_allclose(by_table(jnp.asarray(said)), metrics.cider(said, references), rtol=1e-4, atol=1e-4)


def test_before_anything_is_counted_nothing_is_worth_anything():
    grams = captions.ngrams(jnp.asarray(random_texts(0, R)))
    rare = captions.rarity(jnp.zeros(64), jnp.zeros(()), grams)
    assert not np.asarray(rare).any()
    assert float(captions.cider(grams[0], rare[0], grams, rare)) == 0


def test_ngrams_are_within_a_text_and_differ_by_order_and_length():
    of = np.asarray(captions.ngrams(jnp.array([[1, 2, 1, 2, 0, 0], [2, 1, 0, 0, 0, 0]])))
    assert (of > 0).sum(-1).tolist() == [[4, 3, 2, 1], [2, 1, 0, 0]]
    assert of[0, 0, 0] == of[0, 0, 2] == of[1, 0, 1]
    assert of[0, 1, 0] == of[0, 1, 2] != of[0, 1, 1] == of[1, 1, 0]  # "1 2", "1 2", "2 1"
    assert len(np.unique(of[of > 0])) == 2 + 2 + 2 + 1


def test_a_right_text_is_worth_ten_and_a_longer_one_less():
    """Of two pictures whose words differ: all n-grams weigh log 2, and a text that is a reference is at 10."""
    references = np.array([[[1, 2, 3, 4, 5, 0]], [[6, 7, 8, 9, 10, 0]]])
    np.testing.assert_allclose(metrics.cider(references[:, 0], references), 10, rtol=1e-5)
    said = np.array([[1, 2, 3, 4, 0, 0], [1, 2, 3, 4, 5, 0]])
    share = np.mean([4 / 20**0.5, 3 / 12**0.5, 2 / 6**0.5, 1 / 2**0.5])  # of 5, 4, 3 and 2 n-grams one is not there
    np.testing.assert_allclose(metrics.cider(said, references), [10 * share * np.exp(-1 / 72), 0], rtol=1e-4, atol=1e-6)


def test_bleu_by_hand():
    """Five words of which "e" is wrong: 4/5, 3/4, 2/3 and 1/2 of the n-grams, and as long as the nearer reference."""
    found = metrics.bleu4(["a b c d x"], [["a b c d e", "a b c d e f g h"]])
    assert found == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25, rel=1e-6)
    short = metrics.bleu4(["a b c d"], [["a b c d e f"]])
    assert short == pytest.approx(100 * np.exp(1 - 6 / 4), rel=1e-6)
    assert metrics.bleu4(["a b c d", "a a a a"], [["a b c d"], ["a b c d"]]) < 60  # a word counts as often as it is there
