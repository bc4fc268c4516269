"""A language model of characters beside PyTorch: training an LSTM of 2 layers of 256, and writing text with it.

Both train on windows of 64 characters of 32 streams, 65 characters in the vocabulary, with the state carried over, gradients
clipped to norm 1 and Adam (PyTorch's fused). They write one text or 32 side by side, a character drawn from the softmax at a
time, each the next input. PyTorch runs eagerly, as `nn.LSTM` is not compiled into; its loop of one character is that of its
tutorials, in inference mode. Characters are random, which changes no speed; medians of three parts after one that warms up.
"""

import common

VOCABULARY, SIZE, LAYERS, WINDOW, BATCH = 65, 256, 2, 64, 32


def _more(parser) -> None:
    parser.add_argument("--updates", type=int, default=40, help="of a part of training")
    parser.add_argument("--length", type=int, default=2000, help="characters that a text of a part has")


def _tokens(num: int = 200_000):
    import numpy as np

    return np.random.default_rng(0).integers(0, VOCABULARY, num).astype(np.uint8)


def _spec():
    from jaxdl.core.types import DataSpec

    return DataSpec("random", 200_000, (), vocabulary=tuple(map(chr, range(32, 32 + VOCABULARY))), input="tokens")


def _config():
    from jaxdl.generative.text import language_model

    return language_model.Config(cell="lstm", num_layers=LAYERS, hidden_size=SIZE, window=WINDOW, batch_size=BATCH,
                                 total_steps=1000)


def jaxdl_training(args) -> dict:
    """jaxdl, driven as `train.fit` drives it."""
    import jax

    from jaxdl.data.text import Tokens
    from jaxdl.generative.text import language_model
    from jaxdl.runtime.device_driver import make_device_driver

    data = Tokens(jax.numpy.asarray(_tokens()))
    driver = make_device_driver(lambda c: language_model.make_run(c, _spec()), [_config()], data, [0])
    state = driver.start()

    def part() -> None:
        nonlocal state
        state, _ = driver.chunk(state, args.updates)
        jax.block_until_ready(state)

    return {"characters_per_s": common.median_rate(part, args.updates * WINDOW * BATCH), "compile_s": driver.compile_s,
            "versions": common.versions("jaxdl", "jax")}


def jaxdl_writing(args, num: int = 1) -> dict:
    """The command `jaxdl sample`: 32 characters between two looks of the host."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxdl.generative.text import language_model

    spec = _spec()
    network = language_model.make(_config(), spec).network
    writer = language_model.writer(network, spec.vocabulary)
    params = jax.jit(network.init)(jax.random.key(0))
    extend = jax.jit(lambda params, state, key: writer.extend(params, state, key, 32))
    state, key, chunks = writer.begin(params, jnp.zeros((1, num), jnp.int32)), jax.random.key(1), -(-args.length // 32)

    def part() -> None:
        nonlocal state
        for k in jax.random.split(key, chunks):
            state, drawn = extend(params, state, k)
            np.asarray(drawn)

    return {"characters_per_s": common.median_rate(part, 32 * chunks * num), "versions": common.versions("jaxdl", "jax")}


def jaxdl_writing_32(args) -> dict:
    """The same, 32 texts side by side."""
    return jaxdl_writing(args, 32)


def _torch_model():
    import torch
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(0)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.lstm = nn.Embedding(VOCABULARY, SIZE), nn.LSTM(SIZE, SIZE, LAYERS)
            self.head = nn.Linear(SIZE, VOCABULARY)

        def forward(self, x, state=None):
            h, state = self.lstm(self.embed(x), state)
            return self.head(h), state

    return Model()


def torch_training(args) -> dict:
    """PyTorch: nn.LSTM, its state detached from window to window."""
    import torch
    from torch import nn

    model = _torch_model()
    adam = torch.optim.Adam(model.parameters(), 2e-3, fused=True)
    streams = torch.from_numpy(_tokens().astype("int64"))[: 200_000 // BATCH * BATCH].reshape(BATCH, -1).T.contiguous()
    windows, at, state = (len(streams) - 1) // WINDOW, 0, None

    def part() -> None:
        nonlocal at, state
        for _ in range(args.updates):
            begin = at % windows * WINDOW
            x, y = streams[begin : begin + WINDOW], streams[begin + 1 : begin + WINDOW + 1]
            state = None if begin == 0 else tuple(h.detach() for h in state)
            logits, state = model(x, state)
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten())
            adam.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            adam.step()
            at += 1

    return {"characters_per_s": common.median_rate(part, args.updates * WINDOW * BATCH), "versions": common.versions("torch")}


def torch_writing(args, num: int = 1) -> dict:
    """PyTorch: a loop of one character."""
    import torch

    model = _torch_model().eval()
    token, state = torch.zeros((1, num), dtype=torch.int64), None

    def part() -> None:
        nonlocal token, state
        with torch.inference_mode():
            for _ in range(args.length):
                logits, state = model(token, state)
                token = torch.multinomial(torch.softmax(logits[0], -1), 1).T
                token.tolist()  # what is printed

    return {"characters_per_s": common.median_rate(part, args.length * num), "versions": common.versions("torch")}


def torch_writing_32(args) -> dict:
    """The same, 32 texts side by side."""
    return torch_writing(args, 32)


if __name__ == "__main__":
    common.main(
        __file__,
        {"jaxdl_training": ("jaxdl", jaxdl_training), "torch_training": ("peers", torch_training, common.HUGE_PAGES),
         "jaxdl_writing": ("jaxdl", jaxdl_writing), "torch_writing": ("peers", torch_writing, common.HUGE_PAGES),
         "jaxdl_writing_32": ("jaxdl", jaxdl_writing_32), "torch_writing_32": ("peers", torch_writing_32, common.HUGE_PAGES)},
        {"training, jaxdl over PyTorch": ("jaxdl_training", "torch_training", "characters_per_s", "higher"),
         "writing one text, jaxdl over PyTorch": ("jaxdl_writing", "torch_writing", "characters_per_s", "higher"),
         "writing 32 texts, jaxdl over PyTorch": ("jaxdl_writing_32", "torch_writing_32", "characters_per_s", "higher"),
         "32 texts over one": ("jaxdl_writing_32", "jaxdl_writing", "characters_per_s", "higher")}, _more)
