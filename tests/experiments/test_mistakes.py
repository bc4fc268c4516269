"""What a user gets wrong: one sentence that names it, exit status 2, and not a byte written."""

import errno
import gzip
import hashlib
import json
import os
import pathlib
import shutil

import gymnasium
import numpy as np
import pytest

from jaxdl.experiments import cli
from jaxdl.runtime import checkpoint

SMALL = {
    "dqn": "train dqn --total-steps 400 --learning-starts 100 --num-envs 2 --buffer-size 1000 --batch-size 8 "
           "--hidden-sizes 8 --eval-episodes 2",
    "vae": "train vae --hidden-sizes 8 --latent-size 2 --batch-size 32",
    "reinforce": "train reinforce --total-steps 4000 --num-envs 2 --hidden-sizes 8 --time-limit 20",
    "actor_critic": "train actor_critic --total-steps 400 --num-envs 2 --rollout-steps 16 --hidden-sizes 8",
    "ppo": "train ppo --total-steps 400 --num-envs 2 --rollout-steps 16 --hidden-sizes 8",
}


class Odd(gymnasium.Env):
    """An environment with spaces that no algorithm here serves."""

    def __init__(self, observation_space, action_space=None):
        self.observation_space = observation_space
        self.action_space = action_space or gymnasium.spaces.Discrete(2)


BOX = gymnasium.spaces.Box(0, 1, (2,))
ODD = {
    "OddDict-v0": (gymnasium.spaces.Dict({"a": BOX, "b": gymnasium.spaces.Text(5)}), None),
    "OddTuple-v0": (gymnasium.spaces.Tuple([BOX, gymnasium.spaces.Sequence(BOX)]), None),
    "OddText-v0": (gymnasium.spaces.Text(5), None),
    "OddParts-v0": (BOX, gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(2), BOX])),
    "OddWhole-v0": (BOX, gymnasium.spaces.Box(0, 9, (2,), np.int64)),
    "OddOpen-v0": (BOX, gymnasium.spaces.Box(-np.inf, np.inf, (2,))),
    "OddMany-v0": (BOX, gymnasium.spaces.MultiDiscrete([2, 2])),
}


def tree(folder="."):
    """Every file and folder below, with the digest of what is in it."""
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else None
            for p in pathlib.Path(folder).rglob("*")}


def refused(capsys, argv, *words):
    """Run a command that must refuse, here, and hold it to what every refusal keeps."""
    before = tree()
    capsys.readouterr()
    status = cli.main(argv.split() if isinstance(argv, str) else argv)
    said = capsys.readouterr()
    assert (status, said.err.count("\n")) == (2, 1), said
    assert said.err.startswith("jaxdl: ")
    assert "Traceback" not in said.err
    assert "Error:" not in said.err
    assert len(said.err) < 700
    for word in words:
        assert word in said.err
    assert tree() == before
    return said


def idx(*shape, kind=8):
    return bytes([0, 0, kind, len(shape)]) + np.array(shape, ">u4").tobytes() + bytes(int(np.prod(shape)))


def write_idx(folder, **changed):
    """A small MNIST in four files, one of them replaced."""
    files = {f"{split}-{what}": idx(*shape) for split, n in (("train", 64), ("t10k", 40))
             for what, shape in (("images-idx3-ubyte", (n, 4, 4)), ("labels-idx1-ubyte", (n,)))}
    folder.mkdir()
    for name, content in (files | {"train-images-idx3-ubyte": changed.get("images", files["train-images-idx3-ubyte"])}).items():
        (folder / name).write_bytes(content)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working folder with a run of each algorithm and what a person may have lying beside them."""
    here, folder = os.getcwd(), tmp_path_factory.mktemp("mistakes")
    os.chdir(folder)
    try:
        assert cli.main(f"{SMALL['dqn']} --out agent".split()) == 0
        assert cli.main(f"{SMALL['vae']} --total-steps 20 --out model".split()) == 0
    finally:
        os.chdir(here)
    (folder / "note.txt").write_text("mine")
    (folder / "things").mkdir()
    (folder / "things" / "thesis.txt").write_text("mine")
    write_idx(folder / "whole")
    write_idx(folder / "short", images=idx(64, 4, 4)[:-5])
    write_idx(folder / "lying", images=idx(64, 4, 4)[:4] + np.array([2**31, 4, 4], ">u4").tobytes() + bytes(1024))
    write_idx(folder / "floats", images=idx(64, 4, 4, kind=0x0D))
    write_idx(folder / "bitten", images=gzip.compress(idx(64, 4, 4))[:-12])
    write_idx(folder / "fewer", images=idx(63, 4, 4))
    write_idx(folder / "empty", images=b"")
    write_idx(folder / "without")
    (folder / "without" / "train-images-idx3-ubyte").unlink()
    for name, spaces in ODD.items():
        gymnasium.register(name, entry_point=Odd, disable_env_checker=True,
                           kwargs=dict(zip(("observation_space", "action_space"), spaces, strict=True)))
    yield folder
    for name in ODD:
        del gymnasium.registry[name]


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def copies(place, tmp_path, monkeypatch):
    """The two runs in a folder of their own, to be damaged."""
    for name in ("agent", "model"):
        shutil.copytree(place / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMANDS = [
    ("trian dqn", "'trian'", "did you mean 'train'"),
    ("fly", "'fly'", "arithmetic, ascend, attack, certify, complete, data, dream, encode, evaluate, explain, export"),
    ("--fly", "'--fly'", "commands are"),
    ("train", "algorithm or a preset", "dqn", "vae"),
    ("train dqm", "'dqm'", "did you mean 'dqn'"),
    ("train doubledqn", "'doubledqn'", "did you mean 'double_dqn'"),
    ("train ppo2", "'ppo2'", "did you mean 'ppo'"),
    ("train actor-critic", "'actor-critic'", "did you mean 'actor_critic'"),
    ("train sarsa", "'sarsa'", "known are", "actor_critic", "dqn", "ppo", "reinforce"),
    ("train ppo --gae-lamda 0.9", "--gae-lamda", "did you mean --gae-lambda"),
    ("train ppo --recurrent rnn", "--recurrent", "'rnn'", "gru", "lstm"),
    ("train reinforce --baseline vlaue", "--baseline", "'vlaue'", "leave_one_out"),
    ("train actor_critic --estimator td", "--estimator", "'td'", "n_step"),
    ("train actor_critic --num-epochs 4", "--num-epochs"),
    ("train dqn --toal-steps 100", "--toal-steps", "did you mean --total-steps"),
    ("train vae --num-envs 8", "--num-envs"),
    ("train dqn --total-steps ten", "--total-steps", "'ten'"),
    ("train dqn --total-steps 1.5", "--total-steps", "'1.5'"),
    ("train dqn --total-steps 1e-5", "--total-steps", "'1e-5'"),
    ("train dqn --gamma high", "--gamma", "'high'"),
    ("train dqn --hidden-sizes 8 wide", "wide"),
    ("train dqn --gamma", "--gamma", "needs a value"),
    ("train dqn --out", "--out", "needs a value"),
    ("train dqn --loss hubre", "--loss", "'hubre'", "huber"),
    ("train dqn --backend gpu", "--backend", "'gpu'", "host"),
    ("train dqn --optimizer adma", "--optimizer", "'adma'", "adamw"),
    ("train vae --binarize hard", "--binarize", "'hard'", "threshold"),
    ("train dqn fast", "fast"),
    ("list dqn", "dqn"),
    ("evaluate", "jaxdl evaluate", "RUN is missing"),
    ("resume", "jaxdl resume", "RUN is missing"),
    ("sample agent", "--out"),
    ("plot agent", "--out"),
    ("plot --out x.png", "at least one run folder"),
    ("evaluate agent model", "model"),
    ("resume agent --seed 3", "--seed"),
    ("resume agent --total-steps soon", "--total-steps", "soon"),
]

# Numbers out of range are tested where they are refused (`validate` of each config, `core.config`); here stand one of the
# algorithm, of its optimizer, of the environment and of the loop, and what only a command can get wrong.
DQN = [
    ("--env-id CartPol-v1", "'CartPol-v1'", "did you mean 'CartPole-v1'"),
    ("--env-id Chess-v7", "'Chess-v7'"),
    ("--env-id Pendulum-v1", "Discrete", "Pendulum-v1", "Box(-2.0, 2.0, (1,), float32)"),
    ("--env-id OddMany-v0", "Discrete", "OddMany-v0", "MultiDiscrete"),
    ("--env-id OddDict-v0", "OddDict-v0", "Text("),
    ("--env-id OddTuple-v0", "OddTuple-v0", "Sequence("),
    ("--env-id OddText-v0", "OddText-v0", "Text("),
    ("--env-id LunarLander-v3 --backend device", "LunarLander-v3", "device", "backend=host"),
    ("--env-id LunarLander-v3 --num-seeds 2", "population of 2", "LunarLander-v3"),
    ("--backend host --num-seeds 3", "population of 3", "host"),
    ("--gamma 1.5", "gamma", "1.5"),
    ("--gamma=-0.1", "gamma", "-0.1"),
    ("--learning-rate nan", "learning_rate", "nan"),
    ("--time-limit 0", "time_limit", "got 0"),
    ("--frame-stack 0", "frame_stack", "got 0"),
    ("--sticky-actions 2", "sticky_actions", "2.0"),
    ("--noop-max -1", "noop_max", "-1"),
    ("--env-timeout -1", "env_timeout", "-1"),
    *((f"--{name.replace('_', '-')} 0", name, "got 0") for name in ("num_seeds", "stop_step", "log_every", "eval_every",
                                                                     "eval_episodes", "checkpoint_every", "keep_checkpoints")),
    ("--buffer-size 1001", "buffer_size", "num_envs=2", "1001", "1000 would do"),
    ("--buffer-size 1000000000000", "buffer_size", "1000000000000"),
    ("--learning-starts 399", "learning_starts=399", "total_steps=400"),  # rounded up to whole vector steps: none is left
    ("--num-envs 8 --learning-starts 392 --total-steps 399", "learning_starts=392", "total_steps=399"),  # less than one is left
    ("--num-envs 64 --buffer-size 640 --total-steps 120", "learning_starts=100", "total_steps=120"),  # ... or less than none
    ("--seed -1", "seed", "-1"),
    ("--seed 4294967296", "seed", "4294967296"),
    ("--seed 4294967295 --num-seeds 2", "seed", "4294967295"),
    ("--stop-at 100", "stop_at", "eval_every"),
    ("--stop-at nan --eval-every 200", "stop_at", "nan"),
    ("--total-steps 3000000000", "total_steps", "3000000000"),
    ("--target-update-interval 2000000000 --gradient-steps 2", "target_update_interval", "2000000000"),
    ("--config missing.json", "no file missing.json"),
    ("--config things", "things is not a file"),
    ("--config note.txt", "note.txt", "JSON"),
    ("--config", "--config needs a value"),
    ("--config model/config.json", "model/config.json", "'vae'", "'dqn'"),
    ("--out agent", "agent already holds a run", "jaxdl resume agent", "--overwrite"),
    ("--out note.txt", "note.txt is a file"),
    ("--out note.txt --overwrite", "note.txt is a file"),
    ("--out note.txt/deeper", "note.txt/deeper", "Not a directory"),
    ("--out things", "things is not empty"),
    ("--out things --overwrite", "things is not empty"),
    ("--v-min 0", "v_min", "distribution", "none"),
    ("--distribution c51 --env-id CliffWalking-v1", "v_min and v_max", "CliffWalking-v1", "distribution=qr"),
    ("--env-id Brekout-MinAtar", "'Brekout-MinAtar'", "did you mean 'Breakout-MinAtar'"),
    ("--env-id Breakout-MinAtar --backend host", "Breakout-MinAtar", "backend=device"),
    ("--env-id nowhere:Env", "'nowhere:Env'", "no module 'nowhere'"),
    ("--env-id json:Env", "'json:Env'", "has no", "'Env'"),
    ("--env-id json:dumps", "'json:dumps'", "dumps"),
    ("--env-id json:JSONDecoder", "json:JSONDecoder", "FuncEnv"),
    ("--env-id json:JSONDecoder --backend host", "json:JSONDecoder", "backend=device"),
]

GAMES = [
    ("ale_py", "dqn", "--env-id ALE/Pong-v5 --num-seeds 2", "population of 2", "ALE/Pong-v5 runs"),
    ("ale_py", "dqn", "--env-id ALE/Pong-v5 --backend host --num-seeds 2", "population of 2", "ALE/Pong-v5 runs on the host"),
    ("ale_py", "dqn", "--env-id ALE/Pong-v5 --frame-stack 2", "frame_stack=2 is not for Atari", "atari_stack"),
    ("ale_py", "dqn", "--env-id ALE/Pong-v5 --buffer-size 16", "buffer_size=16 leaves an environment 8 steps", "it to 18"),
    *(("ale_py", algo, "--env-id ALE/Pong-v5 --normalize-obs", "normalize_obs", "ALE/Pong-v5", "uint8") for algo in (
        "dqn", "reinforce", "actor_critic", "ppo")),
    *(("gymnax", algo, "--env-id Breakout-MinAtar --normalize-obs", "normalize_obs", "Breakout-MinAtar", "bool") for algo in (
        "dqn", "ppo")),
]

# What each policy gradient refuses through what they share: its networks, optimizer, environment, rollout, space of actions.
SHARED = [
    ("--hidden-sizes 8 0", "hidden_sizes", "(8, 0)"),
    ("--learning-rate nan", "learning_rate", "nan"),
    ("--time-limit 0", "time_limit", "got 0"),
    ("--gamma nan", "gamma", "nan"),
    ("--total-steps 31", "num_envs=2", "total_steps=31"),
    ("--env-id OddParts-v0", "MultiBinary or Box", "OddParts-v0", "Tuple("),
]

POLICY_GRADIENTS = [
    ("--ent-coef -1", "ent_coef", "-1.0"),
    ("--log-std 21", "log_std", "21.0"),
    ("--recurrent-size 3000000000", "recurrent_size", "2**31"),
    ("--activation tanj", "'tanj'", "did you mean 'tanh'"),
    ("--total-steps 3000000000", "total_steps", "2**31"),
    ("--squash", "squash", "CartPole-v1", "Discrete(2)"),
    ("--squash --env-id OddMany-v0", "squash", "OddMany-v0", "MultiDiscrete"),
    ("--squash --env-id OddOpen-v0", "squash", "finite", "OddOpen-v0"),
    ("--normalize-obs --env-id FrozenLake-v1", "normalize_obs", "FrozenLake-v1", "Discrete(16)"),
    ("--env-id OddWhole-v0", "Box", "OddWhole-v0", "int64"),
    ("--env-id OddText-v0", "OddText-v0", "Text("),
    ("--backend host --num-seeds 2", "population of 2", "CartPole-v1"),
    ("--sweep num_envs=2,4", "'num_envs'"),
    ("--sweep gamma=0.9,1.5", "gamma", "1.5"),
    ("--config agent/config.json", "agent/config.json", "'dqn'"),
]

REINFORCE = [
    *((f"--baseline {name} --learn-from fragments", "learn_from=fragments needs baseline=value", f"baseline={name}")
      for name in ("none", "constant", "batch", "leave_one_out")),
    ("--returns episode", "returns=episode needs complete episodes", "learn_from=complete"),
    ("--discount-states", "discount_states=True needs complete episodes", "learn_from=complete"),
    ("--baseline none --rollout-steps 19", "rollout_steps=19", "whose time limit is 20", "20 do"),
    ("--baseline none --rollout-steps 39 --backend host", "rollout_steps=39", "whose time limit is 20", "40 do"),
    ("--learn-from complete --time-limit 2000", "4000 steps", "total_steps=4000"),  # twice the limit, of two environments
    ("--baseline constant --baseline-decay 1.5", "baseline_decay", "1.5"),
    ("--baseline-decay nan", "baseline_decay", "got nan"),
]

ACTOR_CRITIC = [
    ("--estimator n_step --n-steps 0", "n_steps", "got 0"),
    ("--rollout-steps 201", "201 steps", "total_steps=400"),
]

PPO = [
    ("--num-minibatches 3", "num_minibatches=3", "32 steps"),
    ("--recurrent gru", "num_minibatches=4", "2 environments"),
    ("--recurrent lstm --num-minibatches 2 --grad-accumulation 2", "grad_accumulation=2", "batch of 1"),
    ("--num-minibatches 4 --grad-accumulation 16", "grad_accumulation=16", "batch of 8"),
    ("--clip-range nan", "clip_range", "nan"),
]

VAE = [
    ("--epochs 2 --total-steps 10", "epochs=2", "total_steps=10"),
    ("--epochs 0", "epochs", "got 0"),
    ("--latent-size 0", "latent_size", "got 0"),
    ("--hidden-sizes 0", "hidden_sizes", "(0,)"),
    ("--dataset mnits", "'mnits'", "did you mean 'mnist'"),
    ("--dataset mnist --data-dir missing", "missing does not exist"),
    ("--dataset mnist --data-dir note.txt", "note.txt does not exist or is not a folder"),
    ("--dataset mnist --data-dir things", "things has none of the files train-images-idx3-ubyte"),
    ("--dataset mnist --data-dir without", "without has none of the files train-images-idx3-ubyte"),
    ("--dataset mnist --data-dir short", "short/train-images-idx3-ubyte is truncated", "[64, 4, 4]", "1024", "1019"),
    ("--dataset mnist --data-dir lying", "lying/train-images-idx3-ubyte is truncated", "[2147483648, 4, 4]"),
    ("--dataset mnist --data-dir floats", "floats/train-images-idx3-ubyte is not an IDX file of unsigned bytes", "00 00 0d 03"),
    ("--dataset mnist --data-dir bitten", "bitten/train-images-idx3-ubyte is truncated", "gzip"),
    ("--dataset mnist --data-dir fewer", "fewer/train-images-idx3-ubyte has 63 images", "64 labels"),
    ("--dataset mnist --data-dir empty", "empty/train-images-idx3-ubyte is not an IDX file"),
    ("--dataset mnist --data-dir whole --batch-size 65", "batch_size=65", "64 training examples of mnist"),
    ("--data-dir whole", "'digits'", "reads no folder, got whole"),
    ("--batch-size 1438", "batch_size=1438", "1437 training examples of digits"),
    ("--optim.learning-rate 1", "--optim.learning-rate"),
    ("--config agent/config.json", "agent/config.json is of the algorithm 'dqn', not 'vae'"),
]

LOOKING = [
    *((f"{command} missing{rest}", "missing", "run folder")
      for command, rest in (("evaluate", ""), ("resume", ""), ("sample", " --out x.png"), ("plot", " --out x.png"))),
    ("evaluate things", "things", "no config.json"),
    ("evaluate note.txt", "run folder note.txt"),
    ("evaluate agent --episodes 0", "episodes", "got 0"),
    ("evaluate agent --seed -1", "seed", "-1"),
    ("evaluate agent --best", "agent has no best parameters"),
    ("evaluate agent --importance-samples 5", "--importance-samples", "dqn"),
    ("evaluate agent --data-dir whole", "data_dir=whole", "learns from a dataset", "run of dqn"),
    ("evaluate agent --video film.mp4", ".gif", "film.mp4"),
    ("evaluate agent --video missing/film.gif", "missing/film.gif", "no folder missing"),
    ("evaluate model --episodes 3", "--episodes", "vae"),
    ("evaluate model --video film.gif", "--video", "vae"),
    ("evaluate model --importance-samples 0", "importance_samples", "got 0"),
    ("sample agent --out x.png", "agent", "dqn"),
    ("sample model --out x.jpg", ".png or .gif", "x.jpg"),
    ("sample model --out x", ".png or .gif", "got x"),
    ("sample model --out missing/x.png", "missing/x.png", "no folder missing"),
    ("sample model --out x.png --num 0", "num", "got 0"),
    ("sample model --out x.png --num 10001", "num", "10001"),
    ("sample model --out x.png --seed 99999999999999999999", "seed", "99999999999999999999"),
    ("plot agent --out x.jpg", "x.jpg", ".png, .svg, .pdf"),
    ("plot agent --out missing/x.png", "missing/x.png", "no folder missing"),
    ("resume agent --total-steps 200", "total_steps=200", "step 400"),
    ("resume agent --total-steps -5", "total_steps=-5"),
    ("resume agent --total-steps 99999999999999999999", "total_steps", "99999999999999999999"),
]


@pytest.mark.parametrize(("argv", "words"), [
    *(pytest.param(argv, words, id=argv) for argv, *words in [*COMMANDS, *LOOKING]),
    *(pytest.param(f"{SMALL[algo]} {flags}", words, id=f"{algo} {flags}") for algo, table in (
        ("dqn", DQN), ("vae", VAE), ("reinforce", SHARED + REINFORCE), ("actor_critic", SHARED + ACTOR_CRITIC),
        ("ppo", SHARED + POLICY_GRADIENTS + PPO)) for flags, *words in table)])
def test_a_mistake_is_one_sentence_and_leaves_no_trace(here, capsys, argv, words):
    refused(capsys, argv, *words)


def test_complete_episodes_need_an_end(here, capsys):
    limitless = SMALL["reinforce"].replace(" --time-limit 20", "")
    refused(capsys, f"{limitless} --env-id OddOpen-v0 --learn-from complete",
            "complete episodes of OddOpen-v0 need a time limit", "give time_limit")


@pytest.mark.parametrize(("package", "algo", "flags", "words"), [
    pytest.param(package, algo, flags, words, id=f"{algo} {flags}") for package, algo, flags, *words in GAMES])
def test_a_mistake_with_a_game_is_one_sentence_and_leaves_no_trace(here, capsys, package, algo, flags, words):
    pytest.importorskip(package)
    refused(capsys, f"{SMALL[algo]} {flags}", *words)


@pytest.mark.parametrize("flags", ["--gamma 2", "--env-id Pendulum-v1", "--buffer-size 1001",
                                   "--seed 4294967295 --num-seeds 2"])
def test_a_refused_run_leaves_the_one_that_it_would_have_replaced(copies, capsys, flags):
    refused(capsys, f"{SMALL['dqn']} --out agent --overwrite {flags}")


def test_the_mistake_in_a_json_command_is_not_on_stdout(here, capsys):
    said = refused(capsys, f"{SMALL['dqn']} --gamma 2 --json", "gamma")
    assert said.out == ""


@pytest.mark.parametrize("encoding", ["utf-8", "UTF-8", "ascii"])
def test_a_mistyped_flag_is_a_sentence_whatever_the_terminal_can_draw(here, capsys, monkeypatch, encoding):
    monkeypatch.setattr(type(cli.sys.stdout), "encoding", encoding)
    said = refused(capsys, "train dqn --toal-steps 100", "--toal-steps", "did you mean --total-steps?")
    assert "---" not in said.err


# Settings of a run that are no settings


def edit(path, change):
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


CONFIGS = [
    (lambda v: v.pop("algo"), "no field 'algo'"),
    (lambda v: v.pop("train"), "no field 'train'"),
    (lambda v: v.update(algo="sac"), "'sac'"),
    (lambda v: v.update(algo=["dqn"]), "['dqn']"),
    (lambda v: v.update(config=[1]), "config", "list"),
    (lambda v: v["config"].update(gama=0.9), "unknown field 'gama'", "did you mean 'gamma'"),
    (lambda v: v["config"]["optim"].update(beta3=0.9), "config.optim", "unknown field 'beta3'"),
    (lambda v: v["train"].update(speed=9), "train", "unknown field 'speed'"),
    (lambda v: v["config"].update(gamma="high"), "gamma", "float", "str"),
    (lambda v: v["config"].update(num_envs=2.5), "num_envs", "int", "float"),
    (lambda v: v["config"].update(num_envs=True), "num_envs", "int", "bool"),
    (lambda v: v["config"].update(hidden_sizes="8"), "hidden_sizes", "array", "str"),
    (lambda v: v["config"].update(hidden_sizes=[8, None]), "hidden_sizes", "int", "null"),
    (lambda v: v["config"].update(loss="cubic"), "loss", "cubic"),
    (lambda v: v["config"].update(optim=None), "optim"),
    (lambda v: v.update(config={"dataset": "digits"}), "unknown field 'dataset'"),
]


@pytest.mark.parametrize("number", range(len(CONFIGS)))
def test_a_damaged_config_is_refused_by_its_field(copies, capsys, number):
    change, *words = CONFIGS[number]
    edit(copies / "agent" / "config.json", change)
    refused(capsys, "evaluate agent", "agent/config.json", *words)


@pytest.mark.parametrize("command", ["resume agent", "sample agent --out x.png", "plot agent --out x.png",
                                     "train dqn --config agent/config.json"])
def test_every_command_refuses_a_damaged_config(copies, capsys, command):
    (copies / "agent" / "config.json").write_bytes(b"{")
    refused(capsys, command, "agent/config.json", "JSON")


@pytest.mark.parametrize("command", ["evaluate agent", "resume agent", "train dqn --config agent/config.json"])
def test_a_config_whose_values_make_no_sense_is_refused_by_its_field(copies, capsys, command):
    edit(copies / "agent" / "config.json", lambda v: v["config"].update(gamma=7.0))
    refused(capsys, command, "gamma must be between 0 and 1, got 7.0")
    edit(copies / "agent" / "config.json", lambda v: (v["config"].update(gamma=0.9), v["train"].update(num_seeds=0)))
    refused(capsys, command, "num_seeds must be above 0, got 0")


@pytest.mark.parametrize(("content", "words"), [
    (b"", "is not valid JSON"), (b"{", "is not valid JSON"), (b"\xff\xfe\x00", "is not valid JSON"),
    (b"[1, 2]", "must hold a JSON object, and holds a list"), (b'{"algo": NaN}', "NaN is no JSON"),
    (b"[" * 100_000, "nested too deeply"), (b" " * (2**20 + 1), "larger than the 1,048,576 bytes"),
], ids=["empty", "torn", "binary", "list", "nan", "nested", "large"])
def test_a_config_that_is_no_json_is_refused(copies, capsys, content, words):
    (copies / "agent" / "config.json").write_bytes(content)
    refused(capsys, "evaluate agent", "agent/config.json", words)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"ended": "finished"}', b'{"ended": "finished", "steps": "many"}'])
def test_a_damaged_summary_is_refused_by_name(copies, capsys, content):
    (copies / "agent" / "summary.json").write_bytes(content)
    refused(capsys, "resume agent", "agent/summary.json")


@pytest.mark.parametrize("command", ["evaluate agent", "resume agent --total-steps 600"])
def test_a_run_whose_settings_were_edited_is_not_that_of_its_checkpoint(copies, capsys, command):
    edit(copies / "agent" / "config.json", lambda v: v["config"].update(gamma=0.5))
    refused(capsys, command, "agent/checkpoints/400", "of another run", "config.gamma is 0.99 there, 0.5 here")


# Checkpoints that cannot be read


def damage(folder, most=1):
    """Flip a bit in the middle of the largest files."""
    files = sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: -p.stat().st_size)
    for path in files[:most]:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


@pytest.mark.parametrize("command", ["evaluate agent", "resume agent --total-steps 600"])
def test_a_flipped_bit_in_the_newest_checkpoint_is_found_and_the_one_before_named(copies, capsys, command):
    newest = copies / "agent" / "checkpoints" / "400"
    assert checkpoint.steps(newest.parent) == [320, 360, 400]
    if command.startswith("evaluate"):  # the largest file may be the memory, which an evaluation does not read
        damage(newest / "arrays", 20)
    else:
        damage(newest)
    refused(capsys, command, "agent/checkpoints/400 is damaged", "step 360")


def test_a_flipped_bit_in_a_model_is_found(copies, capsys):
    damage(copies / "model" / "checkpoints" / "20")
    for command in ("evaluate model", "sample model --out x.png"):
        refused(capsys, command, "model/checkpoints/20 is damaged", "step 18")


@pytest.mark.parametrize("command", ["evaluate agent", "resume agent", "sample model --out x.png"])
def test_a_run_without_checkpoints_says_so(copies, capsys, command):
    for name in ("agent", "model"):
        shutil.rmtree(copies / name / "checkpoints")
    refused(capsys, command, "no checkpoint", "model" if "model" in command else "agent")


# What the system refuses


def test_a_folder_that_may_not_be_made_is_named(here, capsys, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(pathlib.Path, "mkdir", refuse)
    refused(capsys, SMALL["dqn"], "runs/dqn-CartPole-v1-1 cannot be made: Permission denied")
    refused(capsys, f"{SMALL['vae']} --out new", "new cannot be made: Permission denied")


@pytest.mark.parametrize("out", ["--out new", "", "--out agent --overwrite"])
def test_a_disk_without_room_for_the_checkpoints_is_seen_before_anything_is_written(copies, capsys, monkeypatch, out):
    room = shutil.disk_usage(copies)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: room)
    shutil.rmtree(copies / "agent" / "checkpoints")  # the room of what is replaced counts as free
    refused(capsys, f"{SMALL['dqn']} {out}", "checkpoints", "MB that are free", "keep_checkpoints")


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_at_the_first_file_leaves_no_folder(here, capsys, monkeypatch):
    monkeypatch.setattr(os, "fsync", full)
    refused(capsys, f"{SMALL['dqn']} --out new", "new/config.json cannot be written: No space left on device")


def test_a_full_disk_under_a_picture_or_a_film_leaves_none(here, capsys, monkeypatch):
    monkeypatch.setattr(os, "fsync", full)
    for command, name in (("sample model --out x.png", "x.png"), ("plot agent --out x.png", "x.png"),
                          ("evaluate agent --video x.gif", "x.gif")):
        refused(capsys, command, f"{name} cannot be written: No space left on device")


def test_a_full_disk_in_training_keeps_the_checkpoints_that_are_whole(copies, capsys, monkeypatch):
    write = checkpoint.write
    monkeypatch.setattr(checkpoint, "write", lambda path, *rest: full() if path.name == "540" else write(path, *rest))
    capsys.readouterr()
    assert cli.main(["resume", "agent", "--total-steps", "600"]) == 2
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert sentence.startswith("jaxdl: the checkpoint of step 540 cannot be written into ")
    assert sentence.endswith("agent/checkpoints: No space left on device")
    assert checkpoint.steps(copies / "agent" / "checkpoints") == [400, 420, 480]
    monkeypatch.setattr(checkpoint, "write", write)
    assert cli.main(["resume", "agent"]) == 0  # goes on to the 600 that were asked for
    assert json.loads((copies / "agent" / "summary.json").read_text())["steps"] == 600
