"""Training a PixelCNN on one core: images per second beside PyTorch.

    plain      MNIST, dynamic binarization, 12 residual blocks of 32 (64 around them), batch 16
    plusplus   random 32x32 colour images, 3 scales of 2 blocks of 32 each way, mixture of 10 logistics, batch 8

Forward, backward, Adam; jaxdl keeps a running mean of the parameters beside. PyTorch eager with fused Adam, in either layout of
memory, with huge pages. Medians of stretches after one that warms up.
"""

import common
from vae import _pixels

CASES = {"plain": (16, 8), "plusplus": (8, 3)}  # batch, updates in a stretch
MICROBATCHES = {"plain": 4, "plusplus": 2}  # of a batch, in jaxdl: the same gradient from less memory at a time
STRETCHES = 3
BLOCKS, FEATURES, HEAD, MIXTURES, SCALES = {"plain": 12, "plusplus": 2}, 32, 64, 10, 3


def _more(parser) -> None:
    parser.add_argument("--data-dir", required=True, help="folder with the IDX files of MNIST")


def _rate(run, name: str) -> float:
    batch, steps = CASES[name]
    return common.median_rate(lambda: run(steps), batch * steps, STRETCHES)


def jaxdl(args) -> dict:
    """jaxdl, driven as `train.fit` drives it."""
    import jax
    import numpy as np

    from jaxdl import data, optim
    from jaxdl.generative.pixel import pixelcnn
    from jaxdl.runtime.device_driver import make_device_driver

    found = {}
    colour = data.from_arrays(np.random.default_rng(0).integers(0, 256, (512, 32, 32, 3), dtype=np.uint8))
    for name, dataset, output in (("plain", data.load("mnist", args.data_dir), "bernoulli"), ("plusplus", colour, "mixture")):
        spec = dataset.spec
        config = pixelcnn.Config(variant=name, width=FEATURES, num_blocks=BLOCKS[name], head_features=HEAD, likelihood=output,
                                 num_mixtures=MIXTURES, num_scales=SCALES, batch_size=CASES[name][0],
                                 optim=optim.Config(grad_accumulation=MICROBATCHES[name]))
        driver = make_device_driver(lambda c, spec=spec: pixelcnn.make_run(c, spec), [config], dataset.on_device(), [0])
        state = driver.start()

        def run(steps: int, driver=driver) -> None:
            nonlocal state
            state, _ = driver.chunk(state, steps)
            jax.block_until_ready(state)

        found |= {f"{name}_images_per_s": _rate(run, name), f"{name}_compile_s": driver.compile_s,
                  f"{name}_params": sum(x.size for x in jax.tree.leaves(state.learner.params))}
    return found | {"versions": common.versions("jaxdl", "jax")}


def torch_plain(args) -> dict:
    """PyTorch, eager, fused Adam."""
    return _torch(args, channels_last=False)


def torch_channels_last(args) -> dict:
    """The same with channels innermost in memory."""
    return _torch(args, channels_last=True)


def _torch(args, channels_last: bool) -> dict:
    import torch
    from torch.nn import functional

    torch.set_num_threads(1)
    torch.manual_seed(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    mnist = torch.from_numpy(_pixels(args.data_dir)).float().reshape(-1, 1, 28, 28) / 255
    colour = torch.randint(0, 256, (512, 3, 32, 32)).float() / 127.5 - 1

    class Masked(torch.nn.Conv2d):
        def __init__(self, channels, features, window, seen) -> None:
            super().__init__(channels, features, window, padding=window // 2)
            mask = (torch.arange(window**2) < seen).float().reshape(window, window)
            self.register_buffer("mask", mask)

        def forward(self, x):
            return self._conv_forward(x, self.weight * self.mask, self.bias)

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            wide, conv = 2 * FEATURES, torch.nn.Conv2d
            self.first = Masked(1, wide, 7, 24)
            self.blocks = torch.nn.ModuleList(torch.nn.Sequential(
                torch.nn.ReLU(), conv(wide, FEATURES, 1), torch.nn.ReLU(), Masked(FEATURES, FEATURES, 3, 5),
                torch.nn.ReLU(), conv(FEATURES, wide, 1)) for _ in range(BLOCKS["plain"]))
            self.head = torch.nn.Sequential(torch.nn.ReLU(), conv(wide, HEAD, 1), torch.nn.ReLU(), conv(HEAD, 1, 1))

        def forward(self, x):
            h = self.first(2 * x - 1)
            for block in self.blocks:
                h = h + block(h)
            return functional.binary_cross_entropy_with_logits(self.head(h), x, reduction="sum") / len(x)

    def e(x):
        return functional.elu(torch.cat([x, -x], 1))

    def shifted(x, pads, conv):
        return conv(functional.pad(x, pads))  # left, right, top, bottom

    class Block(torch.nn.Module):
        def __init__(self, cut: bool) -> None:
            super().__init__()
            conv, f = torch.nn.Conv2d, FEATURES
            self.u = torch.nn.ModuleList([conv(2 * f, f, (2, 3)), conv(2 * f, 2 * f, (2, 3))])
            self.v = torch.nn.ModuleList([conv(2 * f, f, (2, 2)), conv(2 * f, 2 * f, (2, 2))])
            self.link = conv(2 * f, f, 1, bias=False)
            self.cuts = torch.nn.ModuleList(conv(2 * f, f, 1, bias=False) for _ in range(2)) if cut else None

        def forward(self, u, v, cut):
            u = self.one(u, self.u, (1, 1, 1, 0), [] if cut is None else [self.cuts[0](e(cut[0]))])
            more = [self.link(e(u))] + ([] if cut is None else [self.cuts[1](e(cut[1]))])
            return u, self.one(v, self.v, (1, 0, 1, 0), more)

        def one(self, x, convs, pads, more):
            c = e(sum(more, shifted(e(x), pads, convs[0])))
            d, g = shifted(c, pads, convs[1]).chunk(2, 1)
            return x + d * torch.sigmoid(g)

    class PlusPlus(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            conv, turned, f, last = torch.nn.Conv2d, torch.nn.ConvTranspose2d, FEATURES, SCALES - 1
            self.first = torch.nn.ModuleList([conv(4, f, (2, 3)), conv(4, f, (1, 3)), conv(4, f, (2, 1))])
            self.down = torch.nn.ModuleList(
                torch.nn.ModuleList(Block(False) for _ in range(BLOCKS["plusplus"])) for _ in range(SCALES))
            self.up = torch.nn.ModuleList(
                torch.nn.ModuleList(Block(True) for _ in range(BLOCKS["plusplus"] + (s < last))) for s in range(SCALES))
            self.halves = torch.nn.ModuleList(
                torch.nn.ModuleList([conv(f, f, (2, 3), 2), conv(f, f, (2, 2), 2)]) for _ in range(last))
            self.doubles = torch.nn.ModuleList(torch.nn.ModuleList(
                [turned(f, f, (2, 3), 2, padding=(0, 1), output_padding=(0, 1)), turned(f, f, 2, 2)]) for _ in range(last))
            self.out = conv(f, 10 * MIXTURES, 1)

        def forward(self, x):
            seen = torch.cat([x, torch.ones_like(x[:, :1])], 1)
            u = shifted(seen, (1, 1, 2, 0), self.first[0])[:, :, :-1]
            v = shifted(seen, (1, 1, 1, 0), self.first[1])[:, :, :-1] + shifted(seen, (1, 0, 1, 0), self.first[2])[..., :-1]
            cuts = []
            for s in range(SCALES):
                cuts.append((u, v))
                for block in self.down[s]:
                    u, v = block(u, v, None)
                    cuts.append((u, v))
                if s + 1 < SCALES:
                    u, v = shifted(u, (1, 1, 1, 0), self.halves[s][0]), shifted(v, (1, 0, 1, 0), self.halves[s][1])
            u, v = cuts.pop()
            for s in reversed(range(SCALES)):
                if s + 1 < SCALES:
                    u, v = self.doubles[s][0](u), self.doubles[s][1](v)
                for block in self.up[s]:
                    u, v = block(u, v, cuts.pop())
            return self.loss(self.out(functional.elu(v)), x)

        def loss(self, out, x):
            out = out.unflatten(1, (10, MIXTURES))
            mix, means, scales, slopes = out[:, 0], out[:, 1:4], out[:, 4:7].clamp(min=-7), torch.tanh(out[:, 7:])
            x = x[:, :, None]
            means = torch.stack([means[:, 0], means[:, 1] + slopes[:, 0] * x[:, 0],
                                 means[:, 2] + slopes[:, 1] * x[:, 0] + slopes[:, 2] * x[:, 1]], 1)
            inverse = torch.exp(-scales)
            high, low = inverse * (x - means + 1 / 255), inverse * (x - means - 1 / 255)
            first, last = x < -0.999, x > 0.999
            inside = torch.log(torch.clamp(-torch.expm1(-inverse * 2 / 255), min=1e-12))
            terms = (torch.where(last, 0.0, functional.logsigmoid(high)) + torch.where(first, 0.0, functional.logsigmoid(-low))
                     + torch.where(first | last, 0.0, inside))
            return -torch.logsumexp(torch.log_softmax(mix, 1) + terms.sum(1), 1).sum() / len(x)

    found = {}
    for name, model, images in (("plain", Plain(), mnist), ("plusplus", PlusPlus(), colour)):
        model = model.to(memory_format=layout)
        optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)

        def run(steps: int, name=name, model=model, images=images, optimizer=optimizer) -> None:
            for _ in range(steps):
                x = images[torch.randint(0, len(images), (CASES[name][0],))]
                x = (torch.bernoulli(x) if name == "plain" else x).contiguous(memory_format=layout)
                loss = model(x)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()

        found |= {f"{name}_images_per_s": _rate(run, name), f"{name}_params": sum(p.numel() for p in model.parameters())}
    return found | {"versions": common.versions("torch")}


if __name__ == "__main__":
    SIDES = {"jaxdl": ("jaxdl", jaxdl, common.HUGE_PAGES), "torch": ("peers", torch_plain, common.HUGE_PAGES),
             "torch_channels_last": ("peers", torch_channels_last, common.HUGE_PAGES)}
    common.main(__file__, SIDES, {f"{name}, jaxdl over {side}": ("jaxdl", side, f"{name}_images_per_s", "higher")
                                  for name in CASES for side in SIDES if side != "jaxdl"}, _more)
