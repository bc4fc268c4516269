"""The study of gradients through time: a linear cell is a formula; what vanishes, what explodes, and what clipping does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import jit

from jaxdl.core.errors import UserError
from jaxdl.experiments.studies import gradient_flow as study

T, H = 30, 12


@functools.cache
def program(kind):
    return jit(lambda s, forget: study.norms(kind, s, forget, H, T, jax.random.key(0)))


def norms(name):
    kind, s, forget, *_ = study.CASES[name]
    return np.asarray(program(kind)(s, forget))


@pytest.mark.parametrize("s", study.SINGULAR)
def test_without_a_nonlinearity_the_norm_is_a_power(s):
    np.testing.assert_allclose(norms(f"linear_{s}"), s ** study.times(T), rtol=1e-4)


def test_tanh_is_below_the_bound_and_vanishes_at_a_singular_value_of_one():
    for s in (0.9, 1.1):
        assert (norms(f"rnn_{s}") <= s ** study.times(T) * (1 + 1e-5)).all()
    assert norms("rnn_0.9")[-1] < norms("rnn_1.0")[-1] < 1e-2 < norms("rnn_1.5")[-1]


def test_a_forget_gate_that_is_open_keeps_what_a_closed_one_forgets():
    closed, opened, wide = (norms(f"lstm_{b}")[-1] for b in (0.0, 1.0, 3.0))
    assert closed < 1e-3 < 3e-3 < opened < 1 < wide


def test_the_norm_is_that_of_the_jacobian_by_differences():
    k_cell, k_input = jax.random.split(jax.random.key(2))  # as `norms` splits it
    step, _ = study.made("lstm", 1.0, 0.0, 4, k_cell)
    xs = study.inputs(k_input, 3)

    @jit
    def after(v):
        state = v[None, :4], v[None, 4:]
        for x in xs:
            state = step(state, x)
        return jnp.concatenate([x.ravel() for x in state])

    columns = [(after(0.01 * e) - after(-0.01 * e)) / 0.02 for e in np.eye(8, dtype=np.float32)]
    found = study.norms("lstm", 1.0, 0.0, 4, 3, jax.random.key(2))[-1]
    np.testing.assert_allclose(found, np.linalg.norm(np.stack(columns, 1), 2), rtol=2e-3)


def test_clipping_saves_what_explodes_and_changes_nothing_for_what_is_small():
    def a_step(kind, s, steps):
        norm, after = jit(lambda key: study.a_step(kind, s, 0.0, H, steps, key))(jax.random.key(0))
        return float(norm), *map(float, after)

    norm, free, clipped = a_step("rnn_relu", 2.5, T)
    assert norm > 1e6
    assert not free < 100  # NaN too
    assert clipped < 1.01
    norm, free, clipped = a_step("lstm", 1.0, 2)
    assert norm < study.CLIP
    assert free == clipped < 1


def test_kernels_have_the_singular_values_that_are_asked_for():
    q = study.orthogonal(jax.random.key(0), H)
    np.testing.assert_allclose(q.T @ q, jnp.eye(H), atol=1e-5)


def test_flags_out_of_range_are_refused():
    with pytest.raises(UserError, match="steps must be between 1"):
        study.run(study.Args(steps=0))


def test_the_study_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "CASES", {name: study.CASES[name] for name in ("linear_1.0", "rnn_0.9")})
    found = study.run(study.Args(out=tmp_path, steps=4, size=3, seeds=2))
    assert (tmp_path / "gradient_flow.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "gradient_flow.json").is_file()
    assert found["cases"]["linear_1.0"]["norm"] == pytest.approx([1] * 4)
    assert found["times"] == [1, 2, 3, 4]
