"""N environments on the host, whose every answer is checked.

Shapes: `N` environments, `...` the shape of one observation or action.
"""

import re
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from jaxdl.core.errors import EnvError, EnvFailure
from jaxdl.rl.envs import composite_spaces
from jaxdl.rl.envs.calls import Calls, fail
from jaxdl.rl.envs.composite_spaces import array, brief
from jaxdl.rl.envs.watchdog import Watchdog
from jaxdl.rl.envs.workers import Workers
from jaxdl.rl.types import TimeStep

# of rewards, which are refused in a sentence; `np.errstate` would cost a microsecond a step
warnings.filterwarnings("ignore", "overflow encountered in cast", RuntimeWarning, re.escape(__name__))


class HostEnvs:
    """A Gymnasium vector environment whose every answer is checked, and waited for as long as a call may take.

    Failures are `EnvError`s of one sentence with the environment's id, what it gave and what was expected. `info` is not read.
    """

    def __init__(self, venv: VectorEnv, call: Calls, episodes: Callable[[dict], np.ndarray] | None = None):
        """Wrap `venv`.

        Args:
            venv: the environments.
            call: their calls.
            episodes: infos -> numbers [N] that change exactly where an environment was reset; None: an environment is reset
                in every step after its `terminated` or `truncated`.

        Raises:
            EnvError: `venv` resets otherwise than in the step after an episode's last (NEXT_STEP); it is closed.
        """
        self.venv, self.env_id, self.num_envs, self._closed = venv, call.env_id, venv.num_envs, False
        self._call, self._watch = call, call.watch
        mode = venv.metadata.get("autoreset_mode")
        if mode != AutoresetMode.NEXT_STEP:
            self.close()
            how = f"in the mode {mode}" if mode else "in a mode that its metadata do not name (autoreset_mode)"
            raise EnvError(f"{self.env_id} resets its episodes {how}, expected Gymnasium's NEXT_STEP; use "
                           "vectorization=sync or async")
        self._episodes, self._before = episodes, np.zeros(self.num_envs)
        self._flags = np.zeros(self.num_envs, bool)
        self._space, self._actions = venv.observation_space, venv.action_space
        self._held = jax.dtypes.canonicalize_dtype(self._space.dtype)  # what programs make of observations
        self._counts = composite_spaces.bounds_of_counts(venv.single_observation_space)

    @property
    def hung(self) -> bool:
        """Whether a call did not come back."""
        return self._watch.late

    def reset(self, seed: int) -> np.ndarray:
        """Reset all environments and return their observations [N, ...]; any integer is a seed.

        Raises:
            EnvError: the environment failed, did not answer, or gave an observation outside its space.
        """
        answer = self._call("reset", lambda: self.venv.reset(seed=int(seed) % (2**31 - self.num_envs)))
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise EnvFailure(f"{self.env_id} gave {brief(answer)} from reset, expected observations and a dict")
        obs, info = answer
        self._before = self._flags if self._episodes is None else self._episodes(info)
        return self._checked(obs)

    def step(self, action: np.ndarray) -> TimeStep:
        """Step all environments.

        Args:
            action: [N, ...] elements of the action space, in its dtype or another of the same kind. Those of a `Box` of
                float64 are clipped to its bounds, because rounding to float32 may have moved them outside.

        Raises:
            EnvError: the environment failed, did not answer, or gave an observation outside its space, a reward that is
                not a finite number, or flags that are not bool.
        """
        if action.dtype != self._actions.dtype:
            action = self._converted(action)
        try:
            with self._watch:
                obs, reward, terminated, truncated, info = self.venv.step(action)
        except BaseException as e:
            self._call.failed = True
            fail(self.env_id, "step", e)
        obs, reward = self._checked(obs), self._rewarded(reward)
        for name, flags in (("terminated", terminated), ("truncated", truncated)):
            if type(flags) is not np.ndarray or flags.dtype != bool or flags.shape != self._flags.shape:
                raise EnvFailure(f"{self.env_id} gave {name} = {_of(flags)}, expected bool[{self.num_envs}]")
        if self._episodes is None:
            reset, self._before = self._before, terminated | truncated
        else:
            before, self._before = self._before, self._episodes(info)
            reset = self._before != before
        return TimeStep(obs, reward, terminated, truncated, reset=reset)

    def render(self) -> Any:
        """The picture of the first environment, as it gives it.

        Raises:
            EnvError: the environment failed or did not answer.
        """
        return self._call("render", self.venv.render)[0]

    def close(self) -> None:
        """Close the environments, once. What failed before is given little time, and of its closing nothing is said.

        Raises:
            EnvError: closing them failed or took too long.
        """
        if self._closed:
            return
        self._closed, workers = True, isinstance(self.venv, Workers)
        try:
            self._call.close(self.venv.kill if workers and self._call.failed else self.venv.close)
        finally:
            if workers:
                self.venv.kill()

    def _converted(self, action: np.ndarray) -> np.ndarray:
        space = self._actions
        if space.dtype == np.float64:
            return np.clip(action, space.low, space.high)
        return action if space.dtype is None else action.astype(space.dtype)

    def _checked(self, obs: Any) -> np.ndarray:
        """Observations of the space's shape and dtype, as programs will have them."""
        space = self._space
        if type(obs) is not np.ndarray or obs.shape != space.shape or obs.dtype != space.dtype:
            raise EnvFailure(f"{self.env_id} gave observations {_of(obs)}, its space has "
                             f"{space.dtype}{list(space.shape)}")
        if self._counts is not None and not ((obs >= self._counts[0]) & (obs <= self._counts[1])).all():
            raise EnvFailure(f"{self.env_id} gave observations {obs.tolist()}, its space is "
                             f"{self.venv.single_observation_space}")
        given = obs
        if obs.dtype != self._held:
            with np.errstate(over="ignore", invalid="ignore"):
                obs = obs.astype(self._held)
            if obs.dtype.kind != "f" and (obs != given).any():
                raise EnvFailure(f"{self.env_id} gave the observation {given[obs != given].ravel()[0]}, which {obs.dtype} does "
                                 "not hold")
        if obs.dtype.kind == "f" and not np.isfinite(obs).all():
            more = f", which {obs.dtype} does not hold" if np.isfinite(given).all() else ""
            raise EnvFailure(f"{self.env_id} gave an observation that is not finite{self._where(obs, given)}{more}")
        return obs

    def _rewarded(self, reward: Any) -> np.ndarray:
        if type(reward) is not np.ndarray or reward.shape != self._flags.shape or reward.dtype.kind not in "fiub":
            raise EnvFailure(f"{self.env_id} gave rewards {_of(reward)}, expected float[{self.num_envs}]")
        given, reward = reward, reward.astype(np.float32)
        if not np.isfinite(reward).all():
            more = f", which {reward.dtype} does not hold" if np.isfinite(given).all() else ""
            raise EnvFailure(f"{self.env_id} gave a reward that is not finite{self._where(reward, given)}{more}")
        return reward

    def _where(self, values: np.ndarray, given: np.ndarray) -> str:
        """Description of the first of `values` [N, ...] that is not finite: ': ... in environment i of N'."""
        bad = ~np.isfinite(values.reshape(self.num_envs, -1))
        i = int(bad.any(1).argmax())
        return f": {given.reshape(self.num_envs, -1)[i][bad[i]][0]} in environment {i} of {self.num_envs}"


def make_checked(env_id: str, timeout: float, make: Callable[[], VectorEnv],
                 episodes: Callable[[dict], np.ndarray] | None = None) -> HostEnvs:
    """The environments that `make` makes, a call of which may take `timeout` seconds (0: for ever), as may `make`.

    Raises:
        EnvError: one of `make`; or as by `HostEnvs`.
    """
    call = Calls(env_id, timeout)
    try:
        return HostEnvs(call("make", make), call, episodes)
    except BaseException:
        call.watch.close()
        raise


def _of(value: Any) -> str:
    """A short description of arrays, with whose they are where they are not NumPy's."""
    return f"{brief(value)} of JAX" if isinstance(value, jax.Array) else brief(value)


class Checked(gymnasium.Wrapper):
    """One environment whose answers are checked before Gymnasium batches several, whose own errors would say less.

    Numbers of the same kind as the space's dtype (float64 for float32) pass: Gymnasium converts them. `info`, which an
    environment may fill as it likes, is thrown away: Gymnasium would make arrays of what several of them say.
    """

    def __init__(self, env: gymnasium.Env, env_id: str):
        super().__init__(env)
        self._space = space = env.observation_space
        self._id, self._shape, self._dtype = env_id, space.shape, space.dtype

    def reset(self, **options: Any) -> tuple[Any, dict]:
        """As in Gymnasium, checked."""
        Watchdog.within = "reset"  # which may be a step's
        try:
            answer = self.env.reset(**options)
        except BaseException as e:
            fail(self._id, "reset", e)
        finally:
            Watchdog.within = None
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise EnvFailure(f"{self._id} gave {brief(answer)} from reset, expected an observation and a dict")
        self._check(answer[0])
        return answer[0], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        """As in Gymnasium, checked."""
        try:
            answer = self.env.step(action)
        except BaseException as e:
            fail(self._id, "step", e)
        if type(answer) is not tuple or len(answer) != 5:
            raise EnvFailure(f"{self._id} gave {brief(answer)} from step, expected observation, reward, terminated, "
                             "truncated and a dict")
        obs, reward, terminated, truncated, _ = answer
        self._check(obs)
        if not isinstance(reward, float) and (array(reward).shape != () or array(reward).dtype.kind not in "fiub"):
            raise EnvFailure(f"{self._id} gave a reward {brief(reward)}, expected a number")
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            if type(flag) is not bool and (array(flag).shape != () or array(flag).dtype != bool):
                raise EnvFailure(f"{self._id} gave {name} = {brief(flag)}, expected a bool")
        return obs, reward, terminated, truncated, {}

    def render(self) -> Any:
        """As in Gymnasium."""
        try:
            return self.env.render()
        except BaseException as e:
            fail(self._id, "render", e)

    def close(self) -> None:
        """As in Gymnasium."""
        try:
            self.env.close()
        except BaseException as e:
            fail(self._id, "close", e)

    def _check(self, obs: Any) -> None:
        if type(obs) is np.ndarray and obs.dtype == self._dtype and obs.shape == self._shape:
            return
        composite_spaces.check(self._id, self._space, obs)


class CheckedVector(gymnasium.vector.VectorObservationWrapper):
    """Checks Dict and Tuple observations before flattening, because the error after flattening would not name the part."""

    def __init__(self, venv: VectorEnv, env_id: str):
        super().__init__(venv)
        self._id = env_id

    def observations(self, observations: Any) -> Any:
        """The same observations.

        Raises:
            EnvError: they are not in their space.
        """
        composite_spaces.check(self._id, self.env.observation_space, observations)
        return observations
