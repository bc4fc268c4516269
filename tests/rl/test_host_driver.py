"""Runs on the host: what their steps and seeds are, and what they say of environments that fail under them."""

import gymnasium
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gymnasium.vector import SyncVectorEnv
from tools import differ
from toys import Toy

from jaxdl.agents import actor_critic, dqn, ppo
from jaxdl.core.errors import EnvError
from jaxdl.rl import envs, policy
from jaxdl.rl.envs.calls import Calls
from jaxdl.rl.envs.host_envs import HostEnvs
from jaxdl.rl.host_driver import make_host_driver
from jaxdl.rl.task import TrainConfig
from jaxdl.rl.types import Actor, EnvSpec
from jaxdl.runtime import checkpoint, fit


class Fails(gymnasium.Env):
    """At its seventh step."""

    observation_space, action_space = gymnasium.spaces.Box(0, 1, (1,)), gymnasium.spaces.Discrete(2)
    steps = 0

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.steps == 7:
            raise RuntimeError("the motor broke")
        return np.zeros(1, np.float32), 0.0, False, False, {}


def test_an_environment_that_fails_in_a_run_is_named_with_the_step(monkeypatch):
    monkeypatch.setitem(gymnasium.registry, "Fails-v0", gymnasium.envs.registration.EnvSpec("Fails-v0", Fails))
    config = dqn.Config(env_id="Fails-v0", num_envs=2, buffer_size=64, learning_starts=8, batch_size=4, hidden_sizes=(4,))
    spec = envs.spec("Fails-v0")
    driver = make_host_driver(lambda c: dqn.make_host_run(c, spec), config, envs.make_host("Fails-v0", 2), 0)
    state = driver.start()
    with pytest.raises(EnvError, match=r"^Fails-v0 failed in step: RuntimeError: the motor broke, at environment step 14$"):
        driver.chunk(state, 10)
    driver.close()


class Single(gymnasium.Env):
    """There can be one at a time."""

    observation_space, action_space = gymnasium.spaces.Box(0, 1, (1,)), gymnasium.spaces.Discrete(2)
    open = made = 0

    def __init__(self, render_mode=None):
        if Single.open:
            raise RuntimeError("address already in use")
        Single.open, Single.made = 1, Single.made + 1

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(1, np.float32), 1.0, self.t == 3, False, {}

    def close(self):
        Single.open = 0


def test_an_environment_of_which_there_can_be_one_is_trained_on_evaluated_and_never_opened_twice(monkeypatch, tmp_path):
    monkeypatch.setitem(gymnasium.registry, "Single-v0", gymnasium.envs.registration.EnvSpec("Single-v0", Single))
    Single.open = Single.made = 0
    config = ppo.Config(env_id="Single-v0", num_envs=1, rollout_steps=8, num_minibatches=2, total_steps=16,
                        policy=policy.Config(hidden_sizes=(4,)))
    train = TrainConfig(eval_episodes=2, quick_compile=True)
    task = ppo.ALGORITHM.open(config, train)
    result = fit.fit(task.drive([config], [0], train), train, 16, folder=tmp_path,
                     evaluate=lambda params: task.evaluate(params, task.options))
    assert result.eval[0]["return_mean"] == 3
    assert (Single.open, Single.made) == (0, 3)  # its spec, its training, its evaluation
    assert checkpoint.steps(tmp_path / "checkpoints")[-1] == result.step == 12  # with a third rollout it could be above 16
    assert task.describe(result.eval[0]) == "mean return over 2 greedy episodes in Single-v0: 3.0 +- 0.0"


def test_environments_are_closed_where_their_run_cannot_be_made(monkeypatch):
    monkeypatch.setitem(gymnasium.registry, "Single-v0", gymnasium.envs.registration.EnvSpec("Single-v0", Single))
    monkeypatch.setattr(Single, "reset", lambda self, **_: (None, {}))
    Single.open = 0
    config, train = ppo.Config(env_id="Single-v0", num_envs=1, rollout_steps=8), TrainConfig()
    with pytest.raises(EnvError, match="Single-v0 gave an observation NoneType"):
        ppo.ALGORITHM.open(config, train).drive([config], [0], train)
    assert Single.open == 0


def test_closing_that_fails_after_the_training_costs_no_checkpoint(monkeypatch, tmp_path):
    def close(self):
        Single.open = 0
        if "t" in vars(self):  # it was played
            raise RuntimeError("the lid is stuck")

    monkeypatch.setitem(gymnasium.registry, "Single-v0", gymnasium.envs.registration.EnvSpec("Single-v0", Single))
    monkeypatch.setattr(Single, "close", close)
    Single.open = 0
    config = ppo.Config(env_id="Single-v0", num_envs=1, rollout_steps=8, num_minibatches=2, total_steps=16,
                        policy=policy.Config(hidden_sizes=(4,)))
    train = TrainConfig(quick_compile=True)
    driver = ppo.ALGORITHM.open(config, train).drive([config], [0], train)
    result = fit.fit(driver, train, 16, folder=tmp_path)
    assert str(result.failed) == "Single-v0 failed in close: RuntimeError: the lid is stuck"
    assert checkpoint.steps(tmp_path / "checkpoints")[-1] == result.step


# --- What a step is.


class Counted:
    """Toys of three steps an episode, side by side, whose transitions are counted, with the actions and seeds they got."""

    def __init__(self, num_envs):
        self.venv = HostEnvs(SyncVectorEnv([Toy] * num_envs), Calls("Toy-v0", 0))
        self.num_envs, self.transitions, self.vector_steps, self.actions, self.seeds = num_envs, 0, 0, [], []

    def reset(self, seed):
        self.seeds.append(seed)
        return self.venv.reset(seed)

    def step(self, action):
        self.actions.append(np.array(action))
        answer = self.venv.step(action)
        self.transitions += int((~answer.reset).sum())
        self.vector_steps += 1
        return answer

    def close(self):
        self.venv.close()


TOY = EnvSpec("Toy-v0", Toy.observation_space, Toy.action_space, None, lives="host")
SMALL = {"total_steps": 120, "env_id": "Toy-v0"}
DQN = dqn.Config(**SMALL, num_envs=2, buffer_size=120, learning_starts=10, batch_size=4, hidden_sizes=(4,), train_freq=2,
                 gradient_steps=2)
AC = actor_critic.Config(**SMALL, num_envs=3, rollout_steps=4, policy=policy.Config(hidden_sizes=(4,)))


def driver_of(module, config, seed=0):
    venv = Counted(config.num_envs)
    return make_host_driver(lambda c: module.make_host_run(c, TOY), config, venv, seed, quick=True), venv


@pytest.fixture(scope="module")
def told():
    """A run of DQN whose actor tells its time: the driver, what it did in 120 steps, its environments."""
    real = dqn.make

    def make(*args, **options):
        clock = Actor(lambda n: None, lambda params, carry, obs, key, t: (carry, jnp.full(len(obs), t), {}))
        return real(*args, **options)._replace(explore=clock)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dqn, "make", make)
        driver, venv = driver_of(dqn, DQN)
        return driver, fit.fit(driver, fit.Config(log_every=7), 120), venv


def test_steps_are_transitions_and_rounds_of_a_replay_end_as_often_as_without_resets(told):
    driver, result, venv = told
    assert venv.vector_steps > 70  # of two environments, of which a quarter only reset
    assert int(result.state.t) == venv.transitions
    assert result.step == 120
    assert 118 < venv.transitions <= 120
    assert result.updates == 2 * (120 - driver.first_step) // 4
    assert driver.first_step == 12
    assert int(result.state.source.memory.size.sum()) == venv.transitions


def test_an_actor_is_told_the_transitions_so_far(told):
    _, _, venv = told
    counts, t = [], 0
    for i in range(len(venv.actions)):
        counts.append(t)
        t += 0 if i % 4 == 3 else 2  # both reset in every fourth step
    np.testing.assert_array_equal([a[0] for a in venv.actions], counts)


def test_rollouts_go_on_to_the_budget_of_transitions_and_the_learning_rate_falls_by_them(tmp_path):
    driver, venv = driver_of(actor_critic, AC)
    fit.fit(driver, fit.Config(stop_step=60), 120, folder=tmp_path)
    half = venv.transitions
    result = fit.fit(driver, fit.Config(), 120, folder=tmp_path, resume=True)
    assert int(result.state.t) == result.step == venv.transitions
    assert 108 < result.step <= 120  # no further rollout fits
    rollouts = venv.vector_steps // 4
    assert (result.updates, rollouts) == (rollouts, 13)  # of nine transitions in 12 rows
    done = optax.tree.get(result.state.learner.opt, "count", filtering=lambda path, _: "Schedule" in str(path))
    assert int(done) == round((result.step - 9) / 12) + 1  # of ten planned
    assert half <= 60
    assert driver.step_of(driver.restore(result.state)) == result.step


# --- What a seed is.


def test_runs_of_different_seeds_share_no_environment_and_no_key():
    runs = [driver_of(dqn, DQN, seed) for seed in (3, 4)]
    begun = [driver.start() for driver, _ in runs]
    params = [driver.params(state).network for (driver, _), state in zip(runs, begun, strict=True)]
    report = runs[0][0].chunk(begun[0], 1)[1]
    assert report.metrics["epsilon"].count <= 3  # acts of one round: the warm-up is in no row of metrics
    (a,), (b,) = (venv.seeds for _, venv in runs)
    assert abs(a - b) > 1000
    assert differ(*params)


def test_a_resumed_run_meets_other_episodes_than_it_began_with():
    driver, venv = driver_of(dqn, DQN, 3)
    state = driver.snapshot(driver.start())
    for t in (12, 12, 40):
        driver.restore(state._replace(t=np.int32(t)))
    first, again, same, later = venv.seeds
    assert again == same
    assert len({first, again, later}) == 3
