"""PixelCNN: images pixel by pixel by masked convolutions; plain, gated, or PixelCNN++.

Each variant's network has its own module, with its paper. Training and drawing, which they share, are in `autoregressive`, and
distributions of a pixel in `outputs`.
"""

from typing import ClassVar, Literal

from jaxdl.core.config import config as settings
from jaxdl.core.config import require
from jaxdl.core.errors import UserError
from jaxdl.core.types import DataSpec
from jaxdl.data import minibatches
from jaxdl.generative.pixel import autoregressive, gated, outputs, plain, plusplus
from jaxdl.generative.task import model_algorithm

_NETWORKS = {"plain": plain.make, "gated": gated.make, "plusplus": plusplus.make}


@settings
class Config(autoregressive.Config):
    """Settings of the PixelCNN."""

    applies: ClassVar = {"num_scales": ("variant", "plusplus"), "dropout": ("variant", "plusplus"),
                         "window": ("variant", "plain", "gated"), "head_features": ("variant", "plain", "gated")}

    variant: Literal["plain", "gated", "plusplus"] = "gated"
    """The network: plain (2016a), gated (2016b), or PixelCNN++."""
    num_scales: int = 3
    """Scales, each half of the one before (plusplus)."""
    dropout: float | None = None
    """Dropout rate in each block while training (plusplus); the paper has 0.5."""


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the dataset.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    autoregressive.validate(config)
    require(config, "num_scales", 1 <= config.num_scales <= 6, "1 to 6")
    if config.dropout is not None:
        require(config, "dropout", 0 <= config.dropout < 1, "at least 0 and below 1")


total_steps = minibatches.total_steps


def network(config: Config, spec: DataSpec) -> tuple[autoregressive.Network, outputs.Output]:
    """The network for images of a shape, and the distribution of a pixel that it parametrizes.

    Raises:
        UserError: plusplus for colours with a likelihood that does not order them; as `autoregressive.output_of`.
    """
    if config.variant == "plusplus" and config.likelihood != "mixture" and spec.shape[2] > 1:
        raise UserError(f"variant=plusplus leaves the order of {spec.shape[2]} channels to its likelihood, and "
                        f"likelihood={config.likelihood} has none; use likelihood=mixture, or variant=gated")
    output = autoregressive.output_of(config, spec)
    return _NETWORKS[config.variant](config, spec, output), output


make, make_run = autoregressive.bound(network, validate)


ALGORITHM = model_algorithm(
    "pixelcnn", "images pixel by pixel: plain, gated, or PixelCNN++", Config, validate, make, make_run,
    total_steps, autoregressive.SCORE, autoregressive.CURVES, autoregressive.abilities)
