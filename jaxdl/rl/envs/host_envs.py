"""N environments on the host, whose every answer is checked.

Shapes: `N` environments, `...` the shape of one observation or action.
"""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from jaxdl.core.errors import EnvError, described
from jaxdl.rl.envs import composite_spaces
from jaxdl.rl.envs.composite_spaces import array, brief
from jaxdl.rl.envs.watchdog import Watchdog
from jaxdl.rl.types import TimeStep


class HostEnvs:
    """A Gymnasium vector environment whose every answer is checked, and waited for `timeout` seconds (0: for ever).

    Failures are `EnvError`s of one sentence with the environment's id, what it gave and what was expected.
    """

    def __init__(self, venv: VectorEnv, env_id: str, timeout: float, episodes: Callable[[dict], np.ndarray] | None = None):
        """Wrap `venv`.

        Args:
            venv: the environments.
            env_id: their id, for errors.
            timeout: seconds that each call may take.
            episodes: infos -> numbers [N] that change exactly where an environment was reset; None: an environment is reset
                in every step after its `terminated` or `truncated`.

        Raises:
            EnvError: `venv` resets otherwise than in the step after an episode's last (NEXT_STEP); it is closed.
        """
        mode = venv.metadata.get("autoreset_mode")
        if mode != AutoresetMode.NEXT_STEP:
            venv.close()
            raise EnvError(f"{env_id} resets its episodes in the mode {mode}, expected Gymnasium's NEXT_STEP")
        self.venv, self.env_id, self.num_envs = venv, env_id, venv.num_envs
        self._episodes, self._before = episodes, np.zeros(self.num_envs)
        self._flags = np.zeros(self.num_envs, bool)
        self._space, self._actions = venv.observation_space, venv.action_space
        self._watch = Watchdog(env_id, timeout)

    def reset(self, seed: int) -> np.ndarray:
        """Reset all environments and return their observations [N, ...]; any integer is a seed.

        Raises:
            EnvError: the environment failed, did not answer, or gave an observation outside its space.
        """
        obs, info = self._call(lambda: self.venv.reset(seed=int(seed) % (2**31 - self.num_envs)))
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
        except Exception as e:
            raise self._failure(e) from e
        obs, reward = self._checked(obs), self._rewarded(reward)
        for name, flags in (("terminated", terminated), ("truncated", truncated)):
            if type(flags) is not np.ndarray or flags.dtype != bool or flags.shape != self._flags.shape:
                raise EnvError(f"{self.env_id} gave {name} = {brief(flags)}, expected bool[{self.num_envs}]")
        if self._episodes is None:
            reset, self._before = self._before, terminated | truncated
        else:
            before, self._before = self._before, self._episodes(info)
            reset = self._before != before
        return TimeStep(obs, reward, terminated, truncated, reset=reset)

    def close(self) -> None:
        """Close the environments. After a timeout their processes are killed, because closing would wait for an answer."""
        processes = getattr(self.venv, "processes", ())
        if self._watch.late and processes:
            for process in processes:
                process.kill()
                process.join()
            self.venv.closed = True
        else:
            with self._watch:
                self.venv.close()
        self._watch.close()

    def _converted(self, action: np.ndarray) -> np.ndarray:
        space = self._actions
        if space.dtype == np.float64:
            return np.clip(action, space.low, space.high)
        return action if space.dtype is None else action.astype(space.dtype)

    def _call(self, function: Callable[[], Any]) -> Any:
        try:
            with self._watch:
                return function()
        except Exception as e:
            raise self._failure(e) from e

    def _failure(self, error: Exception) -> EnvError:
        return error if isinstance(error, EnvError) else EnvError(f"{self.env_id} failed: {described(error)}")

    def _checked(self, obs: Any) -> np.ndarray:
        space = self._space
        if type(obs) is not np.ndarray or obs.shape != space.shape or obs.dtype != space.dtype:
            raise EnvError(f"{self.env_id} gave observations {brief(obs)}, its space has "
                           f"{space.dtype}{list(space.shape)}")
        if obs.dtype.kind == "f" and not np.isfinite(obs).all():
            raise EnvError(f"{self.env_id} gave an observation that is not finite{self._where(obs)}")
        return obs

    def _rewarded(self, reward: Any) -> np.ndarray:
        if type(reward) is not np.ndarray or reward.shape != self._flags.shape or reward.dtype.kind not in "fiub":
            raise EnvError(f"{self.env_id} gave rewards {brief(reward)}, expected float[{self.num_envs}]")
        reward = reward.astype(np.float32)
        if not np.isfinite(reward).all():
            raise EnvError(f"{self.env_id} gave a reward that is not finite{self._where(reward)}")
        return reward

    def _where(self, values: np.ndarray) -> str:
        """Description of the first of `values` [N, ...] that is not finite: ': ... in environment i of N'."""
        bad = ~np.isfinite(values.reshape(self.num_envs, -1))
        i = int(bad.any(1).argmax())
        return f": {values.reshape(self.num_envs, -1)[i][bad[i]][0]} in environment {i} of {self.num_envs}"


class Checked(gymnasium.Wrapper):
    """One environment whose answers are checked before Gymnasium batches several, whose own errors would say less.

    Numbers of the same kind as the space's dtype (float64 for float32) pass: Gymnasium converts them.
    """

    def __init__(self, env: gymnasium.Env, env_id: str):
        super().__init__(env)
        self._space = space = env.observation_space
        self._id, self._shape, self._dtype = env_id, space.shape, space.dtype

    def reset(self, **options: Any) -> tuple[Any, dict]:
        """As in Gymnasium, checked."""
        answer = self.env.reset(**options)
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise EnvError(f"{self._id} gave {brief(answer)} from reset, expected an observation and a dict")
        self._check(answer[0])
        return answer

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        """As in Gymnasium, checked."""
        answer = self.env.step(action)
        if type(answer) is not tuple or len(answer) != 5:
            raise EnvError(f"{self._id} gave {brief(answer)} from step, expected observation, reward, terminated, "
                           "truncated and a dict")
        obs, reward, terminated, truncated, _ = answer
        self._check(obs)
        if not isinstance(reward, float) and (array(reward).shape != () or array(reward).dtype.kind not in "fiub"):
            raise EnvError(f"{self._id} gave a reward {brief(reward)}, expected a number")
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            if type(flag) is not bool and (array(flag).shape != () or array(flag).dtype != bool):
                raise EnvError(f"{self._id} gave {name} = {brief(flag)}, expected a bool")
        return answer

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
