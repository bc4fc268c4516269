"""The loop around a run: its grid of steps, its one compilation, what stops it and what it leaves."""

import itertools
import json
import os
import shutil
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import jit, same_bits

from jaxdl import data
from jaxdl.agents import dqn
from jaxdl.core.errors import CheckpointError, EnvError, JaxdlError, UserError
from jaxdl.core.packing import Packing
from jaxdl.core.run import Report, advance
from jaxdl.core.task import Score
from jaxdl.core.types import Mean
from jaxdl.generative import vae
from jaxdl.optim import Config as OptimConfig
from jaxdl.rl import envs
from jaxdl.rl.host_driver import make_host_driver
from jaxdl.runtime import checkpoint, chunks, fit, run_log
from jaxdl.runtime.device_driver import make_device_driver

DIGITS = data.load("digits")
SPEC = DIGITS.spec
DQN = dqn.Config(num_envs=4, total_steps=1_000, buffer_size=800, batch_size=8, learning_starts=50, hidden_sizes=(8,))
VAE = vae.Config(total_steps=60, hidden_sizes=(8,), latent_size=2, batch_size=32)


def agent(config=DQN, seeds=(0,)):
    return make_device_driver(dqn.make_run, [config], None, seeds)


def model(config=VAE, seeds=(0,)):
    return make_device_driver(lambda c: vae.make_run(c, SPEC), [config], DIGITS.on_device(), seeds)


@pytest.fixture(scope="module")
def drivers():
    return {"dqn": agent(), "vae": model()}


TOTAL = {"dqn": 1_000, "vae": 60}


@pytest.mark.parametrize("name", ["dqn", "vae"])
def test_a_resumed_run_has_the_bits_of_a_straight_one(drivers, name, tmp_path):
    driver, total = drivers[name], TOTAL[name]
    straight = fit.fit(driver, fit.Config(), total)
    half = fit.Config(stop_step=total // 2, checkpoint_every=total // 7)
    fit.fit(driver, half, total, folder=tmp_path)
    resumed = fit.fit(driver, fit.Config(log_every=7), total, folder=tmp_path, resume=True)
    same_bits(resumed.state, straight.state)
    assert resumed.step == straight.step <= total
    assert resumed.updates == straight.updates


@pytest.mark.parametrize("total", [1_000, 999, 997, 61])
def test_no_step_is_taken_past_the_end(drivers, total):
    driver = drivers["dqn"]
    result = fit.fit(driver, fit.Config(log_every=30), total)
    assert total - driver.stride < result.step <= total
    assert int(result.state.t) == result.step
    assert result.updates == (result.step - driver.first_step) // driver.stride


def test_a_run_is_traced_once_whatever_its_chunks():
    traces = []

    def make_run(config):
        run = dqn.make_run(config)

        def step(state, data):
            traces.append(1)
            return run.step(state, data)

        return run._replace(step=step)

    driver = make_device_driver(make_run, [DQN], None, [0])
    assert len(traces) == 1
    fit.fit(driver, fit.Config(log_every=36, checkpoint_every=52), 1_000)
    assert len(traces) == 1


def test_steps_in_loops_of_known_length_are_the_steps_one_by_one():
    """As a GPU has them, and wherever a chunk is cut."""
    run, examples = vae.make_run(VAE, SPEC), DIGITS.on_device()
    start = run.init(jax.random.key(0), examples)
    go = jit(lambda state, n, loop: advance(run, state, examples, n, loop), static_argnums=2)
    whole, report = go(start, 11, 4)
    assert int(whole.t) == 11
    for cuts in ((3, 8), (4, 7), (1, 4, 6)):
        state = start
        for n in cuts:
            state, _ = go(state, n, 4)
        same_bits(state, whole)
    alone, said = go(start, 11, 1)
    same_bits((alone.source, alone.key), (whole.source, whole.key))
    for a, b in zip(jax.tree.leaves((alone.learner, said)), jax.tree.leaves((whole.learner, report)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_chunks_are_whole_loops_up_to_the_next_target(drivers):
    driver, taken = drivers["vae"]._replace(loop=4), []

    def chunk(state, n, report=None):
        taken.append(n)
        return driver.chunk(state, n, report)

    fit.fit(driver._replace(chunk=chunk), fit.Config(log_every=30, checkpoint_every=60), 60)
    assert sum(taken) == 60
    ends = np.cumsum(taken)
    assert all(n % 4 == 0 or end % 30 == 0 for n, end in zip(taken, ends, strict=True))
    assert taken[0] == 4


def test_sums_of_metrics_are_right_however_many_steps_they_are_of():
    """A float32 alone loses a tenth of 2^24 additions of 1.3, and stands still after 2^24 ones."""
    step = {"loss": Mean(jnp.float32(1.3), jnp.float32(1))}
    many = 2**24 + 1000
    report = jit(lambda report: jax.lax.fori_loop(0, many, lambda t, r: r.add(step, t), report))(Report.empty(step))
    assert report.metrics["loss"].count == many
    assert report.metrics["loss"].total == pytest.approx(1.3 * many, rel=1e-6)


def test_rows_are_written_on_one_grid_whatever_the_resume(drivers, tmp_path):
    config = fit.Config(log_every=100)
    fit.fit(drivers["dqn"], config, 1_000, folder=tmp_path / "whole")
    fit.fit(drivers["dqn"], fit.Config(log_every=100, stop_step=430), 1_000, folder=tmp_path / "cut")
    fit.fit(drivers["dqn"], config, 1_000, folder=tmp_path / "cut", resume=True)
    whole, cut = ([json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
                  for name in ("whole", "cut"))
    assert [row["step"] for row in whole] == list(range(100, 1001, 100))
    assert [row["step"] for row in cut if row["step"] % 100 == 0] == list(range(100, 1001, 100))


def rows_of(folder):
    """The rows of a run, but for the times in them."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in ("wall_s", "steps_per_s")} for row in rows]


def slices(driver, lengths):
    """A driver whose chunks are cut into pieces of these lengths, as a slow machine cuts them."""
    lengths = itertools.cycle(lengths)

    def chunk(state, n, report=None):
        while n:
            some = min(n, next(lengths))
            state, report = driver.chunk(state, some, report)
            n -= some
        return state, report

    return driver._replace(chunk=chunk)


@pytest.mark.parametrize("name", ["dqn", "vae", "population"])
def test_the_rows_of_a_run_do_not_depend_on_its_pace_nor_on_where_it_was_interrupted(drivers, name, tmp_path):
    driver, total = (agent(seeds=(3, 5)), 1_000) if name == "population" else (drivers[name], TOTAL[name])
    config = fit.Config(log_every=total // 7)
    fit.fit(slices(driver, [1000]), config, total, folder=tmp_path / "whole")
    fit.fit(slices(driver, [1, 2, 3]), fit.Config(log_every=total // 7, stop_step=total // 2), total, folder=tmp_path / "cut")
    rows = (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "cut" / "metrics.jsonl").write_text("".join(rows[:-1]))  # that of its end, which the whole run has not
    fit.fit(slices(driver, [5, 1]), config, total, folder=tmp_path / "cut", resume=True)
    cut = [row for row in rows_of(tmp_path / "cut") if row["step"] in {row["step"] for row in rows_of(tmp_path / "whole")}]
    assert cut == rows_of(tmp_path / "whole")


@pytest.mark.parametrize("when", ["before the row", "in the evaluation", "after the row"])
def test_a_run_killed_after_its_checkpoint_has_its_rows_and_evaluations_once(drivers, when, tmp_path, monkeypatch):
    driver, score = drivers["vae"], Score("nll", higher=False, label="")
    config = fit.Config(log_every=10, eval_every=20, checkpoint_every=20)
    whole = fit.fit(driver, config, 60, folder=tmp_path / "whole", score=score, evaluate=lambda params: {"nll": 2.0})

    class Killed(BaseException):
        pass

    def row(self, step, values, row=run_log.Log.row):
        if step == 40 and when == "before the row":
            raise Killed
        row(self, step, values)
        if step == 40 and when == "after the row":
            raise Killed

    def evaluate(params, calls=[]):  # noqa: B006
        calls.append(1)
        if len(calls) == 2 and when == "in the evaluation":
            raise Killed
        return {"nll": 2.0}

    with monkeypatch.context() as patch:
        patch.setattr(run_log.Log, "row", row)
        with pytest.raises(Killed):
            fit.fit(driver, config, 60, folder=tmp_path / "cut", score=score, evaluate=evaluate)
    assert checkpoint.steps(tmp_path / "cut" / "checkpoints")[-1] == 40
    resumed = fit.fit(driver, config, 60, folder=tmp_path / "cut", score=score, evaluate=lambda params: {"nll": 2.0},
                      resume=True)
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")
    same_bits(resumed.state, whole.state)
    assert resumed.eval == whole.eval


def test_an_evaluation_that_fails_at_the_end_costs_nothing_and_is_made_up_for(drivers, tmp_path):
    def broken(params):
        raise ZeroDivisionError("no spread")

    config = fit.Config(log_every=20)
    result = fit.fit(drivers["vae"], config, 60, folder=tmp_path, evaluate=broken)
    assert (result.ended, result.eval, type(result.failed)) == ("finished", None, ZeroDivisionError)
    assert checkpoint.steps(tmp_path / "checkpoints")[-1] == 60
    before = rows_of(tmp_path)
    again = fit.fit(drivers["vae"], config, 60, folder=tmp_path, evaluate=lambda params: {"nll": 1.0}, resume=True)
    assert (again.ended, again.eval, again.failed) == ("finished", [{"nll": 1.0}], None)
    assert rows_of(tmp_path) == [*before[:-1], before[-1] | {"eval/nll": 1.0}]


@pytest.mark.parametrize("change", [shutil.rmtree, lambda path: path.rename(path.with_name("renamed"))])
def test_a_run_whose_folder_is_removed_or_renamed_ends_with_a_sentence(drivers, change, tmp_path):
    driver, taken = drivers["dqn"], []

    def chunk(state, n, report=None):
        taken.append(n)
        if len(taken) == 3:
            change(tmp_path / "run")
        return driver.chunk(state, n, report)

    with pytest.raises(JaxdlError, match="run was removed, renamed or replaced") as e:
        fit.fit(driver._replace(chunk=chunk), fit.Config(), 1_000, folder=tmp_path / "run")
    assert not isinstance(e.value, UserError)  # which would be status 2
    assert not (tmp_path / "run").exists()


def test_what_is_not_finite_is_named_with_the_step_and_the_last_good_checkpoint(tmp_path):
    config = vae.Config(total_steps=60, hidden_sizes=(8,), latent_size=2, batch_size=32,
                        optim=OptimConfig(optimizer="sgd", learning_rate=1e30))
    with pytest.raises(fit.TrainingError, match=r"no longer finite at step \d+; no checkpoint was written"):
        fit.fit(model(config), fit.Config(), 60, folder=tmp_path / "at once")
    driver = model()
    calls = []

    def chunk(state, n, report=None):
        calls.append(n)
        state, report = driver.chunk(state, n, report)
        if sum(calls) > 20:
            report = type(report)(np.full_like(report.totals, np.nan), np.int32(17), report.names)
        return state, report

    with pytest.raises(fit.TrainingError, match=r"\w+ is no longer finite at step 17; the last good .* is step 20 in"):
        fit.fit(driver._replace(chunk=chunk), fit.Config(checkpoint_every=20), 60, folder=tmp_path / "later")
    assert checkpoint.steps(tmp_path / "later" / "checkpoints") == [20]


def test_the_step_of_the_first_metric_that_is_not_finite_is_found():
    config = vae.Config(total_steps=60, hidden_sizes=(8,), latent_size=2, batch_size=32,
                        optim=OptimConfig(optimizer="sgd", learning_rate=1e30))
    driver = model(config)
    _, report = driver.chunk(driver.start(), 1)
    assert report.bad_step == -1  # the first loss is of the first parameters
    _, report = driver.chunk(driver.start(), 9)
    assert report.bad_step == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_at_a_chunk_with_a_checkpoint(drivers, number, tmp_path):
    driver = drivers["dqn"]

    def chunk(state, n, report=None):
        os.kill(os.getpid(), number)
        return driver.chunk(state, n, report)

    before = signal.getsignal(number)
    result = fit.fit(driver._replace(chunk=chunk), fit.Config(), 1_000, folder=tmp_path)
    assert signal.getsignal(number) is before
    assert result.ended == "interrupted"
    assert result.step < 1_000
    assert checkpoint.steps(tmp_path / "checkpoints") == [result.step]


def test_an_evaluation_that_reaches_the_goal_ends_the_run(drivers, tmp_path):
    scores = iter([1.0, 7.0, 3.0, 9.0])
    config = fit.Config(eval_every=200, stop_at=8.0)
    result = fit.fit(drivers["dqn"], config, 1_000, folder=tmp_path, score=Score("return_mean", higher=True, label=""),
                     evaluate=lambda params: {"return_mean": next(scores)})
    assert (result.ended, result.step, result.eval) == ("reached", 800, [{"return_mean": 9.0}])
    assert checkpoint.read_meta(tmp_path / "best", 800)["score"] == 9.0


def test_a_run_that_gets_no_better_ends_and_its_best_parameters_are_kept(drivers, tmp_path):
    """Two evaluations in a row that are no better; a resumed run counts those before it."""
    scores, score = [9.0, 4.0, 7.0, 2.0, 3.0, 2.0, 1.0], Score("nll", higher=False, label="")
    for name, ends in (("whole", (60,)), ("in parts", (40, 60))):
        told = iter(scores)
        for end in ends:
            result = fit.fit(drivers["vae"], fit.Config(eval_every=10, patience=2, stop_step=end), 80, folder=tmp_path / name,
                             score=score, evaluate=lambda params: {"nll": next(told)}, resume=end != ends[0])  # noqa: B023
        assert (result.ended, result.step) == ("reached", 60), name
        assert checkpoint.steps(tmp_path / name / "best") == [40]
    with pytest.raises(UserError, match="patience=2 needs eval_every"):
        fit.validate(fit.Config(patience=2))


def test_a_score_of_which_less_is_better_ends_the_run_when_it_falls_so_far(drivers, tmp_path):
    scores = iter([9.0, 4.0, 7.0, 2.0])
    result = fit.fit(drivers["vae"], fit.Config(eval_every=10, stop_at=3.0), 60, folder=tmp_path,
                     score=Score("nll", higher=False, label=""), evaluate=lambda params: {"nll": next(scores)})
    assert (result.ended, result.step) == ("reached", 40)
    assert checkpoint.steps(tmp_path / "best") == [40]


@pytest.mark.parametrize("make", [agent, model])
def test_a_member_of_a_population_is_the_single_run_of_its_seed(make):
    population, single = make(seeds=(3, 5)), make(seeds=(5,))
    many, _ = population.chunk(population.start(), 3)
    one, _ = single.chunk(single.start(), 3)
    for x, y in zip(jax.tree.leaves(population.params(many)), jax.tree.leaves(single.params(one)), strict=True):
        assert np.linalg.norm(x[1] - y) <= 1e-5 * np.linalg.norm(y) + 1e-7


def test_checkpoints_without_the_memory_are_small_and_resume_with_one_filled_anew(drivers, tmp_path):
    config = fit.Config(checkpoint_memory=False, stop_step=500)
    fit.fit(drivers["dqn"], config, 1_000, folder=tmp_path)
    result = fit.fit(drivers["dqn"], fit.Config(checkpoint_memory=False), 1_000, folder=tmp_path, resume=True)
    assert result.step == 1_000
    assert int(result.state.source.memory.size.sum()) < 800  # not the one of a run of 1,000 steps


def test_checkpoints_that_do_not_fit_the_disk_are_refused_before_anything_is_done(drivers, tmp_path, monkeypatch):
    usage = fit.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(fit.shutil, "disk_usage", lambda path: usage._replace(free=1_000))
    with pytest.raises(UserError, match="do not fit"):
        fit.fit(drivers["dqn"], fit.Config(), 1_000, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("train_freq", [1, 3])
def test_a_run_on_the_host_takes_the_steps_it_says_and_goes_on_after_a_checkpoint(train_freq, tmp_path):
    config = dqn.Config(num_envs=2, total_steps=400, buffer_size=400, batch_size=8, learning_starts=50, hidden_sizes=(8,),
                        backend="host", train_freq=train_freq, gradient_steps=2)
    spec = envs.spec(config.env_id)
    driver = make_host_driver(lambda c: dqn.make_host_run(c, spec), config, envs.make_host(config.env_id, 2, "sync"), 0)
    try:
        fit.fit(driver, fit.Config(stop_step=200), 400, folder=tmp_path)
        result = fit.fit(driver, fit.Config(), 400, folder=tmp_path, resume=True)
    finally:
        driver.close()
    assert result.step - 2 < int(result.state.t) <= result.step <= 400
    assert result.updates == 2 * (result.step - driver.first_step) // driver.stride
    assert int(result.state.source.memory.size.sum()) == int(result.state.t)  # steps that only reset are none


def test_a_packed_tree_comes_back_bit_by_bit():
    tree = {"key": jax.random.key(3), "small": jnp.arange(5.0), "flag": jnp.array([True, False]), "count": jnp.int32(7),
            "large": jax.random.normal(jax.random.key(0), (300, 100))}
    packing = Packing.of(tree)
    buffers = packing.pack(tree)
    assert len(buffers) == len({"float32", "bool", "int32", "uint32"}) + 1
    same_bits(packing.unpack(buffers), tree)
    same_bits(packing.unpack([np.asarray(b) for b in buffers]), tree)


def test_a_warning_is_printed_once_on_stderr(drivers, capsys):
    asked = []

    def warn(values):
        asked.append(values)
        return "that looks odd" if len(asked) > 1 else None

    fit.fit(drivers["vae"], fit.Config(log_every=10), 60, callbacks=fit.Callbacks(warn=warn))
    said = capsys.readouterr()
    assert [line for line in said.err.splitlines() if line.startswith("jaxdl: ")] == ["jaxdl: that looks odd"]
    assert len(asked) == 2  # a row without a warning, and the one with it: no other is asked about
    assert all("loss" in values for values in asked)
    assert "odd" not in said.out


def test_an_environment_that_fails_leaves_the_last_good_checkpoint_whole_and_named(drivers, tmp_path):
    driver, taken = drivers["dqn"], []

    def chunk(state, n, report=None):
        taken.append(n)
        if driver.first_step + sum(taken) * driver.stride > 300:
            raise EnvError("Motor-v0 failed: the motor broke, at environment step 304")
        return driver.chunk(state, n, report)

    broken = driver._replace(chunk=chunk)
    message = "the motor broke, at environment step 304; the last good checkpoint is step 252 in .*"
    with pytest.raises(fit.TrainingError, match=message):
        fit.fit(broken, fit.Config(checkpoint_every=252, log_every=50), 1_000, folder=tmp_path / "run")
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [252]
    resumed = fit.fit(driver, fit.Config(), 1_000, folder=tmp_path / "run", resume=True)
    same_bits(resumed.state, fit.fit(driver, fit.Config(), 1_000).state)
    with pytest.raises(fit.TrainingError, match=r"at environment step 304; no checkpoint was written before it"):
        fit.fit(broken, fit.Config(), 1_000, folder=tmp_path / "at once")


def test_an_environment_that_fails_in_an_evaluation_loses_nothing_of_the_training(drivers, tmp_path):
    def evaluate(params):
        raise EnvError("Motor-v0 failed: the motor broke")

    with pytest.raises(fit.TrainingError, match=r"the motor broke; the last good checkpoint is step 400 in .*"):
        fit.fit(drivers["dqn"], fit.Config(eval_every=400, checkpoint_every=2_000), 1_000, folder=tmp_path, evaluate=evaluate)
    assert checkpoint.steps(tmp_path / "checkpoints") == [400]


@pytest.mark.parametrize(("higher", "members", "reached"), [
    (True, [1.0, 9.0], False), (True, [4.0, 7.0], True), (False, [1.0, 10.0], False), (False, [4.0, 5.5], True)])
def test_a_population_has_reached_what_its_mean_has(drivers, higher, members, reached, tmp_path):
    driver = drivers["dqn"]._replace(params=np.float32, members=2)
    config, score = fit.Config(eval_every=1, stop_at=5.2), fit.Score("score", higher, "score")
    kept = []
    checkpoints = fit._Checkpoints(None, config, {}, driver, None)
    checkpoints.keep_best = lambda step, state, mean: kept.append(mean)
    evaluator = fit._Evaluator(lambda params: {"score": float(params)}, score, config, driver, checkpoints)
    row = evaluator.run(7, members, None, at_end=False)
    np.testing.assert_array_equal(row["eval/score"], members)
    assert evaluator.reached == reached
    assert kept == [score.sign * np.mean(members)]


def test_a_metric_that_only_some_members_counted_is_told_of_those():
    metrics = chunks.Metrics(0, 2)
    sums = np.array([[6.0, 3.0, 1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]], np.float32)
    metrics.report = Report(np.concatenate([sums, 0 * sums], -1), np.full(2, -1), ("episode_return", "loss", "none"))
    means = metrics.means()
    np.testing.assert_array_equal(means["episode_return"], [2.0, np.nan])
    np.testing.assert_array_equal(means["loss"], [1.0, 1.0])
    assert "none" not in means


def test_a_folder_may_be_a_string_and_an_end_that_is_rounded_down_is_said(drivers, tmp_path, capsys):
    result = fit.fit(drivers["dqn"], fit.Config(), 303, folder=str(tmp_path / "run"))
    assert checkpoint.steps(tmp_path / "run" / "checkpoints")[-1] == result.step < 303
    said = f"jaxdl: the run ended at step {result.step} and not at 303: it takes {drivers['dqn'].stride} at a time"
    assert said in capsys.readouterr().err
    fit.fit(drivers["dqn"], fit.Config(), result.step)
    assert "and not at" not in capsys.readouterr().err


@pytest.mark.parametrize("total", ["100", 1.5, 0, -3, None])
def test_what_is_no_number_of_steps_is_refused_in_python_too(drivers, total):
    with pytest.raises(UserError, match="total_steps must be a whole number above 0, got"):
        fit.fit(drivers["vae"], fit.Config(), total)
    with pytest.raises(UserError, match="keep_checkpoints must be above 0, got 0"):
        fit.fit(drivers["vae"], fit.Config(keep_checkpoints=0), 10)


def test_an_evaluation_without_the_score_that_was_promised_is_named(drivers):
    with pytest.raises(UserError, match="evaluations must have the score elbo, got accuracy, num"):
        fit.fit(drivers["vae"], fit.Config(eval_every=10), 60, evaluate=lambda params: {"accuracy": 1.0, "num": 3},
                score=Score("elbo", True, ""))


@pytest.mark.parametrize("seeds", [[-1], [], 3, [0.5], [2**32], ["0"], None, [[1, 2]]])
def test_what_are_no_seeds_is_refused_before_anything_is_compiled(seeds):
    with pytest.raises(UserError, match=r"seeds must be one or more whole numbers from 0 to 2\*\*32 - 1"):
        agent(seeds=seeds)


def test_the_speed_of_the_progress_is_that_of_the_result_whatever_is_done_between_two_chunks(drivers, capsys):
    def evaluate(params):
        time.sleep(0.3)
        return {"elbo": 0.0}

    result = fit.fit(drivers["vae"], fit.Config(eval_every=20), 60, evaluate=evaluate, score=Score("elbo", True, ""))
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"step 60 of 60, {result.steps_per_s:,.0f} steps/s")


@pytest.mark.parametrize("score", ["0.5", None, True, [1.0], {"a": 1}])
def test_a_best_score_that_is_no_number_is_refused(tmp_path, score):
    checkpoint.save(tmp_path, 1, {"w": np.zeros(2)}, meta={"score": score}, keep=1)
    with pytest.raises(CheckpointError, match=r"is damaged: its score is .*remove it to go on without it"):
        fit._score_in(tmp_path)
    checkpoint.save(tmp_path, 2, {"w": np.zeros(2)}, meta={"score": -3}, keep=1)
    assert fit._score_in(tmp_path) == -3.0
