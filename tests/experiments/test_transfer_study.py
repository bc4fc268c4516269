"""The study of transfer: soft neighbours by hand, and what is made on one classifier breaks others more than noise does."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.experiments.studies import transfer_attacks as study


def test_soft_neighbours_are_their_sum():
    known, labels = jax.random.uniform(jax.random.key(0), (30, 6)), jnp.arange(30) % 3
    x = jax.random.uniform(jax.random.key(1), (4, 3, 2, 1))
    far = np.square(np.asarray(known)[:, None] - np.asarray(known)[None]).sum(-1) + np.diag(np.full(30, np.inf))
    votes = np.exp(-np.square(np.asarray(x).reshape(4, 1, 6) - np.asarray(known)).sum(-1) / far.min(-1).mean())
    want = np.log(np.stack([votes[:, labels == c].sum(-1) for c in range(3)], -1))
    np.testing.assert_allclose(study.soft_neighbours(known, labels, 3)(x), want, rtol=1e-3, atol=1e-3)


def test_what_is_made_on_one_breaks_others(tmp_path):
    found = study.run(study.Args(out=tmp_path, num=200, epochs=10, epsilon=0.2))["errors"]
    assert list(found) == ["nothing", "noise", *study.NAMES]
    assert max(found["nothing"].values()) < 0.15
    for name in study.NAMES:
        assert found[name][name] > found["noise"][name] + 0.1
        assert np.mean([found[name][other] - found["noise"][other] for other in study.NAMES if other != name]) > 0.05
    assert (tmp_path / "transfer_attacks.png").read_bytes()[:4] == b"\x89PNG"
