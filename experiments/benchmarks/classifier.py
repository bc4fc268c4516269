"""Training classifiers of MNIST: images per second beside PyTorch, compiled with fused Adam; folds beside runs in turn.

mlp: 784-500-300-10, batch 128. lenet: LeNet-5, batch 64, PyTorch in the faster of its two layouts, with huge pages. Both: ReLU,
Adam 1e-3, a new order each epoch. Medians of three epochs (lenet: 300 updates) after one that warms up. Folds: 8 of 4 learning
rates on the digits, MLP 64-64-10, 100 updates each, as one program and as 32 runs of one program one after the other,
both without compiling.
"""

import common


def _more(parser) -> None:
    parser.add_argument("--data-dir", required=True, help="folder with the IDX files of MNIST")


def _config(name: str):
    from jaxdl.supervised import classifier

    if name == "mlp":
        return classifier.Config(network="mlp", hidden_sizes=(500, 300), batch_size=128, epochs=100)
    return classifier.Config(network="lenet", batch_size=64, epochs=100)


def _steps(name: str) -> int:
    return 60_000 // 128 if name == "mlp" else 300


def _jaxdl(args, name: str) -> dict:
    import jax

    from jaxdl import data
    from jaxdl.runtime.device_driver import make_device_driver
    from jaxdl.supervised import classifier

    mnist, config = data.load("mnist", args.data_dir), _config(name)
    driver = make_device_driver(lambda c: classifier.make_run(c, mnist.spec), [config], mnist.on_device(), [0])
    state, steps = driver.start(), _steps(name)

    def part() -> None:
        nonlocal state
        state, _ = driver.chunk(state, steps)
        jax.block_until_ready(state)

    return {"images_per_s": common.median_rate(part, steps * config.batch_size), "compile_s": driver.compile_s,
            "versions": common.versions("jaxdl", "jax")}


def jaxdl_mlp(args) -> dict:
    """jaxdl, driven as `fit` drives it."""
    return _jaxdl(args, "mlp")


def jaxdl_lenet(args) -> dict:
    """The same."""
    return _jaxdl(args, "lenet")


def torch_mlp(args) -> dict:
    """PyTorch compiled, fused Adam."""
    from torch import nn

    return _torch(args, "mlp", nn.Sequential(nn.Flatten(), nn.Linear(784, 500), nn.ReLU(), nn.Linear(500, 300), nn.ReLU(),
                                             nn.Linear(300, 10)), channels_last=False)


def torch_lenet(args) -> dict:
    """PyTorch compiled, channels first."""
    return _torch_lenet(args, channels_last=False)


def torch_lenet_last(args) -> dict:
    """PyTorch compiled, channels last."""
    return _torch_lenet(args, channels_last=True)


def _torch_lenet(args, channels_last: bool) -> dict:
    from torch import nn

    return _torch(args, "lenet", nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)), channels_last)


def _torch(args, name: str, model, channels_last: bool) -> dict:
    import gzip
    from pathlib import Path

    import numpy as np
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder, batch = Path(args.data_dir), 128 if name == "mlp" else 64
    raw = np.frombuffer(gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    images = torch.from_numpy(raw.reshape(-1, 1, 28, 28).copy())
    labels = np.frombuffer(gzip.decompress((folder / "train-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    labels = torch.from_numpy(labels.astype(np.int64))
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    adam = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    forward = torch.compile(lambda x, y: torch.nn.functional.cross_entropy(model(x.float() / 255), y))
    rng, steps = np.random.default_rng(0), _steps(name)

    def part() -> None:
        for index in rng.permutation(len(images))[: steps * batch].reshape(steps, batch):
            x = images[index]
            loss = forward(x.contiguous(memory_format=torch.channels_last) if channels_last else x, labels[index])
            adam.zero_grad()
            loss.backward()
            adam.step()

    return {"images_per_s": common.median_rate(part, steps * batch), "versions": common.versions("torch")}


FOLDS, RATES, UPDATES = 8, (3e-4, 1e-3, 3e-3, 1e-2), 100


def _folds(together: bool) -> dict:
    import dataclasses

    import jax

    from jaxdl import data
    from jaxdl.runtime.device_driver import make_device_driver
    from jaxdl.supervised import classifier

    digits = data.load("digits")
    digits = digits.part(data.drawn(digits, "folds"))
    base = classifier.Config(network="mlp", hidden_sizes=(64,), batch_size=64, total_steps=UPDATES, folds=FOLDS)
    configs = [dataclasses.replace(base, fold=float(fold), optim=dataclasses.replace(base.optim, learning_rate=rate))
               for rate in RATES for fold in range(FOLDS)]

    def made(configs):
        return make_device_driver(lambda c: classifier.make_run(c, digits.spec), configs, digits.on_device(),
                                  [0] * len(configs))

    drivers = [made(configs)] if together else [made([configs[0]])]  # members that differ in numbers are one program

    def part() -> None:
        for driver in drivers * (1 if together else len(configs)):
            jax.block_until_ready(driver.chunk(driver.start(), UPDATES))

    return {"runs_per_s": common.median_rate(part, len(configs)), "compile_s": sum(d.compile_s for d in drivers),
            "versions": common.versions("jaxdl", "jax")}


def folds_together(args) -> dict:
    """As one program."""
    return _folds(together=True)


def folds_in_turn(args) -> dict:
    """One after the other."""
    return _folds(together=False)


if __name__ == "__main__":
    common.main(
        __file__,
        {"jaxdl_mlp": ("jaxdl", jaxdl_mlp), "torch_mlp": ("peers", torch_mlp), "jaxdl_lenet": ("jaxdl", jaxdl_lenet),
         "torch_lenet": ("peers", torch_lenet, common.HUGE_PAGES),
         "torch_lenet_last": ("peers", torch_lenet_last, common.HUGE_PAGES),
         "folds_together": ("jaxdl", folds_together), "folds_in_turn": ("jaxdl", folds_in_turn)},
        {"images_per_s, MLP, jaxdl over PyTorch compiled": ("jaxdl_mlp", "torch_mlp", "images_per_s", "higher"),
         "images_per_s, LeNet, jaxdl over PyTorch compiled": ("jaxdl_lenet", "torch_lenet", "images_per_s", "higher"),
         "images_per_s, LeNet, jaxdl over PyTorch compiled, channels last": (
             "jaxdl_lenet", "torch_lenet_last", "images_per_s", "higher"),
         "runs_per_s, 8 folds of 4 rates, one program over runs in turn": (
             "folds_together", "folds_in_turn", "runs_per_s", "higher")}, _more)
