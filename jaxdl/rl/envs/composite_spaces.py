"""`Dict` and `Tuple` observations flattened into one vector, as by `gymnasium.spaces.flatten`.

Parts are in the order of their space, a `Dict`'s sorted by name and nested spaces in place: numbers as they are, `Discrete`
and `MultiDiscrete` as one-hot vectors, all in the widest dtype among them. How this differs from Gymnasium: `Text` and `OneOf`,
whose numbers would be names, are refused, as are `Graph` and `Sequence`, which have no fixed size.

Shapes: `D` numbers of all parts together.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import Space, spaces

from jaxdl.core.errors import EnvError, EnvFailure
from jaxdl.core.types import Array, PyTree

_SIMPLE = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def has_parts(space: Space | None) -> bool:
    """Whether a space is a `Dict` or a `Tuple`."""
    return isinstance(space, spaces.Dict | spaces.Tuple)


def flat_space(env_id: str, space: Space) -> Space:
    """The `Box` [D] of a `Dict` or `Tuple`; any other space as it is.

    Raises:
        EnvError: a part cannot be flattened or is empty; names it and the spaces that can be.
    """
    if not has_parts(space):
        return space
    for leaf in _leaves(space):
        if not isinstance(leaf, _SIMPLE):
            raise EnvError(f"{env_id} has observations with a part {leaf}, which cannot be flattened; parts must be "
                           f"{', '.join(s.__name__ for s in _SIMPLE)}, Dict or Tuple")
    return spaces.flatten_space(space)


def flatten(space: Space, obs: PyTree) -> Array:
    """One observation of a `Dict` or `Tuple` as a vector [D]: `gymnasium.spaces.flatten` of arrays that may be traced.

    A number outside its `Discrete` becomes a vector of zeros.
    """
    dtype = jax.dtypes.canonicalize_dtype(spaces.flatten_space(space).dtype)
    return jnp.concatenate([vector.astype(dtype) for vector in _vectors(space, obs)])


def check(env_id: str, space: Space, obs: Any, place: str = "") -> None:
    """Refuse an observation whose shape or dtype is not its space's; traced arrays are allowed.

    Numbers of the same kind as the space's dtype (float64 for float32) pass. In a part, known integers must be elements of
    their `Discrete` or `MultiDiscrete`, because a one-hot vector would hide that they are not.

    Args:
        env_id: the environment that an error names.
        space: of the observation.
        obs: the observation.
        place: names of the part, separated by slashes.

    Raises:
        EnvError: says which part is wrong, what it is and what its space has.
    """
    def refuse(found: str, wanted: str) -> EnvFailure:
        part = f"whose part '{place}' is " if place else ""
        return EnvFailure(f"{env_id} gave an observation {part}{found}, its space has {wanted}")

    if isinstance(space, spaces.Dict):
        if not isinstance(obs, Mapping):
            raise refuse(brief(obs), f"the parts {_names(space.spaces)}")
        if obs.keys() != space.spaces.keys():
            raise refuse(f"of the parts {_names(obs)}", f"the parts {_names(space.spaces)}")
        for name, part in space.spaces.items():
            check(env_id, part, obs[name], f"{place}/{name}" if place else name)
    elif isinstance(space, spaces.Tuple):
        if not isinstance(obs, tuple | list) or len(obs) != len(space.spaces):
            raise refuse(brief(obs), f"{len(space.spaces)} parts")
        for i, (part, value) in enumerate(zip(space.spaces, obs, strict=True)):
            check(env_id, part, value, f"{place}/{i}" if place else str(i))
    elif space.shape is not None:
        found = obs if isinstance(obs, jax.Array) else array(obs)
        if found.shape != space.shape or not np.can_cast(found.dtype, space.dtype, "same_kind"):
            raise refuse(brief(obs), f"{space.dtype}{list(space.shape)}")
        counts = bounds_of_counts(space) if place and not isinstance(obs, jax.Array) else None
        if counts is not None and not ((found >= counts[0]) & (found <= counts[1])).all():
            raise refuse(str(found.tolist()), str(space))


def bounds_of_counts(space: Space) -> tuple[np.ndarray, np.ndarray] | None:
    """The lowest and the highest numbers of a `Discrete` or `MultiDiscrete`, None of other spaces."""
    if not isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return None
    start = np.asarray(space.start)
    return start, start + (_sizes(space).reshape(space.shape) - 1)


def array(value: Any) -> np.ndarray:
    """A value as an array, or an array of the object None where that is impossible."""
    try:
        return np.asarray(value)
    except ValueError:  # rows of several lengths
        return np.asarray(None)


def brief(value: Any) -> str:
    """A short description of a value: dtype and shape, a number, or a type."""
    if isinstance(value, np.ndarray | jax.Array):
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, tuple):
        return f"{len(value)} values"
    return repr(value) if isinstance(value, bool | int | float | np.generic) else type(value).__name__


def _leaves(space: Space) -> Iterator[Space]:
    if not has_parts(space) or not space.spaces:
        yield space
        return
    for part in space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces:
        yield from _leaves(part)


def _vectors(space: Space, obs: PyTree) -> Iterator[Array]:
    if isinstance(space, spaces.Dict):
        for name, part in space.spaces.items():
            yield from _vectors(part, obs[name])
    elif isinstance(space, spaces.Tuple):
        for part, value in zip(space.spaces, obs, strict=True):
            yield from _vectors(part, value)
    elif isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        sizes = _sizes(space)
        owner = np.repeat(np.arange(len(sizes)), sizes)
        digit = np.concatenate([np.arange(n) for n in sizes]) + np.ravel(space.start)[owner]
        yield jnp.asarray(obs, jnp.int32).ravel()[owner] == jnp.asarray(digit, jnp.int32)
    else:
        yield jnp.ravel(jnp.asarray(obs))


def _sizes(space: spaces.Discrete | spaces.MultiDiscrete) -> np.ndarray:
    return np.ravel(space.n if isinstance(space, spaces.Discrete) else space.nvec)


def _names(parts: Mapping) -> str:
    return ", ".join(sorted(map(str, parts)))
