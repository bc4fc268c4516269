"""Attacks on one LeNet of MNIST, whose weights both sides have: seconds of PGD, and whether images are the same.

1,000 test images, l-infinity, epsilon 0.1, 40 steps of 0.01. FGSM and PGD without a random start (the last iterate) are held
against each other pixel by pixel, PGD on 250 in float64 too: a sign is lost where a gradient is rounding, and an image goes
another way then. For that the network learns smoothed labels, since gradients of images of which it is sure to seven digits are
rounding; and images have uniform noise of one grey level, since equal windows of a plain background tie in max-pools, and
libraries share gradients among them differently. Speed is that of PGD with a random start, 250 images at a time on both sides.
Seconds are the core's own (`time.process_time`), so that other work on the machine counts little.
"""

import time
from pathlib import Path

import common

NUM, EPSILON, STEPS, STEP, BLOCK = 1000, 0.1, 40, 0.01, 250
clock = time.process_time


def more(parser) -> None:
    parser.add_argument("--data-dir", required=True, help="folder with the IDX files of MNIST")
    parser.add_argument("--work", required=True, help="folder for the network's weights, and for what each side found")


def lenet(args):
    """LeNet of jaxdl as a function of pictures [N, 28, 28, 1]; pictures, noisy ones and their labels.

    The network is trained where `--work` has none.
    """
    import jax
    import numpy as np

    from jaxdl import data
    from jaxdl.runtime.device_driver import make_device_driver
    from jaxdl.supervised import classifier

    train, test = data.load_splits("mnist", args.data_dir)
    config = classifier.Config(network="lenet", batch_size=128, epochs=2, label_smoothing=0.1)
    driver = make_device_driver(lambda c: classifier.make_run(c, train.spec), [config], train.on_device(), [0])
    state, file = driver.start(), Path(args.work) / "lenet.npz"
    params = driver.params(state)
    if file.exists():
        kept = np.load(file)
        leaves = [kept[f"w{i}"] for i in range(len(jax.tree.leaves(params)))]
        params = jax.tree.unflatten(jax.tree.structure(params), [jax.numpy.asarray(leaf) for leaf in leaves])
    else:
        state, _ = driver.chunk(state, classifier.total_steps(config, train.spec))
        params = driver.params(state)
        rng, images = np.random.default_rng(0), test.images[:NUM]
        arrays = {f"w{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(params))}
        arrays |= {"x": np.float32(images / 255), "y": test.labels[:NUM].astype(np.int32),
                   "noisy": np.float32((images + rng.random(images.shape)) / 256)}
        np.savez(file, **arrays)
    kept, logits = np.load(file), classifier.make(config, train.spec).logits
    return lambda x: logits(params, x), *(jax.numpy.asarray(kept[name]) for name in ("x", "noisy", "y"))


def in_float64(args):
    """The same function by lax alone, in float64; within `jax.enable_x64`."""
    import jax.numpy as jnp
    import numpy as np
    from jax import lax

    kept = np.load(Path(args.work) / "lenet.npz")
    w = [jnp.asarray(kept[f"w{i}"], jnp.float64) for i in range(10)]

    def f(x):
        for i, padding in ((0, "SAME"), (2, "VALID")):
            x = lax.conv_general_dilated(x, w[i + 1], (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")) + w[i]
            x = lax.reduce_window(jnp.maximum(x, 0), -np.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        x = x.reshape(len(x), -1)
        for i in (4, 6, 8):
            x = (jnp.maximum(x, 0) if i > 4 else x) @ w[i + 1] + w[i]
        return x

    return f, jnp.asarray(kept["noisy"][:BLOCK], jnp.float64), jnp.asarray(kept["y"][:BLOCK])


def torch_lenet(args):
    """The same network in PyTorch, of pictures [N, 1, 28, 28]: its layers in order of the leaves (bias before kernel)."""
    import numpy as np
    import torch
    from torch import nn

    torch.set_num_threads(1)
    kept = np.load(Path(args.work) / "lenet.npz")
    model = nn.Sequential(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(),
                          nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(),
                          nn.Linear(84, 10)).eval()
    with torch.no_grad():
        for i, layer in enumerate(m for m in model if hasattr(m, "weight")):
            kernel = kept[f"w{2 * i + 1}"]
            if kernel.shape[0] == 400:  # rows of maps [5, 5, 16], there [16, 5, 5]
                kernel = kernel.reshape(5, 5, 16, 120).transpose(2, 0, 1, 3).reshape(400, 120)
            layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4
                                                                     else kernel.T)))
            layer.bias.copy_(torch.from_numpy(kept[f"w{2 * i}"]))
    pictures = (torch.from_numpy(kept[name].transpose(0, 3, 1, 2).copy()) for name in ("x", "noisy"))
    return model, *pictures, torch.from_numpy(kept["y"].astype(np.int64))


def jaxdl(args) -> dict:
    """`jaxdl.adversarial`."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxdl.adversarial import attacks, ball

    f, x, noisy, y = lenet(args)

    def last(f, x, y):
        """The last iterate: the library gives the worst point that it saw."""
        @jax.jit
        def step(now, x, y):
            grad = jax.grad(lambda x: attacks.loss_of(f(x), y, "cross_entropy").sum())(now)
            return ball.project(now + STEP * ball.steepest(grad, "linf"), x, EPSILON, "linf")
        now = x
        for _ in range(STEPS):
            now = step(now, x, y)
        return now

    made = {"fgsm": jax.jit(lambda x, y: attacks.fgsm(f, x, y, EPSILON, "linf").x)(noisy, y), "pgd": last(f, noisy, y)}
    with jax.enable_x64(True):
        made["pgd_float64"] = last(*in_float64(args))
    np.savez(Path(args.work) / "made.npz", **{name: np.asarray(value) for name, value in made.items()})
    pgd = jax.jit(lambda x, y, key: attacks.iterated(f, x, y, EPSILON, "linf", STEPS, STEP, key)[:2])
    keys = jax.random.split(jax.random.key(common.seed()), NUM // BLOCK)

    def part() -> None:
        jax.block_until_ready([pgd(x[i * BLOCK : (i + 1) * BLOCK], y[i * BLOCK : (i + 1) * BLOCK], key)
                               for i, key in enumerate(keys)])

    seconds = NUM / common.median_rate(part, NUM, clock=clock)
    kept = [pgd(x[i * BLOCK : (i + 1) * BLOCK], y[i * BLOCK : (i + 1) * BLOCK], key)[1] > 0 for i, key in enumerate(keys)]
    return {"pgd_s": seconds, "accuracy_under_pgd": float(jnp.concatenate(kept).mean()),
            "versions": common.versions("jaxdl", "jax")}


def torchattacks(args) -> dict:
    """torchattacks, and how far its images are from ours."""
    import numpy as np
    import torch
    import torchattacks as ta

    model, x, noisy, y = torch_lenet(args)
    ours, difference, double = np.load(Path(args.work) / "made.npz"), {}, torch_lenet(args)[0].double()
    pgd_of = {"eps": EPSILON, "alpha": STEP, "steps": STEPS, "random_start": False}
    theirs = {"fgsm": ta.FGSM(model, eps=EPSILON), "pgd": ta.PGD(model, **pgd_of), "pgd_float64": ta.PGD(double, **pgd_of)}
    for name, attack in theirs.items():
        made = (attack(noisy[:BLOCK].double(), y[:BLOCK]) if name == "pgd_float64" else attack(noisy, y)).numpy()
        apart = np.abs(made - ours[name].transpose(0, 3, 1, 2))
        difference |= {f"{name}_largest_difference": float(apart.max()),
                       f"{name}_images_that_differ": int((apart.max((1, 2, 3)) > 1e-5).sum())}
    torch.manual_seed(common.seed())
    pgd = ta.PGD(model, eps=EPSILON, alpha=STEP, steps=STEPS)

    def part() -> None:
        for i in range(0, NUM, BLOCK):
            pgd(x[i : i + BLOCK], y[i : i + BLOCK])

    seconds = NUM / common.median_rate(part, NUM, clock=clock)
    right = float((model(pgd(x, y)).argmax(-1) == y).float().mean())
    return {"pgd_s": seconds, "accuracy_under_pgd": right, **difference, "versions": common.versions("torch", "torchattacks")}


if __name__ == "__main__":
    common.main(
        __file__,
        {"jaxdl": ("jaxdl", jaxdl), "torchattacks": ("peers", torchattacks, common.HUGE_PAGES)},
        {"PGD of 40 steps on 1,000 images, jaxdl over torchattacks": ("jaxdl", "torchattacks", "pgd_s", "lower")}, more)
