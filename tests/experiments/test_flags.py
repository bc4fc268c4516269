"""Flags: the names of an earlier version, what is wrong said in one sentence, and the path of two of a kind."""

from dataclasses import dataclass

import pytest

from jaxdl.core.config import config, names
from jaxdl.core.errors import UserError
from jaxdl.experiments import arguments, population
from jaxdl.experiments.commands import train
from jaxdl.optim import Config as OptimConfig
from jaxdl.runtime import fit


def flags_of(line):
    algo, *rest = line.split()
    return arguments.parse(train.args_of(algo), [algo, *rest], "jaxdl train", "")


@pytest.mark.parametrize(("old", "new"), [
    ("pixelcnn --output categorical --features 4", "pixelcnn --likelihood categorical --width 4"),
    ("pixelcnn --output=mixture", "pixelcnn --likelihood mixture"),
    ("ppo --compute bfloat16 --accumulate 2", "ppo --compute-dtype bfloat16 --grad-accumulation 2"),
    ("reinforce --episodes fragments", "reinforce --learn-from fragments"),
    ("autoencoder --code-size 3", "autoencoder --latent-size 3"),
    ("vqvae --code_size 3", "vqvae --embedding-size 3"),
    ("gan --conditional projection", "gan --conditional"),
    ("gan --conditional concatenation", "gan --conditional --class-conditioning concatenation"),
    ("gan --conditional=none", "gan"),
    ("dqn --eval-every 5 --stop-at-return 3", "dqn --eval-every 5 --stop-at 3"),
])
def test_flags_of_an_earlier_version_are_read_and_said(old, new, capsys):
    read, wanted = flags_of(old), flags_of(new)
    assert (read.algorithm, read.run) == (wanted.algorithm, wanted.run)
    said = capsys.readouterr().err
    assert old.split()[1 if "eval" not in old else 3].partition("=")[0].replace("_", "-") in said
    assert "next version" in said


@pytest.mark.parametrize(("line", "same"), [
    ("language_model --data-file a.txt", "language_model --data-dir a.txt"),
    ("language_model --data-file=a.txt", "language_model --data-dir a.txt"),
    ("classifier --max-shift 2", "classifier --max-shift=2"),  # a field that moved into settings within
])
def test_second_names_are_taken_without_a_word(line, same, capsys):
    assert flags_of(line).algorithm == flags_of(same).algorithm
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("line", "parts"), [
    ("dqn --learning-rate fast", ["--learning-rate takes a number", "'fast'"]),
    ("dqn --learning-rate", ["--learning-rate needs a value"]),
    ("dqn --hidden-sizes 3 x", ["--hidden-sizes", "'3 x'"]),
    ("dqn --schedule line", ["--schedule takes one of constant, linear", "'line'"]),
    ("dqn --batch-size 1.5", ["--batch-size takes a whole number", "'1.5'"]),
    ("dqn --lerning-rate 1", ["--lerning-rate is no flag", "did you mean --learning-rate?"]),
    ("dqn --latent-size 1", ["--latent-size is no flag", "'jaxdl train dqn --help'"]),
])
def test_what_is_wrong_is_one_sentence_that_names_the_flag(line, parts, capsys):
    with pytest.raises(UserError) as wrong:
        flags_of(line)
    assert all(part in str(wrong.value) for part in parts), wrong.value
    assert capsys.readouterr().err == ""


def test_a_required_flag_that_is_missing_is_named():
    @dataclass(frozen=True)
    class Args:
        out: str

    with pytest.raises(UserError, match="--out is missing"):
        arguments.parse(Args, [], "x", "")


@config
class Two:
    size: int = 3
    actor_optim: OptimConfig = OptimConfig(learning_rate=0.1)
    critic_optim: OptimConfig = OptimConfig(learning_rate=0.2)


def test_two_of_a_kind_keep_their_path_on_the_command_line_and_in_sweeps():
    assert names(Two)["size"] == ("size",)
    assert names(Two)["actor_optim.beta1"] == ("actor_optim", "beta1")
    found = arguments.parse(Two, ["--actor-optim.learning-rate", "0.5", "--critic-optim.beta1=0.3", "--size", "4"], "x", "")
    assert found == Two(4, OptimConfig(learning_rate=0.5), OptimConfig(learning_rate=0.2, beta1=0.3))
    assert type(found.actor_optim) is OptimConfig
    swept = population.members(Two(), fit.Config(sweep=("critic-optim.learning-rate=1,2",)))
    assert [m.config(Two()).critic_optim.learning_rate for m in swept] == [1, 2]
    assert {m.config(Two()).actor_optim.learning_rate for m in swept} == {0.1}
    with pytest.raises(UserError, match=r"'learning_rate'.*optim\.learning_rate"):
        population.members(Two(), fit.Config(sweep=("learning_rate=1,2",)))


def test_one_of_a_kind_has_no_path_and_may_be_swept_by_it():
    config = train.args_of("dqn").algorithm
    assert names(type(config))["learning_rate"] == ("optim", "learning_rate")
    for name in ("learning_rate", "optim.learning_rate"):
        assert [m.config(config).optim.learning_rate for m in population.members(config, fit.Config(sweep=(f"{name}=1,2",)))
                ] == [1, 2]
