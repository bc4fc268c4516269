"""Drawing images pixel by pixel on one core: seconds an image, incremental and naive, compile time apart.

    plain      28x28x1, 12 residual blocks of 32 (64 around them), Bernoulli; also gated and both LSTMs of that size
    plusplus   32x32x3, 3 scales of 5 blocks of 32, mixture of 10 logistics

The naive sampler runs the whole network of the same parameters for every pixel, within one program; the time of one pixel is
measured and multiplied by their number. `side_S` draws SxS images with the plain network, 16 at once.
"""

import functools
import statistics
import time

import common

MODELS = {"plain": ("pixelcnn", 12), "gated": ("pixelcnn", 12), "row": ("pixelrnn", 12), "diagonal": ("pixelrnn", 12),
          "plusplus": ("pixelcnn", 5)}
BATCHES = {"plain": (1, 16, 64), "gated": (1, 16, 64), "row": (1, 16, 64), "diagonal": (1, 16, 64),
           "plusplus": (1, 16, 64, 256)}
SIDES = (8, 16, 32, 64)
STRETCHES, LONG_ENOUGH = 5, 3.0  # of runs, the median of which counts; seconds after which no other is begun
FEW = 4  # pixels that the naive sampler is timed over


def _setup(name: str, shape: tuple[int, int, int], batch: int):
    import jax
    import jax.numpy as jnp

    from jaxdl.core.types import DataSpec
    from jaxdl.generative.pixel import autoregressive, pixelcnn, pixelrnn

    module = {"pixelcnn": pixelcnn, "pixelrnn": pixelrnn}[MODELS[name][0]]
    config = module.Config(variant=name, width=32, num_blocks=MODELS[name][1],
                           likelihood="mixture" if shape[2] > 1 else "bernoulli")
    network, output = module.network(config, DataSpec("benchmark", 1, shape))
    params = jax.jit(network.init)(jax.random.key(0))
    noise = jax.random.uniform(jax.random.key(1), (batch, *shape[:2], output.groups, output.uniforms))
    given, known = jnp.zeros((batch, *shape)), jnp.zeros(shape[:2], bool)
    incremental = functools.partial(autoregressive.incremental, network, output)
    return network, output, params, noise, given, known, incremental


def _seconds(program, *args) -> float:
    import jax

    jax.block_until_ready(program(*args))
    seconds = []
    while len(seconds) < STRETCHES and sum(seconds) < LONG_ENOUGH:
        start = time.perf_counter()
        jax.block_until_ready(program(*args))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _shape(name: str) -> tuple[int, int, int]:
    return (32, 32, 3) if name == "plusplus" else (28, 28, 1)


def incremental(args) -> dict:
    """Each layer at one pixel at a time."""
    import jax

    found = {}
    cases = [(f"{name}_{batch}", name, _shape(name), batch) for name, batches in BATCHES.items() for batch in batches]
    for what, name, shape, batch in [*cases, *((f"side_{side}", "plain", (side, side, 1), 16) for side in SIDES)]:
        _, _, params, noise, given, known, draw = _setup(name, shape, batch)
        start = time.perf_counter()
        program = jax.jit(lambda params, noise, draw=draw, given=given, known=known: draw(params, noise, given, known, None)[0]
                          ).lower(params, noise).compile()
        found[f"{what}_compile_s"] = time.perf_counter() - start
        found[f"{what}_s"] = _seconds(program, params, noise) / batch
    return found | {"versions": common.versions("jaxdl", "jax")}


def naive(args) -> dict:
    """The whole network for every pixel."""
    import jax
    import jax.numpy as jnp

    found = {}
    for name, batches in BATCHES.items():
        shape = _shape(name)
        for batch in batches:
            network, output, params, noise, given, _, _ = _setup(name, shape, batch)

            def program(params, x, noise, network=network, output=output):
                def step(x, i):
                    out = network.apply(params, output.inputs(x), None, None)[:, i, i, 0]
                    drawn = output.draw(out, noise[:, i, i, 0], 1.0)
                    return x.at[:, i, i].set(drawn), None

                return jax.lax.scan(step, x, jnp.arange(FEW))[0]

            seconds = _seconds(jax.jit(program), params, given, noise) / FEW
            found[f"{name}_{batch}_s"] = seconds * shape[0] * shape[1] / batch
    return found | {"versions": common.versions("jaxdl", "jax")}


if __name__ == "__main__":
    common.main(__file__, {"incremental": ("jaxdl", incremental), "naive": ("jaxdl", naive)},
                {f"{name}, batch {batch}, incremental over naive": ("incremental", "naive", f"{name}_{batch}_s", "lower")
                 for name, batches in BATCHES.items() for batch in batches})
