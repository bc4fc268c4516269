"""An environment that fails where and how it is told: `jaxdl.experiments.campaigns.faulty:Faulty-v0`.

`arm` says what goes wrong from now on, in this process and in those that it forks. There is a vector form of its own too, and
`Func`, a `FuncEnv`.
"""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from gymnasium.experimental.functional import FuncEnv
from gymnasium.vector import AutoresetMode, VectorEnv

ID = "jaxdl.experiments.campaigns.faulty:Faulty-v0"
FUNC = "jaxdl.experiments.campaigns.faulty:Func"


class Fault(NamedTuple):
    """What goes wrong: the method, what it does instead, at which of its calls, and whether in environments of films alone."""

    call: str = ""
    what: str = ""
    at: int = 1
    film: bool = False


_armed = Fault()
_armed_in = 0  # the process
_calls: dict[str, int] = {}


def arm(fault: Fault) -> None:
    """From now on this goes wrong; what kills does so in processes of environments alone."""
    global _armed, _armed_in
    _armed, _armed_in = fault, os.getpid()
    _calls.clear()


class Unprintable(Exception):
    """An error whose message cannot be had."""

    def __str__(self) -> str:
        raise ValueError("no words")


class Unpicklable(Exception):
    """An error that no pipe takes."""

    def __init__(self) -> None:
        super().__init__("it holds a lock")
        self.lock = threading.Lock()


class Bare(BaseException):
    """An error that is no Exception."""


def _raise(error: BaseException) -> None:
    raise error


def _spin() -> None:
    while True:
        pass


ERRORS: dict[str, Callable[[], BaseException]] = {
    "ValueError": lambda: ValueError("the motor broke\nand more"), "RuntimeError": RuntimeError,
    "OSError": lambda: OSError(5, "no"), "KeyError": lambda: KeyError("speed"), "ZeroDivisionError": ZeroDivisionError,
    "AssertionError": AssertionError, "MemoryError": MemoryError, "RecursionError": RecursionError,
    "StopIteration": StopIteration, "GeneratorExit": GeneratorExit,
    "EOFError": EOFError, "BrokenPipeError": BrokenPipeError, "TimeoutError": TimeoutError, "ImportError": ImportError,
    "NotImplementedError": NotImplementedError, "UnicodeError": lambda: UnicodeError("\udcff"),
    "CancelledError": asyncio.CancelledError, "Unprintable": Unprintable, "Unpicklable": Unpicklable, "Bare": Bare,
    "KeyboardInterrupt": KeyboardInterrupt, "SystemExit(0)": lambda: SystemExit(0), "SystemExit(None)": SystemExit,
    "SystemExit(text)": lambda: SystemExit("the window was closed")}
EXITS: dict[str, Callable[[], Any]] = {"sys.exit(3)": lambda: sys.exit(3), "os._exit(0)": lambda: os._exit(0),
                                       "os._exit(7)": lambda: os._exit(7)}
HANGS: dict[str, Callable[[], Any]] = {"sleeps": lambda: time.sleep(600), "spins": _spin, "waits": threading.Event().wait}
KILLS: dict[str, Callable[[], Any]] = {"SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
                                       "SIGSEGV": lambda: os.kill(os.getpid(), signal.SIGSEGV)}

_OBS = np.zeros(3, np.float32)
STEPS: dict[str, Any] = {
    "None": None, "4 values": (_OBS, 1.0, False, {}), "6 values": (_OBS, 1.0, False, False, {}, {}), "a list": [_OBS, 1.0],
    "a shape": (np.zeros(4, np.float32), 1.0, False, False, {}), "a dtype": (np.zeros(3, complex), 1.0, False, False, {}),
    "words": (np.array(["a", "b", "c"]), 1.0, False, False, {}), "nan": (_OBS * np.nan, 1.0, False, False, {}),
    "inf": (_OBS + np.inf, 1.0, False, False, {}), "no observation": (None, 1.0, False, False, {}),
    "rows": ([[1.0], [1.0, 2.0]], 1.0, False, False, {}), "reward None": (_OBS, None, False, False, {}),
    "reward nan": (_OBS, float("nan"), False, False, {}), "reward 1e39": (_OBS, 1e39, False, False, {}),
    "rewards": (_OBS, np.zeros(2), False, False, {}), "reward text": (_OBS, "1", False, False, {}),
    "terminated None": (_OBS, 1.0, None, False, {}), "terminated 1.0": (_OBS, 1.0, 1.0, False, {}),
    "truncated text": (_OBS, 1.0, False, "no", {})}
RESETS: dict[str, Any] = {
    "None": None, "an observation": _OBS, "3 values": (_OBS, {}, {}), "a shape": (np.zeros((3, 1), np.float32), {}),
    "nan": (_OBS * np.nan, {}), "no observation": (None, {}), "a dict": ({"a": 1}, {})}
PICTURES: dict[str, Any] = {"None": None, "floats": np.zeros((4, 4, 3)), "a row": np.zeros(4, np.uint8), "a list": [],
                            "four colours": np.zeros((4, 4, 4), np.uint8), "text": "picture"}
INFOS: dict[str, Any] = {
    "None": None, "nested": {"a": {"b": {"c": [1, "x", None]}}}, "objects": {"lock": threading.Lock(), 3: object()},
    "a function": {"f": lambda: 0}, "shapes": "shapes", "kinds": "kinds", "text": "all is well"}


def _now(call: str, film: bool) -> str | None:
    """What goes wrong in this call, or None."""
    if _armed.call != call or (_armed.film and not film):
        return None
    if _armed.what in KILLS and os.getpid() == _armed_in:
        return None
    _calls[call] = _calls.get(call, 0) + 1
    return _armed.what if _calls[call] == _armed.at else None


def _act(what: str | None) -> None:
    if what in ERRORS:
        _raise(ERRORS[what]())
    for table in (EXITS, HANGS, KILLS):
        if what in table:
            table[what]()


class Faulty(gymnasium.Env):
    """Seven steps an episode."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012
    observation_space, action_space = spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(2)

    def __init__(self, render_mode: str | None = None):
        self.render_mode, self.t = render_mode, 0
        self._go("make")

    def _go(self, call: str) -> str | None:
        what = _now(call, self.render_mode is not None)
        _act(what)
        return what

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        """The first observation."""
        super().reset(seed=seed)
        self.t, what = 0, self._go("reset")
        return RESETS[what] if what in RESETS else (_OBS, self._info())

    def step(self, action: Any) -> Any:
        """The next one."""
        self.t, what = self.t + 1, self._go("step")
        return STEPS[what] if what in STEPS else (_OBS, float(action), self.t == 7, False, self._info())

    def _info(self) -> Any:
        said = INFOS.get(_now("info", False) or "", {})
        if said == "shapes":
            return {"legal": np.arange(self.t % 3 + 1)}
        return {"why": self.t if self.t % 2 else "unknown"} if said == "kinds" else said

    def render(self) -> Any:
        """A picture."""
        what = self._go("render")
        return PICTURES[what] if what in PICTURES else np.full((8, 8, 3), 20 * self.t, np.uint8)

    def close(self) -> None:
        """Close it."""
        self._go("close")


class FaultyVector(VectorEnv):
    """Its vector form."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012
    single_observation_space, single_action_space = Faulty.observation_space, Faulty.action_space

    def __init__(self, num_envs: int = 1, **options: Any):
        self.num_envs = num_envs
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)
        self.t = 0
        _act(_now("make", False))

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        """The first observations."""
        self.t, what = 0, _now("reset", False)
        _act(what)
        found = RESETS.get(what or "", (_OBS, {}))
        if isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], np.ndarray):
            return np.stack([found[0]] * self.num_envs), found[1]
        return found

    def step(self, actions: Any) -> Any:
        """The next ones."""
        what, self.t = _now("step", False), self.t + 1
        _act(what)
        if what in STEPS:
            return STEPS[what]
        ended = np.full(self.num_envs, self.t % 8 == 7)
        return np.stack([_OBS] * self.num_envs), np.zeros(self.num_envs), ended, ~ended & False, {"free": object()}

    def close_extras(self, **options: Any) -> None:
        """Close them."""
        _act(_now("close", False))


class Func(FuncEnv):
    """A functional one."""

    observation_space, action_space = spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(2)
    max_episode_steps = 7

    def __init__(self) -> None:
        _act(_now("make", False))
        super().__init__()

    def initial(self, rng: Any, params: Any = None) -> Any:
        """The first state."""
        _act(_now("initial", False))
        return jnp.zeros(3)

    def transition(self, state: Any, action: Any, rng: Any, params: Any = None) -> Any:
        """The next one."""
        _act(_now("transition", False))
        return state

    def observation(self, state: Any, rng: Any, params: Any = None) -> Any:
        """The state itself."""
        return state

    def reward(self, state: Any, action: Any, next_state: Any, rng: Any, params: Any = None) -> Any:
        """The action."""
        return 1.0 * action

    def terminal(self, state: Any, rng: Any, params: Any = None) -> Any:
        """Never."""
        return False

    def render_init(self, params: Any = None, **options: Any) -> Any:
        """Nothing to draw on."""
        return None

    def render_image(self, state: Any, render_state: Any, params: Any = None) -> Any:
        """A picture."""
        what = _now("render", False)
        _act(what)
        return None, PICTURES[what] if what in PICTURES else np.zeros((8, 8, 3), np.uint8)

    def render_close(self, render_state: Any, params: Any = None) -> None:
        """Close it."""
        _act(_now("close", False))


gymnasium.register("Faulty-v0", entry_point=f"{__name__}:Faulty", vector_entry_point=f"{__name__}:FaultyVector")
