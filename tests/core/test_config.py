"""Settings: which fields are leaves, what a program depends on, and what an untrusted file may say."""

import dataclasses
import json
import math
import re
from importlib import import_module
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import optim
from jaxdl.agents import dqn, ppo
from jaxdl.core import config
from jaxdl.core.errors import UserError
from jaxdl.core.types import DataSpec
from jaxdl.experiments.algorithms import ALGORITHMS
from jaxdl.generative import vae
from jaxdl.runtime import fit


@config.config
class Inner:
    rate: float = 0.5
    steps: int = 3


@config.config
class Outer:
    size: int = 4
    scale: float = 2.0
    limit: float | None = None
    limits: int | None = None
    name: str = "x"
    widths: tuple[int, ...] = (8, 4)
    flag: bool = False
    inner: Inner = Inner()


ALL = [Outer(), Outer(limit=1.5, limits=2, widths=(), inner=Inner(0.1, 7)), dqn.Config(), vae.Config(epochs=3),
       optim.Config(l2=0.1), fit.Config(stop_at=3.0)]


def leaves(value):
    return {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(value)}


def test_floats_and_configs_within_are_leaves_and_all_else_is_static():
    assert leaves(Outer()) == {".scale": 2.0, ".inner.rate": 0.5}
    assert leaves(Outer(limit=9.0)) == {".scale": 2.0, ".limit": 9.0, ".inner.rate": 0.5}
    assert set(leaves(fit.Config(stop_at=1.0))) == {".stop_at"}
    assert {name for name in leaves(dqn.Config()) if "optim" not in name} == {
        ".gamma", ".tau", ".exploration_initial_eps", ".exploration_final_eps", ".exploration_fraction", ".priority_exponent",
        ".importance_exponent", ".noisy_sigma", ".env.sticky_actions"}


@pytest.mark.parametrize("value", ALL, ids=lambda v: f"{type(v).__module__}.{type(v).__name__}")
def test_a_config_is_rebuilt_from_its_leaves(value):
    flat, treedef = jax.tree.flatten(value)
    assert jax.tree.unflatten(treedef, flat) == value
    assert all(isinstance(x, float) for x in flat)


def test_it_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Outer().size = 5


def test_static_fields_are_the_structure_and_leaves_are_not():
    def structure(**changes):
        return jax.tree.structure(Outer(**changes))

    assert structure(scale=7.0, inner=Inner(rate=0.1)) == structure()
    assert hash(structure(scale=7.0)) == hash(structure())
    for change in ({"size": 5}, {"name": "y"}, {"widths": (8,)}, {"flag": True}, {"limits": 1}, {"inner": Inner(steps=4)},
                   {"limit": 1.0}):
        assert structure(**change) != structure(), change


def test_a_new_number_needs_no_new_program_and_a_new_size_does():
    traced = []

    @jax.jit
    def program(c):
        traced.append(c)
        return jnp.full(c.size, c.scale * c.inner.rate)

    results = [program(config.leaves_as_arrays(Outer(scale=s, inner=Inner(rate=r)))) for s, r in ((2.0, 0.5), (3, 0.25))]
    np.testing.assert_allclose(results, [[1.0] * 4, [0.75] * 4])
    assert len(traced) == 1
    assert program(config.leaves_as_arrays(Outer(size=2))).shape == (2,)
    assert len(traced) == 2
    assert isinstance(traced[0].size, int)
    assert isinstance(traced[0].scale, jax.core.Tracer)


def test_a_batch_of_numbers_is_a_population_of_configs():
    rates = jnp.array([0.1, 0.2, 0.3])
    out = jax.vmap(lambda c: c.scale * c.inner.rate, in_axes=(Outer(scale=None, inner=Inner(rate=0)),))(
        Outer(scale=2.0, inner=Inner(rate=rates)))
    np.testing.assert_allclose(out, 2 * rates)


def test_leaves_become_float32_and_the_rest_stays():
    value = config.leaves_as_arrays(Outer(scale=3, limit=0.1))
    assert {name: (x.dtype, x.shape) for name, x in leaves(value).items()} == dict.fromkeys(
        (".scale", ".limit", ".inner.rate"), (jnp.float32, ()))
    assert (value.size, value.widths, value.inner.steps, value.limits) == (4, (8, 4), 3, None)


@pytest.mark.parametrize("value", ALL, ids=lambda v: f"{type(v).__module__}.{type(v).__name__}")
def test_what_is_written_as_json_is_what_is_read(value):
    text = json.dumps(config.to_dict(value), allow_nan=False)
    again = config.from_dict(type(value), json.loads(text))
    assert again == value
    assert jax.tree.structure(again) == jax.tree.structure(value)
    assert json.dumps(config.to_dict(again)) == text


def test_every_field_is_written():
    assert json.loads(json.dumps(config.to_dict(Outer()))) == {
        "size": 4, "scale": 2.0, "limit": None, "limits": None, "name": "x", "widths": [8, 4], "flag": False,
        "inner": {"rate": 0.5, "steps": 3}}
    for value in ALL:
        assert set(config.to_dict(value)) == {f.name for f in dataclasses.fields(value)}


def test_fields_that_are_absent_have_their_defaults_and_whole_numbers_may_be_floats():
    assert config.from_dict(Outer, {}) == Outer()
    read = config.from_dict(Outer, {"scale": 3, "inner": {"steps": 9}})
    assert read == Outer(scale=3.0, inner=Inner(steps=9))
    assert isinstance(read.scale, float)


@pytest.mark.parametrize(("values", "words"), [
    ({"sise": 3}, r"somewhere: unknown field 'sise'; did you mean 'size'\?"),
    ({"zzz": 3}, r"somewhere: unknown field 'zzz'; known are: flag, inner, limit"),
    ({"inner": {"rat": 3}}, r"somewhere\.inner: unknown field 'rat'; did you mean 'rate'\?"),
    ({"inner": 3}, r"somewhere\.inner: expected an object .*Inner, got int"),
    ({"inner": None}, r"somewhere\.inner: expected an object .*Inner, got NoneType"),
    ([1], r"somewhere: expected an object .*Outer, got list"),
    (None, r"somewhere: expected an object .*Outer, got NoneType"),
    ({"size": "4"}, r"somewhere: Expected `int`, got `str` - at `size`"),
    ({"size": 4.5}, r"somewhere: Expected `int`, got `float` - at `size`"),
    ({"size": True}, r"somewhere: Expected `int`, got `bool` - at `size`"),
    ({"size": None}, r"somewhere: Expected `int`, got `null` - at `size`"),
    ({"scale": "2"}, r"somewhere: Expected `float`, got `str` - at `scale`"),
    ({"flag": 1}, r"somewhere: Expected `bool`, got `int` - at `flag`"),
    ({"limit": "x"}, r"somewhere: Expected `float \| null`, got `str` - at `limit`"),
    ({"widths": 8}, r"somewhere: Expected `array`, got `int` - at `widths`"),
    ({"widths": [8, "4"]}, r"somewhere: Expected `int`, got `str` - at `widths\[1\]`"),
    ({"inner": {"rate": []}}, r"somewhere: Expected `float`, got `array` - at `inner\.rate`"),
])
def test_what_is_no_config_is_refused_by_its_field(values, words):
    with pytest.raises(UserError, match=words) as e:
        config.from_dict(Outer, values, "somewhere")
    assert "\n" not in str(e.value)


def test_a_choice_is_held_to_its_words():
    with pytest.raises(UserError, match="'cubic' - at `loss`"):
        config.from_dict(dqn.Config, {"loss": "cubic"})


def test_the_nearest_known_word_is_suggested_else_all_of_them():
    assert config.suggest("gama", ["tau", "gamma"]) == "; did you mean 'gamma'?"
    assert config.suggest("zzz", ["tau", "gamma"]) == "; known are: gamma, tau"


def test_a_requirement_names_the_field_the_value_and_what_would_do():
    config.require(Outer(), "size", True, "even")
    with pytest.raises(UserError, match=r"^name must be longer, got 'x'$"):
        config.require(Outer(), "name", False, "longer")


@pytest.mark.parametrize("value", [0, -1, 0.0, -0.5, math.nan, math.inf])
def test_positive_is_a_finite_number_above_zero_or_none(value):
    config.require_positive(Outer(size=1, scale=1e-30), "size", "scale", "limit", "limits")
    with pytest.raises(UserError, match=f"^limit must be above 0, got {value}$"):
        config.require_positive(Outer(limit=value), "scale", "limit")


def test_whole_numbers_of_any_length_are_compared():
    with pytest.raises(UserError, match=r"^limit must be below 2\*\*31"):
        config.require_positive(Outer(limit=10**400), "limit")


def test_lists_of_sizes_have_an_end():
    config.check_lengths(dqn.Config(hidden_sizes=(8,) * 100))
    with pytest.raises(UserError, match=r"^hidden_sizes must have at most 100 entries, got 10,000$"):
        config.check_lengths(dqn.Config(hidden_sizes=(8,) * 10_000))


@pytest.mark.parametrize("value", [-1e-9, 1.0000001, math.nan, math.inf, -math.inf])
def test_a_share_lies_between_zero_and_one_with_both(value):
    for end in (0, 0.0, 1, 1.0):
        config.require_unit(Outer(scale=end), "scale")
    with pytest.raises(UserError, match=f"^scale must be between 0 and 1, got {value}$"):
        config.require_unit(Outer(scale=value), "scale")


@config.config
class Renamed:
    renamed: ClassVar = {"old": "new", "mode": lambda value: {"mode": value != "none", "kind": value} if value != "none" else
                         {"mode": False}}
    new: int = 1
    mode: bool = False
    kind: str = "a"


@config.config
class Around:
    inner: Renamed = Renamed()


def test_fields_of_an_earlier_version_are_read_under_their_new_names():
    assert config.from_dict(Renamed, {"old": 3}) == Renamed(new=3)
    assert config.from_dict(Renamed, {"mode": "b"}) == Renamed(mode=True, kind="b")
    assert config.from_dict(Around, {"inner": {"old": 4, "mode": "none"}}) == Around(Renamed(new=4))


@config.config
class Own:
    """Settings with other defaults of the settings within."""

    inner: Inner = Inner(rate=0.1, steps=9)


@pytest.mark.parametrize(("given", "expected"), [
    ({}, (0.1, 9)), ({"inner": Inner()}, (0.1, 9)), ({"inner": Inner(rate=2.0)}, (2.0, 9)), ({"inner": Inner(2.0)}, (2.0, 9)),
    ({"inner": Inner(steps=3)}, (0.1, 3)), ({"inner": Own().inner}, (0.1, 9)), ({"inner": Outer().inner}, (0.5, 3)),
    ({"inner": dataclasses.replace(Inner(), rate=2.0)}, (2.0, 3))])
def test_of_settings_within_what_is_not_given_stays_what_the_outer_class_has(given, expected):
    inner = Own(**given).inner
    assert (inner.rate, inner.steps) == expected
    assert dataclasses.replace(Own(**given)).inner == inner
    assert jax.tree.map(lambda x: x, Own(**given)).inner == inner


def test_one_number_of_the_optimizer_leaves_the_algorithms_schedule_eps_and_clipping():
    given = ppo.Config(optim=optim.Config(learning_rate=3e-4)).optim
    assert given == dataclasses.replace(ppo.Config().optim, learning_rate=3e-4)
    assert ppo.Config(optim=optim.Config(schedule="constant")).optim.schedule == "constant"


@pytest.mark.parametrize(("field", "value", "message"), [
    ("size", "100", "size must be a whole number, got '100'"), ("size", 1.5, "size must be a whole number, got 1.5"),
    ("size", True, "size must be a whole number, got True"), ("size", None, "size must be a whole number, got None"),
    ("limits", "2", "limits must be a whole number or None, got '2'"), ("name", 3, "name must be a word, got 3"),
    ("widths", (1, "x"), "widths must be several of: a whole number, got (1, 'x')"), ("widths", 8, "widths must be"),
    ("flag", "no", "flag must be True or False, got 'no'"), ("scale", "2", "scale must be a number, got '2'"),
    ("scale", [1.0], "scale must be a number"), ("limit", "x", "limit must be a number or None, got 'x'"),
    ("inner", {"rate": 1.0}, "inner must be a test_config.Inner, got {'rate': 1.0}"), ("inner", 3, "inner must be a")])
def test_a_field_of_another_type_is_refused_when_a_config_is_made(field, value, message):
    with pytest.raises(UserError, match=re.escape(message)):
        Outer(**{field: value})
    with pytest.raises(UserError, match=re.escape(message)):
        dataclasses.replace(Outer(), **{field: value})


@pytest.mark.parametrize(("field", "value", "kept"), [
    ("size", 1e5, 100_000), ("size", np.int64(7), 7), ("widths", [3, 4], (3, 4)), ("name", Path("a") / "b", "a/b"),
    ("flag", np.bool_(True), True), ("limits", 8.0, 8)])
def test_a_value_that_means_the_declared_type_becomes_it(field, value, kept):
    found = getattr(Outer(**{field: value}), field)
    assert found == kept
    assert type(found) is type(kept)


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_what_makes_a_run_in_python_validates_as_the_command_line_does(algo):
    module = import_module(ALGORITHMS[algo].partition(":")[0])
    bad = optim.Config(learning_rate=-1.0)
    rest = () if hasattr(module, "make_host_run") else (DataSpec("bits", 512, (4, 4, 1), 2),)
    with pytest.raises(UserError, match=re.escape("learning_rate must be above 0, got -1.0")):
        module.make_run(module.Config(optim=bad), *rest)
    with pytest.raises(UserError, match="learning_rate must be a number, got None"):
        module.make_run(module.Config(optim=optim.Config(learning_rate=None)), *rest)
    if not rest:
        with pytest.raises(UserError, match=re.escape("gamma must be between 0 and 1, got 2.0")):
            module.make_host_run(module.Config(gamma=np.float32(2.0)), None)


def test_a_traced_number_is_not_validated():
    seen = []
    jax.eval_shape(lambda x: config.validate_untraced(seen.append, Outer(scale=x)), 1.0)
    assert seen == []
    config.validate_untraced(seen.append, Outer(scale=np.float32(1)))
    assert len(seen) == 1
