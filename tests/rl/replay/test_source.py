"""The replay source in environments whose every step is known: what is drawn is what happened, and where episodes end."""


import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import jit

from jaxdl.core.errors import UserError
from jaxdl.core.types import Mean
from jaxdl.rl import replay
from jaxdl.rl.types import Actor, Env, EnvSpec, Experience, TimeStep

E, LENGTH, GAMMA = 3, 7, 0.5
SPEC = EnvSpec("counting", gymnasium.spaces.Box(0, 1000, (3,), np.int32), gymnasium.spaces.Discrete(10**6), None)


def rule(env, episode, step):
    """Reward, termination and truncation of a step (the `step`-th observation's) of an episode of an environment.

    Episodes are 1 to 4 steps long; they terminate, are truncated, or both.
    """
    last = step == (3 * env + 5 * episode) % 4
    kind = (env + episode) % 3
    return 100 * env + 10 * episode + step + 1, last & (kind != 1), last & (kind != 0)


def events(env, count, episode=0):
    """The first steps of an environment, in order, without their actions."""
    step, found = 0, []
    for _ in range(count):
        reward, terminated, truncated = rule(env, episode, step)
        step += 1
        found.append(Experience((env, episode, step - 1), None, float(reward), (env, episode, step), terminated, truncated))
        if terminated or truncated:
            episode, step = episode + 1, 0
    return found


def counting_env():
    """The environment; its state is its observation."""

    def reset(key, n):
        obs = jnp.stack([jnp.arange(n, dtype=jnp.int32), jnp.zeros(n, jnp.int32), jnp.zeros(n, jnp.int32)], 1)
        return obs, obs

    def step(obs, action, keys):
        env, episode, step = obs.T
        reward, terminated, truncated = rule(env, episode, step)
        next_obs = jnp.stack([env, episode, step + 1], 1)
        fresh = jnp.stack([env, episode + 1, jnp.zeros_like(step)], 1)
        obs = jnp.where((terminated | truncated)[:, None], fresh, next_obs)
        return obs, TimeStep(obs, reward.astype(jnp.float32), terminated, truncated, next_obs)

    return Env(SPEC, reset, step, keys=0)


def act(params, carry, obs, key, t):
    """The action says when it was taken: 100 * its number by `carry`, and `params` times its number by `t`."""
    env = obs[:, 0]
    return carry + 1, env + 100 * carry + params * t, {"t": jnp.asarray(t, jnp.float32)}


ACTOR = Actor(lambda n: jnp.zeros(n, jnp.int32), act)
BY_TIME = jnp.int32(1000)


def action_of(env, i):
    return env + 100 * i + 1000 * E * i


def settings(**changed):
    return replay.Settings(**{"num_envs": E, "buffer_size": E * LENGTH, "batch_size": 20, "train_freq": 1, "gradient_steps": 1,
                              "learning_starts": 1, "n_steps": 1, "gamma": GAMMA} | changed)


def source_of(actor=ACTOR, **changed):
    source = replay.replay(counting_env(), actor, settings(**changed))

    def collect(state, params, key, t):
        return source.collect(state, params, jax.random.split(key, source.keys), t)

    return source._replace(warmup=jit(source.warmup), collect=jit(collect), sample=many(source.sample))


def many(sample):
    """Forty batches put together: whatever can be drawn is among them."""

    @jit
    def draw(state, key):
        states, batches = jax.vmap(lambda k: sample(state, k, jnp.int32(0)))(jax.random.split(key, 40))
        return jax.tree.map(lambda x: x[0], states), jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batches)

    return draw


def rows(batch):
    assert batch.weight is None  # uniform draws
    return zip(*(np.asarray(x).tolist() for x in batch[:5]), strict=True)


def n_step(happened, i, n):
    """What a transition of n steps from the i-th event on must be; nothing follows the last event."""
    reward, discount = 0.0, 1.0
    for event in happened[i : i + n]:
        reward, discount, last = reward + discount * event.reward, discount * GAMMA, event
        if event.terminated or event.truncated:
            break
    return reward, 0.0 if last.terminated else discount, last.next_obs


def assert_drawn_from(batch, counts, n, actions=action_of):
    """Every transition of a batch is one of the newest of its environment, and all of them are there."""
    happened = [events(e, count) for e, count in enumerate(counts)]
    where = {event.obs: (e, i) for e in range(len(counts)) for i, event in enumerate(happened[e])}
    seen = set()
    for obs, action, reward, discount, next_obs in rows(batch):
        e, i = where[tuple(obs)]
        assert i >= counts[e] - LENGTH, "it was overwritten"
        expected = n_step(happened[e], i, n)
        assert (reward, discount, tuple(next_obs)) == expected
        assert action == actions(e, i)
        seen.add((e, i))
    assert seen == {(e, i) for e, count in enumerate(counts) for i in range(max(0, count - LENGTH), count)}


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("train_freq", [1, 3])
def test_transitions_are_those_that_happened(n, train_freq):
    source = source_of(n_steps=n, train_freq=train_freq)
    state, stride = source.init(jax.random.key(0)), E * train_freq
    ends = set()
    for i in range(24 // train_freq):  # 24 steps in rings of 7: they wrap, and every kind of end is at their seam once
        state, _ = source.collect(state, BY_TIME, jax.random.key(i), jnp.int32(i * stride))
        unchanged, batch = source.sample(state, jax.random.key(100 + i))
        count = (i + 1) * train_freq
        assert_drawn_from(batch, [count] * E, n)
        ends |= {(last.terminated, last.truncated) for last in (events(e, count)[-1] for e in range(E))}
        assert jax.tree.all(jax.tree.map(jnp.array_equal, unchanged, state))
    assert ends == {(False, False), (True, False), (False, True), (True, True)}
    assert [batch.reward.dtype, batch.discount.dtype, batch.obs.dtype] == [jnp.float32, jnp.float32, jnp.int32]


def test_a_truncated_episode_bootstraps_from_its_last_observation_and_a_terminated_one_does_not():
    source = source_of(n_steps=3)
    state = source.warmup(source.init(jax.random.key(0)), BY_TIME, jax.random.key(0), jnp.int32(0))
    for i in range(1, 6):
        state, _ = source.collect(state, BY_TIME, jax.random.key(i), jnp.int32(3 * i))
    found = {tuple(o): (r, d, tuple(x)) for o, _, r, d, x in rows(source.sample(state, jax.random.key(9))[1])}
    # Environment 0: one step that terminates (reward 1), then two that are truncated (11, 12), then three that end both ways.
    assert found[0, 0, 0] == (1.0, 0.0, (0, 0, 1))
    assert found[0, 1, 0] == (11 + 0.5 * 12, 0.25, (0, 1, 2))
    assert found[0, 1, 1] == (12.0, 0.5, (0, 1, 2))
    assert found[0, 2, 0] == (21 + 0.5 * 22 + 0.25 * 23, 0.0, (0, 2, 3))


@pytest.mark.parametrize(("train_freq", "learning_starts", "steps"), [(1, 1, 3), (1, 10, 12), (2, 12, 12), (2, 13, 18)])
def test_the_warmup_stores_learning_starts_rounded_up_to_whole_collects(train_freq, learning_starts, steps):
    source = source_of(train_freq=train_freq, learning_starts=learning_starts)
    state = source.warmup(source.init(jax.random.key(0)), BY_TIME, jax.random.key(0), jnp.int32(0))
    assert state.memory.size.tolist() == [steps // E] * E
    assert_drawn_from(source.sample(state, jax.random.key(1))[1], [steps // E] * E, 1)
    assert E * train_freq * settings(train_freq=train_freq, learning_starts=learning_starts).warmup_collects == steps
    state, metrics = source.collect(state, BY_TIME, jax.random.key(2), jnp.int32(steps))  # and the run goes on from there
    assert_drawn_from(source.sample(state, jax.random.key(1))[1], [steps // E + train_freq] * E, 1)
    assert float(metrics["t"].total) == sum(steps + E * i for i in range(train_freq))


def ended(env, before, after):
    """Returns and lengths of the episodes that end with the events from `before` to `after`."""
    found, total, length = [], 0.0, 0
    for i, event in enumerate(events(env, after)):
        total, length = total + event.reward, length + 1
        if event.terminated or event.truncated:
            if i >= before:
                found.append((total, length))
            total, length = 0.0, 0
    return found


def told(metrics):
    (total, count), (steps, again) = (map(float, metrics[name]) for name in ("episode_return", "episode_length"))
    assert count == again
    return count, total, steps


@pytest.mark.parametrize("train_freq", [1, 3])
def test_episodes_are_reported_when_they_end(train_freq):
    source = source_of(train_freq=train_freq)
    state, seen = source.init(jax.random.key(0)), 0
    for i in range(12 // train_freq):
        state, metrics = source.collect(state, BY_TIME, jax.random.key(i), jnp.int32(0))
        expected = [x for e in range(E) for x in ended(e, i * train_freq, (i + 1) * train_freq)]
        assert told(metrics) == (len(expected), sum(r for r, _ in expected), sum(n for _, n in expected))
        seen += len(expected)
    assert seen > 10


def test_feedback_changes_nothing_where_draws_are_uniform():
    device, host = replay.replay(counting_env(), ACTOR, settings()), replay.host_replay(SPEC, ACTOR, settings())
    for source, state in ((device, device.init(jax.random.key(0))), (host, host.init(first_obs(E)))):
        assert jax.tree.all(jax.tree.map(jnp.array_equal, source.feedback(state, None, None), state))


def test_each_step_has_a_key_of_its_own():
    noisy = ACTOR._replace(act=lambda params, carry, obs, key, t: (carry, jax.random.bits(key, (E,)).astype(jnp.int32), {}))
    source = source_of(noisy, train_freq=2, learning_starts=12)
    state = source.warmup(source.init(jax.random.key(0)), None, jax.random.key(0), jnp.int32(0))
    state, _ = source.collect(state, None, jax.random.key(1), jnp.int32(12))
    drawn = source.sample(state, jax.random.key(2))[1]
    assert len(np.unique(drawn.action)) == len(np.unique(np.asarray(drawn.obs), axis=0)) == 6 * E


# --- Environments on the host.


def answers(env, count, episode=0):
    """What Gymnasium answers to an environment's first actions: an episode is reset in the step after its last (NEXT_STEP)."""
    step, reset, found = 0, False, []
    for _ in range(count):
        if reset:
            reward, terminated, truncated = 0, False, False
        else:
            reward, terminated, truncated = rule(env, episode, step)
            step += 1
        found.append((env, episode, step, reward, terminated, truncated, reset))
        reset = terminated or truncated
        if reset:
            episode, step = episode + 1, 0
    return found


def vector_step(num_envs, i, episode=0):
    """The i-th answer of all environments."""
    columns = zip(*(answers(e, i + 1, episode)[-1] for e in range(num_envs)), strict=True)
    env, number, step, reward, terminated, truncated, reset = map(np.array, columns)
    return TimeStep(np.stack([env, number, step], 1).astype(np.int32), reward.astype(np.float32), terminated, truncated,
                    reset=reset)


def first_obs(num_envs, episode=0):
    return np.array([(e, episode, 0) for e in range(num_envs)], np.int32)


def transitions(env, steps, episode=0):
    """Which of the first answers of an environment are transitions."""
    ends = [a[4] or a[5] for a in answers(env, steps, episode)]
    return [i for i in range(steps) if i == 0 or not ends[i - 1]]


def host_source_of(actor=ACTOR, **changed):
    source = replay.host_replay(SPEC, actor, settings(**changed))
    return source._replace(act=jit(source.act), observe=jit(source.observe), sample=many(source.sample))


def play(source, state, num_envs, steps, params=BY_TIME, episode=0):
    """The state and the metrics after each vector step."""
    for i in range(steps):
        state, _, _ = source.act(state, params, jax.random.key(i), jnp.int32(i * num_envs))
        state, metrics = source.observe(state, vector_step(num_envs, i, episode))
        yield state, metrics


@pytest.mark.parametrize("n", [1, 3])
def test_steps_that_only_reset_are_no_transitions(n):
    source = host_source_of(n_steps=n)
    for i, (state, _) in enumerate(play(source, source.init(first_obs(E)), E, 24)):
        when = [transitions(e, i + 1) for e in range(E)]
        batch = source.sample(state, jax.random.key(i))[1]
        assert_drawn_from(batch, [len(w) for w in when], n, lambda e, k: action_of(e, when[e][k]))  # noqa: B023
    assert len({len(w) for w in when}) > 1


def test_the_memory_is_the_same_bits_wherever_the_environment_lives():
    def by_obs(params, carry, obs, key, t):
        return carry, obs @ jnp.array([1, 10, 100]), {}

    actor, alone = Actor(lambda n: None, by_obs), {"num_envs": 1, "buffer_size": 11, "batch_size": 8}
    host, device = host_source_of(actor, **alone), source_of(actor, **alone)
    there, when = device.init(jax.random.key(0)), transitions(0, 24)
    for i, (here, _) in enumerate(play(host, host.init(first_obs(1)), 1, 24)):
        if i in when:
            there, _ = device.collect(there, None, jax.random.key(i), jnp.int32(0))
        for a, b in zip(here.memory, there.memory, strict=True):
            np.testing.assert_array_equal(a, b)
    assert len(when) > 11


def test_episodes_on_the_host_are_reported_when_they_end():
    source, before, seen, expected = host_source_of(), [0] * E, 0, []
    for i, (_, metrics) in enumerate(play(source, source.init(first_obs(E)), E, 16)):  # in the step that resets them
        assert told(metrics) == (len(expected), sum(r for r, _ in expected), sum(n for _, n in expected))
        now = [len(transitions(e, i + 1)) for e in range(E)]
        expected = [x for e in range(E) for x in ended(e, before[e], now[e])]
        before, seen = now, seen + len(expected)
    assert seen > 10


def test_what_the_policy_says_is_a_metric():
    source = host_source_of()
    _, action, metrics = source.act(source.init(first_obs(E)), BY_TIME, jax.random.key(0), jnp.int32(7))
    assert action.tolist() == [7000, 7001, 7002]
    assert metrics == {"t": Mean(7.0, 1.0)}


@pytest.mark.parametrize("n", [1, 3])
def test_after_a_restart_no_return_reaches_into_the_new_episodes(n):
    """Environments on the host begin anew on resume: what was under way is cut there as by a truncation."""
    source, steps = host_source_of(n_steps=n), 6
    *_, (state, _) = play(source, source.init(first_obs(E)), E, steps)
    old = [events(e, len(transitions(e, steps))) for e in range(E)]
    assert {bool(o[-1].terminated or o[-1].truncated) for o in old} == {False, True}
    state = source.restart(state, first_obs(E, 50))
    *_, (state, _) = play(source, state, E, 2, episode=50)
    seen = set()
    for obs, _, reward, discount, next_obs in rows(source.sample(state, jax.random.key(0))[1]):
        e, episode, _ = obs
        happened = old[e] if episode < 50 else events(e, len(transitions(e, 2, 50)), 50)
        i = [event.obs for event in happened].index(tuple(obs))
        assert (reward, discount, tuple(next_obs)) == n_step(happened, i, n)
        seen.add(tuple(obs))
    assert len(seen) == int(state.memory.size.sum())
    assert {(e, 50, 0) for e in range(E)} < seen


# --- What is refused.


@pytest.mark.parametrize("make", [lambda s: replay.replay(counting_env(), ACTOR, s),
                                  lambda s: replay.host_replay(SPEC, ACTOR, s)], ids=["device", "host"])
@pytest.mark.parametrize(("changed", "message"), [
    ({"batch_size": 22}, r"buffer_size=21 is smaller than batch_size=22.*raise the one or lower the other"),
    ({"train_freq": 8}, r"num_envs . train_freq = 24 .* do not fit buffer_size=21; lower train_freq"),
    ({"learning_starts": 0}, "learning_starts must be at least 1 .*got 0"),
    ({"buffer_size": 20}, "buffer_size must be a positive multiple of num_envs=3, got 20; 18 would do"),
])
def test_sizes_that_do_not_fit_are_refused_when_it_is_made(make, changed, message):
    with pytest.raises(UserError, match=message):
        make(settings(**changed))
