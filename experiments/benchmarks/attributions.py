"""Attributions of the LeNet of `attacks` beside captum: whether they agree, and seconds of integrated gradients of 256 images.

Integrated gradients (50 nodes of Gauss and Legendre), saliency, guided backpropagation, Grad-CAM of the second convolution and
occlusion (windows of 4x4, every 2 pixels) of the class that is said: the relative difference is that of norms, over all images,
of integrated gradients also in float64 on 32 (in float32 a ReLU may open at one node of the integral on one side alone). They
have uniform noise of one grey level, for the reason that `attacks` gives. Seconds are the core's own.
"""

from pathlib import Path

import attacks
import common

NUM, FEW, STEPS, BLOCK = 256, 32, 50, 20  # captum takes all steps of so many images at once: the best of 1, 2, 5, 10, 20


def jaxdl(args) -> dict:
    """`jaxdl.analysis.attributions`."""
    import jax
    import numpy as np

    from jaxdl.analysis import attributions as of

    f, _, noisy, _ = attacks.lenet(args)
    x = noisy[:NUM]
    target = f(x).argmax(-1)
    integrated = jax.jit(lambda x, target: of.integrated_gradients(f, x, target, steps=STEPS))
    made = {"integrated_gradients": integrated(x, target),
            **{name: jax.jit(lambda x, t, method=method: method(f, x, t))(x, target) for name, method in {
                "saliency": of.saliency, "guided": of.guided, "occlusion": of.occlusion,
                "grad_cam": lambda f, x, t: of.grad_cam(f, x, t, "cnn/Conv_1")}.items()}}
    with jax.enable_x64(True):
        double, few, _ = attacks.in_float64(args)
        made["integrated_gradients_float64"] = jax.jit(lambda x, t: of.integrated_gradients(double, x, t, steps=STEPS))(
            few[:FEW], jax.numpy.asarray(np.asarray(target[:FEW])))
    np.savez(Path(args.work) / "attributions.npz", target=np.asarray(target), **{k: np.asarray(v) for k, v in made.items()})
    rate = common.median_rate(lambda: jax.block_until_ready(integrated(x, target)), NUM, clock=attacks.clock)
    return {"integrated_gradients_s": NUM / rate, "versions": common.versions("jaxdl", "jax")}


def captum(args) -> dict:
    """The same by captum, and how far ours are from it."""
    import numpy as np
    import torch
    from captum import attr

    model, _, noisy, _ = attacks.torch_lenet(args)
    ours, x = np.load(Path(args.work) / "attributions.npz"), noisy[:NUM]
    target = torch.from_numpy(ours["target"].astype(np.int64))
    integrated = attr.IntegratedGradients(model)

    def by_blocks() -> torch.Tensor:
        return torch.cat([integrated.attribute(x[i : i + BLOCK], target=target[i : i + BLOCK], n_steps=STEPS)
                          for i in range(0, NUM, BLOCK)])

    cam = attr.LayerGradCam(model, model[3]).attribute(x, target, relu_attributions=True)
    theirs = {"integrated_gradients": by_blocks(), "saliency": attr.Saliency(model).attribute(x, target),
              "guided": attr.GuidedBackprop(model).attribute(x, target),
              "grad_cam": attr.LayerAttribution.interpolate(cam, x.shape[2:], "bilinear"),
              "occlusion": attr.Occlusion(model).attribute(x, (1, 4, 4), strides=(1, 2, 2), target=target)}
    theirs["integrated_gradients_float64"] = attr.IntegratedGradients(attacks.torch_lenet(args)[0].double()).attribute(
        x[:FEW].double(), target=target[:FEW], n_steps=STEPS)
    differences = {}
    for name, values in theirs.items():
        a, b = (np.asarray(v, np.float64).reshape(len(v), -1) for v in (ours[name], values.detach().numpy()))
        differences[f"{name}_relative_difference"] = float(np.linalg.norm(a - b) / np.linalg.norm(b))
    rate = common.median_rate(by_blocks, NUM, clock=attacks.clock)
    return {"integrated_gradients_s": NUM / rate, **differences, "versions": common.versions("torch", "captum")}


if __name__ == "__main__":
    common.main(__file__, {"jaxdl": ("jaxdl", jaxdl), "captum": ("peers", captum, common.HUGE_PAGES)},
                {"integrated gradients of 256 images, 50 steps, jaxdl over captum": (
                    "jaxdl", "captum", "integrated_gradients_s", "lower")}, attacks.more)
