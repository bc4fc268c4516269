"""What many tests use: programs that compile in little time, comparisons of trees of arrays, commands of jaxdl."""

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys

import jax
import numpy as np

from jaxdl.core.compile import START_OPTIONS
from jaxdl.experiments import cli

jit = functools.partial(jax.jit, compiler_options=START_OPTIONS)  # compiles in less time


def leaves(tree):
    """`(path, array)` of each leaf; keys of random numbers as the numbers they are made of."""
    return [(jax.tree_util.keystr(path), np.asarray(jax.random.key_data(x) if is_key(x) else x))
            for path, x in jax.tree_util.tree_leaves_with_path(tree)]


def arrays(tree):
    """The leaves of a tree as arrays of NumPy."""
    return [x for _, x in leaves(tree)]


def is_key(x):
    return hasattr(x, "dtype") and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def random_like(params, seed=0):
    """Weights of a size that keeps activations near one, none of them zero; offsets too."""
    rng = np.random.default_rng(seed)
    def draw(x):
        inputs = x.shape[-2:-1] if x.ndim < 4 else x.shape[-4:-1]
        return np.float32(rng.normal(size=x.shape) * (np.prod(inputs) + 1) ** -0.5)

    return jax.tree.map(draw, params)


def same_bits(a, b):
    """Two trees have the same structure, and leaves of the same shapes, dtypes and bytes."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), (_, y) in zip(leaves(a), leaves(b), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype), path
        assert x.tobytes() == y.tobytes(), path


def assert_close(a, b, rtol=1e-5, atol=1e-6):
    """Two trees have the same structure and numbers within tolerances."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), (_, y) in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol, err_msg=path)


def assert_near(a, b, by_field=False):
    """Each leaf is right to 1e-5 of its norm; `by_field`: each field of a state, as one vector."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    parts = zip(a, b, strict=True) if by_field else zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    for x, y in ((vector(x), vector(y)) for x, y in parts if jax.tree.leaves(x)):
        assert np.linalg.norm(x - y) <= 1e-5 * np.linalg.norm(y)


def vector(tree):
    """All numbers of a tree as one vector."""
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def differ(a, b):
    """Any leaf of two trees of one structure has other numbers."""
    return any(not np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def products(jaxpr):
    """The dtypes that matrix products and convolutions take, anywhere within."""
    return set(products_in_order(jaxpr))


def products_in_order(jaxpr):
    """The dtype of each matrix product and convolution, from the first to the last."""
    found = []
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in ("dot_general", "conv_general_dilated"):
            found += sorted({str(v.aval.dtype) for v in eqn.invars})
        for inner in _inner(eqn.params):
            found += products_in_order(inner)
    return found


def _inner(params):
    for value in params.values():
        for x in value if isinstance(value, (tuple, list)) else (value,):
            x = getattr(x, "jaxpr", x)
            if hasattr(x, "eqns"):
                yield x


def run(capsys, *argv):
    """The JSON of a command."""
    assert cli.main([*map(str, argv), "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def refused(capsys, *argv):
    """The sentence with which a command ends."""
    assert cli.main([str(word) for word in argv]) == 2
    return capsys.readouterr().err.splitlines()[-1]


@contextlib.contextmanager
def other_process_holds(folder, more=""):
    """Another process holds the lock of a folder; its id, and `more` is what it does then."""
    code = ("import os, sys, time, pathlib\nfrom jaxdl.core import lock\nwith lock.hold(pathlib.Path(sys.argv[1])):\n"
            f"    print('held', flush=True)\n    {more or 'pass'}\n    time.sleep(60)")
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True,
                               start_new_session=True)
    try:
        assert process.stdout.readline() == "held\n"
        if more:
            process.stdout.readline()
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
