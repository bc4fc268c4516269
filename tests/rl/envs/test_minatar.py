"""MinAtar against gymnax itself, stepped from the same states with the same keys."""


import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from tools import jit

from jaxdl.rl import envs
from jaxdl.rl.envs import minatar

gymnax = pytest.importorskip("gymnax", reason="jaxdl[gymnax] is not installed")
STEPS = 100


@pytest.fixture(scope="module", params=minatar.GAMES)
def played(request):
    """Sixteen games of gymnax under random actions, beyond their ends, and what ours says in each of their states."""
    theirs, rules = gymnax.make(request.param)
    ours = minatar.MinAtar(request.param)

    def play(key):
        def step(carry, key):
            game, over = carry
            k_act, k_move = jax.random.split(key)
            action = jax.random.randint(k_act, (), 0, theirs.num_actions)
            successor = ours.transition(minatar.GameState(game, jnp.zeros(()), over), action, k_move)
            ours_says = (ours.observation(successor, key), ours.reward(None, action, successor, key),
                         ours.terminal(successor, key), successor.game)
            obs, game, reward, done, _ = theirs.step_env(k_move, game, action, rules)
            return (game, done), (ours_says, (obs, reward, done, game))

        start = ours.initial(key)
        return jax.lax.scan(step, (start.game, start.terminal), jax.random.split(key, STEPS))[1]

    return request.param, jax.tree.map(np.asarray, jit(jax.vmap(play))(jax.random.split(jax.random.key(0), 16)))


def test_every_transition_is_that_of_gymnax(played):
    game, ((obs, reward, terminal, after), (their_obs, their_reward, their_done, their_after)) = played
    np.testing.assert_array_equal(obs, their_obs == 1)
    np.testing.assert_array_equal(their_obs, obs)  # they are zeros and ones: nothing is lost in a bool
    np.testing.assert_array_equal(reward, their_reward)
    np.testing.assert_array_equal(terminal, their_done)
    jax.tree.map(np.testing.assert_array_equal, after, their_after)
    assert (obs.dtype, reward.dtype, terminal.dtype) == (bool, np.float32, bool)
    assert terminal.any() or game == "Freeway-MinAtar"  # which has no end but the time
    assert reward.any() or game == "Freeway-MinAtar"


@pytest.mark.parametrize("game", minatar.GAMES)
def test_a_new_game_and_the_spaces_are_those_of_gymnax(game):
    theirs, rules = gymnax.make(game)
    ours, key = minatar.MinAtar(game), jax.random.key(4)
    obs, state = jit(lambda key: theirs.reset_env(key, rules))(key)
    begun, seen = jit(lambda key: (ours.initial(key), ours.observation(ours.initial(key), key)))(key)
    np.testing.assert_array_equal(seen, obs)
    jax.tree.map(np.testing.assert_array_equal, begun.game, state)
    spec = envs.spec(game)
    assert spec.observation_space == spaces.Box(0, 1, theirs.obs_shape, bool)
    assert spec.action_space == spaces.Discrete(theirs.num_actions)
    assert spec.max_episode_steps == rules.max_steps_in_episode
    assert spec.stack is None


def test_the_state_keeps_its_form_so_that_programs_can_carry_it():
    for game in minatar.GAMES:
        ours = minatar.MinAtar(game)
        first = jax.eval_shape(ours.initial, jax.random.key(0))
        after = jax.eval_shape(lambda s, ours=ours: ours.transition(s, 0, jax.random.key(0)), first)
        assert jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), first) == jax.tree.map(
            lambda x: (x.shape, x.dtype, x.weak_type), after)


def test_the_time_limit_truncates_and_does_not_terminate():
    env = envs.make_device("SpaceInvaders-MinAtar", envs.Config(time_limit=9))

    @jit
    def play(key):
        def step(state, key):
            state, out = env.step(state, jnp.zeros(3, jnp.int32), env.sample_noise(jax.random.split(key, (env.keys, 3))))
            return state, (out, state.inner.game.time)

        return jax.lax.scan(step, env.reset(key, 3)[0], jax.random.split(key, 20))[1]

    out, time = play(jax.random.key(0))
    assert not out.terminated.any()
    np.testing.assert_array_equal(out.truncated, np.tile(np.arange(20)[:, None] % 9 == 8, 3))
    np.testing.assert_array_equal(time[:, 0], [(t + 1) % 9 for t in range(20)])


def test_games_go_on_beyond_the_limit_of_gymnax():
    ours = minatar.MinAtar("Breakout-MinAtar")

    @jit
    def ended(key):
        state = ours.initial(key)
        return ours.transition(state._replace(game=state.game.replace(time=jnp.int32(5000))), 0, key).terminal

    assert not ended(jax.random.key(0))
