"""AutoAttack on the LeNet of `attacks`, 1,000 test images of MNIST, l-infinity, epsilon 0.1: what withstands, and seconds.

Both sides: Auto-PGD by cross-entropy and towards 9 classes, FAB towards 9, 100 steps each, Square with 5,000 queries, each on
what is left. The class AutoAttack of torchattacks takes 10 steps where the paper has 100, so its four attacks are put together
here. Images have noise of one grey level, for the reason that `attacks` gives. Ours compiles within the time. Seconds are the
core's own (`time.process_time`).
"""

from pathlib import Path

import attacks
import common
from attacks import EPSILON, NUM, clock


def jaxdl(args) -> dict:
    """`jaxdl.adversarial.auto`."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxdl.adversarial.auto import auto

    f, _, x, y = attacks.lenet(args)
    began = clock()
    found = auto(f, x, y, EPSILON, "linf", jax.random.key(common.seed()))
    seconds = clock() - began
    kept = float((f(jnp.asarray(found.x)).argmax(-1) == y).mean())
    np.savez(Path(args.work) / "auto.npz", x=found.x)
    return {"auto_s": seconds, "accuracy": float(found.clean.mean()), "robust_accuracy": kept, "after": found.withstood,
            "versions": common.versions("jaxdl", "jax")}


def torchattacks(args) -> dict:
    """The four attacks of torchattacks, and what its network says of our images."""
    import numpy as np
    import torch
    from torchattacks import APGD, APGDT, FAB, MultiAttack, Square

    model, _, x, y = attacks.torch_lenet(args)
    rest = {"eps": EPSILON, "norm": "Linf", "seed": common.seed(), "n_restarts": 1}
    began = clock()
    moved = MultiAttack([APGD(model, steps=100, loss="ce", **rest), APGDT(model, steps=100, n_classes=10, **rest),
                         FAB(model, steps=100, multi_targeted=True, n_classes=10, **rest),
                         Square(model, n_queries=5000, **rest)])(x, y)
    seconds = clock() - began
    ours = torch.from_numpy(np.load(Path(args.work) / "auto.npz")["x"].transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        right, kept, by_ours = (float((model(z).argmax(-1) == y).sum()) / NUM for z in (x, moved, ours))
    return {"auto_s": seconds, "accuracy": right, "robust_accuracy": kept, "robust_accuracy_of_our_images": by_ours,
            "versions": common.versions("torch", "torchattacks")}


if __name__ == "__main__":
    common.main(__file__, {"jaxdl": ("jaxdl", jaxdl), "torchattacks": ("peers", torchattacks, common.HUGE_PAGES)},
                {"AutoAttack on 1,000 images, jaxdl over torchattacks": ("jaxdl", "torchattacks", "auto_s", "lower")},
                attacks.more)
