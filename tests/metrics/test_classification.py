"""Figures of classifiers against scikit-learn's and by hand."""

import numpy as np
import pytest
from sklearn import metrics

from jaxdl.metrics import classification

RNG = np.random.default_rng(0)
SCORES, LABELS = RNG.normal(size=(200, 5)), RNG.integers(0, 4, 200)  # class 4 has no example


@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_label_is_among_the_highest(k):
    expected = metrics.top_k_accuracy_score(LABELS, SCORES, k=k, labels=range(5))
    assert classification.accuracy(SCORES, LABELS, k) == pytest.approx(expected)


def test_of_equal_scores_one_alone_is_first():
    assert classification.accuracy(np.zeros((4, 4)), np.arange(4)) == 0.25


def test_confusion_and_its_rows_are_those_of_scikit_learn():
    predicted = SCORES.argmax(-1)
    confused = classification.confusion(predicted, LABELS, 5)
    np.testing.assert_array_equal(confused, metrics.confusion_matrix(LABELS, predicted, labels=range(5)))
    expected = metrics.precision_recall_fscore_support(LABELS, predicted, labels=range(5), zero_division=np.nan)
    rows = np.array(classification.per_class(confused)).T
    np.testing.assert_allclose(rows[:, :4], np.array(expected)[:, :4])
    assert np.isnan(rows[1, 4])


def test_calibration_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.45, 0.55]])
    found = classification.calibration(probabilities, np.array([0, 1, 1, 0]), bins=2)
    np.testing.assert_array_equal(found.num, [0, 4])
    assert found.confidence[1] == pytest.approx(0.7375)
    assert found.accuracy[1] == 0.5
    assert found.error == pytest.approx(0.2375)
    certain = classification.calibration(np.eye(3)[[0, 1, 2]], np.array([0, 1, 2]))
    assert (certain.error, len(certain.num), certain.num[-1]) == (0, 15, 3)


def test_mean_average_precision_and_r2_are_those_of_scikit_learn():
    present = RNG.random((50, 4)) < 0.3
    scores = RNG.normal(size=(50, 4)) + present
    assert classification.mean_average_precision(scores, present) == pytest.approx(
        metrics.average_precision_score(present, scores, average="macro"))
    targets = RNG.normal(size=(30, 2))
    assert classification.r2(targets + 0.3, targets) == pytest.approx(metrics.r2_score(targets, targets + 0.3))
