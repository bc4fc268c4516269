"""What classifiers and regressors share: averaged weights, folds, ensembles, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics
from tools import assert_close, jit, refused, run

from jaxdl import data
from jaxdl.core.errors import UserError
from jaxdl.core.types import ArraySpec, DataSpec, Examples
from jaxdl.data import minibatches
from jaxdl.optim import Config as OptimConfig
from jaxdl.supervised import classifier, learner, regressor
from jaxdl.supervised.networks import Variables

RNG = np.random.default_rng(0)
LABELS = (ArraySpec("labels", (), "int32"),)
SPEC = DataSpec("small", 40, (4, 4, 1), 3, arrays=LABELS, target="labels", class_counts=(20, 10, 10))
BATCH = Examples(jnp.asarray(RNG.integers(0, 256, (10, 4, 4, 1)), jnp.uint8), jnp.arange(10) % 3)


def small(**how):
    return classifier.Config(**{"network": "mlp", "hidden_sizes": (6,), "batch_size": 10, "total_steps": 12} | how)


def updated(model, n, seed=0):
    """States after 0, 1 ... n updates."""
    update = jit(lambda state, key: model.learner.update(state, BATCH, key)[0])
    states = [jit(model.learner.init)(jax.random.key(seed))]
    for i in range(n):
        states.append(update(states[-1], jax.random.key(i)))
    return states


def test_weights_are_averaged_over_the_epochs_of_the_last_part():
    model = classifier.make(small(average="swa", average_from=0.4), SPEC)  # four updates an epoch, from 4.8 of 12 on
    states = updated(model, 12)
    means = [model.learner.params(s).params for s in states]
    assert_close(means[7], states[7].params)  # no epoch has ended since
    assert_close(means[8], states[8].params)
    assert_close(means[11], states[8].params)
    assert_close(means[12], jax.tree.map(lambda a, b: (a + b) / 2, states[8].params, states[12].params))


def test_statistics_of_averaged_weights_are_made_anew():
    """They are those of the averaged weights, and not of the weights that learn."""
    config = small(average="swa", average_from=0.1, norm="batch", optim=OptimConfig(learning_rate=0.1), total_steps=60)
    model = classifier.make(config, SPEC)
    state = updated(model, 60)[-1]
    mean = model.learner.params(state)
    hidden = BATCH.images.reshape(10, -1) / 255 @ mean.params["params"]["Dense_0"]["kernel"]
    found = jax.tree.leaves(mean.stats)
    drift = [np.abs(x - y).max() for x, y in zip(found, (hidden.mean(0), hidden.var(0)), strict=True)]
    assert max(drift) < 0.5 * np.abs(jax.tree.leaves(state.stats)[0] - hidden.mean(0)).max()


def test_an_exponential_average_follows():
    model = classifier.make(small(average="ema", ema_decay=0.5), SPEC)
    states = updated(model, 3)
    mean = states[0].params
    for i, state in enumerate(states[1:]):
        decay = min(0.5, (1 + i) / (10 + i))
        mean = jax.tree.map(lambda m, x, d=decay: d * m + (1 - d) * x, mean, state.params)
    assert_close(model.learner.params(states[3]).params, mean)


@pytest.mark.parametrize("fold", [0, 1, 2])
def test_a_fold_is_never_learned_from_and_all_else_once_an_epoch(fold):
    source = minibatches.dataset(10, 3, (3, jnp.int32(fold)))
    state, seen = source.init(jax.random.key(0)), []
    for _ in range(2):
        state, batch = jit(source.sample)(state, None, None, jnp.arange(10))
        seen += np.asarray(batch).tolist()
    first, after = minibatches.fold_of(10, 3, fold)
    assert len(set(seen)) == 6
    assert not set(seen) & set(range(first, after))
    assert minibatches.num_learned(small(folds=3), SPEC._replace(num_examples=10)) == 6


def test_a_hierarchical_softmax_learns_by_the_way_to_the_label():
    config = small(loss="hierarchical")
    model = classifier.make(config, SPEC)
    variables = model.learner.params(updated(model, 5)[-1])
    scores = classifier.scorer(config, model)(variables, np.asarray(BATCH.images))
    np.testing.assert_allclose(scores.sum(-1), 1, rtol=1e-5)
    update = jit(lambda state: model.learner.update(state, BATCH, jax.random.key(0))[1].metrics)
    loss = update(updated(model, 5)[-1])["loss"]
    assert loss.total / loss.count == pytest.approx(-np.log(scores[np.arange(10), BATCH.labels]).mean(), rel=1e-5)


def test_figures_are_those_of_scikit_learn():
    scores, labels = RNG.dirichlet(np.ones(7), 50).astype(np.float32), RNG.integers(0, 7, 50)
    found = classifier.figures(small(), scores, labels)
    assert found["loss"] == pytest.approx(metrics.log_loss(labels, scores, labels=range(7)), rel=1e-5)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels, scores.argmax(-1)))
    assert found["top_5"] == pytest.approx(metrics.top_k_accuracy_score(labels, scores, k=5, labels=range(7)))
    margins = RNG.normal(size=(50, 4)).astype(np.float32)
    found = classifier.figures(small(loss="hinge"), margins, labels % 4)
    own = margins[np.arange(50), labels % 4][:, None]
    assert found["loss"] == pytest.approx((np.maximum(1 + margins - own, 0).sum(-1) - 1).mean(), rel=1e-5)
    there = RNG.integers(0, 2, (50, 3))
    found = classifier.figures(small(loss="multi_label"), scores[:, :3], there)
    assert found["mean_average_precision"] == pytest.approx(metrics.average_precision_score(there, scores[:, :3]), rel=1e-5)
    assert found["loss"] == pytest.approx(metrics.log_loss(there.ravel(), scores[:, :3].ravel()), rel=1e-4)
    predicted, targets = RNG.normal(size=(2, 50, 2)).astype(np.float32)
    found = regressor.figures(predicted, targets)
    assert found["r2"] == pytest.approx(metrics.r2_score(targets, predicted), rel=1e-4)
    assert found["absolute_error"] == pytest.approx(metrics.mean_absolute_error(targets, predicted), rel=1e-5)
    assert found["root_mean_squared_error"] == pytest.approx(metrics.mean_squared_error(targets, predicted) ** 0.5, rel=1e-4)


def test_monte_carlo_agrees_with_scaling_where_a_network_is_linear():
    """Dropout before a linear layer: the mean over draws of the outputs is the output without."""
    config = small(dropout=0.4)
    model = classifier.make(config, SPEC)
    variables = model.learner.params(updated(model, 3)[-1])
    score = learner.scorer(model.logits)
    inputs = np.asarray(BATCH.images)
    plain, drawn = score(variables, inputs), score(variables, inputs, samples=4000)
    np.testing.assert_allclose(drawn, plain, atol=0.05 * np.abs(plain).max())
    assert np.abs(score(variables, inputs, samples=1) - plain).max() > 0.1 * np.abs(plain).max()


def test_losses_of_numbers_are_of_scaled_targets_and_predictions_in_their_units():
    spec = DataSpec("small", 40, (2,), arrays=(ArraySpec("y", (2,), "float32"),), input="x", target="y",
                    target_scale=((100.0, -3.0), (50.0, 0.0)))
    model = regressor.make(regressor.Config(loss="l1", hidden_sizes=(3,), batch_size=4, total_steps=5), spec)
    state = jit(model.learner.init)(jax.random.key(0))
    zero = jax.tree.map(jnp.zeros_like, state.params)
    x, y = jnp.ones((4, 2)), jnp.array([[150.0, -3], [100, -3], [50, -2], [100, -3]])
    assert_close(model.predict(Variables(zero, {}), x), np.tile([100.0, -3.0], (4, 1)))  # a deviation of 0 scales nothing
    update = jit(lambda state: model.learner.update(state, {"x": x, "y": y}, jax.random.key(0))[1].metrics)
    found = {name: float(m.total / m.count) for name, m in update(state._replace(params=zero)).items()}
    assert found["loss"] == pytest.approx((1 / 2 + 0 + (1 + 1) / 2 + 0) / 4)
    assert found["absolute_error"] == pytest.approx((50 / 2 + 0 + (50 + 1) / 2 + 0) / 4)


def npz(tmp_path, **arrays):
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    return "--dataset", "arrays", "--data-dir", path


MLP = ("--network", "mlp")
X, Y = RNG.normal(size=(40, 3)).astype(np.float32), np.arange(40) % 2


@pytest.mark.parametrize(("algo", "arrays", "flags", "sentence"), [
    ("classifier", {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y}, (), "network=conv needs pictures"),
    ("classifier", {"x": np.where(X > 2, np.nan, X), "y": Y}, MLP, "x of the train split of arrays must be finite"),
    ("classifier", {"x": X, "y": 0 * Y}, MLP, "two classes or more"),
    ("classifier", {"x": X, "y": np.where(Y > 0, 2, 0)}, MLP, "have none of class 1"),
    ("classifier", {"x": X, "y": -Y}, MLP, "y must lie between 0"),
    ("classifier", {"x": X, "y": X[:, 0]}, MLP, "train a regressor"),
    ("classifier", {"x": X, "y": X}, (*MLP, "--loss", "multi_label"), "targets of 0 and 1"),
    ("classifier", {"x": X, "y": np.eye(2, dtype=int)[Y]}, MLP, "use loss=multi_label"),
    ("classifier", {"x": X, "y": Y}, (*MLP, "--folds", "33"), "folds=33 is above the 32 training examples"),
    ("classifier", {"x": X, "y": (np.arange(40) == 3).astype(int)}, (*MLP, "--folds", "8", "--batch-size", "4"),
     "have none of class 1"),
    ("regressor", {"x": X, "y": Y}, (), "train a classifier"),
    ("regressor", {"x": X}, (), "has none"),
])
def test_a_dataset_that_cannot_be_learned_from_is_one_sentence(algo, arrays, flags, sentence, tmp_path, capsys):
    told = refused(capsys, "train", algo, *npz(tmp_path, **arrays), "--batch-size", 8, "--out", tmp_path / "run", *flags)
    assert sentence in told
    assert not (tmp_path / "run").exists()


def test_settings_that_make_no_sense_are_refused():
    for config, sentence in [
            (small(folds=1), "folds must be above 1"), (small(fold=0.0), "fold=0 is of folds"),
            (small(folds=3, fold=3.0), "fold must be between 0 and folds - 1 = 2, got 3.0"),
            (small(dropout=1.0), "dropout must be"), (classifier.Config(network="resnet", depth=21), "depth must be one of"),
            (classifier.Config(network="squeezenet", loss="hierarchical"), "last layer that is dense"),
            (small(stochastic_depth=0.2), "is of network=resnet"), (small(loss="hinge", label_smoothing=0.1), "is of loss=")]:
        with pytest.raises(UserError, match=sentence):
            classifier.validate(config)


def test_folds_are_members_of_one_program_and_predict_together(tmp_path, capsys):
    """The whole way by the command line: a cross-validation, its ensemble, its snapshots, one of its members by itself."""
    folder, flags = tmp_path / "folds", (*MLP, "--hidden-sizes", 8, "--total-steps", 40, "--quick-compile")
    summary = run(capsys, "train", "classifier", "--folds", 2, *flags, "--checkpoint-every", 20, "--out", folder)
    assert [(m["fold"], m["num"]) for m in summary["eval"]["members"]] == [(0, 718), (1, 719)]
    assert run(capsys, "evaluate", folder)["accuracy"] == summary["eval"]["accuracy"]
    together = run(capsys, "evaluate", folder, "--ensemble")
    assert (together["networks"], together["num"]) == (2, 360)
    assert run(capsys, "evaluate", folder, "--snapshots", 2)["networks"] == 4
    alone = run(capsys, "train", "classifier", "--folds", 2, "--fold", 1, *flags, "--out", tmp_path / "one")
    assert alone["eval"]["accuracy"] == pytest.approx(summary["eval"]["members"][1]["accuracy"], abs=0.005)
    more = run(capsys, "evaluate", tmp_path / "one", "--ensemble", "--others", folder, "--out", tmp_path / "pictures")
    assert more["networks"] == 3
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        "confusion.png", "classes.csv", "mistakes.png", "reliability.png"}
    other = tmp_path / "other"
    run(capsys, "train", "classifier", *flags, "--hidden-sizes", 9, "--out", other)
    for words, sentence in [((other, "--ensemble"), "is one; train with --num-seeds"),
                            ((folder, "--ensemble", "--others", other), "an ensemble is of one network"),
                            ((folder, "--snapshots", 0), "snapshots must be between 2 and the"),
                            ((folder, "--snapshots", 9), "snapshots must be between 2 and the")]:
        assert sentence in refused(capsys, "evaluate", *words)


def test_probabilities_are_averaged():
    digits = {name: data.load("digits", split=name) for name in ("train", "test")}
    config = small(total_steps=5)
    spec = digits["train"].spec
    model = classifier.make(config, spec)
    members = [model.learner.params(model.learner.init(jax.random.key(k))) for k in range(3)]
    can = {}
    found = classifier._evaluation(config, type("Train", (), {"seed": 0}), digits, model, can)
    told = can[classifier.Ensemble].evaluate(members, found.options)
    mean = np.mean([jax.nn.softmax(model.logits(m, digits["test"].images)) for m in members], 0)
    assert told["accuracy"] == pytest.approx((mean.argmax(-1) == digits["test"].labels).mean())
    own = mean[np.arange(360), digits["test"].labels]
    assert told["loss"] == pytest.approx(-np.log(own).mean(), rel=1e-5)
