"""PixelCNN: images pixel by pixel through masked convolutions; plain, gated, or PixelCNN++.

Each variant's network is in a module of its own, with its paper; what they share, training and drawing, is in `autoregressive`,
and what is said of a pixel in `pixels`.
"""

from typing import Literal

from jaxdl.core.config import config as settings
from jaxdl.core.config import require
from jaxdl.core.errors import UserError
from jaxdl.core.types import DataSpec, Generative, Run
from jaxdl.data import minibatches
from jaxdl.generative.pixel import autoregressive, gated, outputs, plain, plusplus

_NETWORKS = {"plain": plain.make, "gated": gated.make, "plusplus": plusplus.make}


@settings
class Config(autoregressive.Config):
    """Settings of the PixelCNN."""

    variant: Literal["plain", "gated", "plusplus"] = "gated"
    """The network: plain (2016a), gated (2016b), or PixelCNN++."""
    num_scales: int = 3
    """Scales, each half of the one before (plusplus)."""
    dropout: float | None = None
    """Share of numbers left out in each block while training (plusplus); the paper has 0.5."""


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the dataset.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    autoregressive.validate(config)
    require(config, "num_scales", 1 <= config.num_scales <= 6, "1 to 6")
    if config.dropout is not None:
        require(config, "dropout", 0 <= config.dropout < 1, "at least 0 and below 1")
        if config.variant != "plusplus":
            raise UserError(f"dropout={config.dropout} is for variant=plusplus, and this is {config.variant}")


total_steps = minibatches.total_steps


def network(config: Config, spec: DataSpec) -> tuple[autoregressive.Network, outputs.Output]:
    """The network for images of a shape, and what it says of a pixel.

    Raises:
        UserError: plusplus for colours in an output that does not order them; as `autoregressive.output_of`.
    """
    if config.variant == "plusplus" and config.output != "mixture" and spec.shape[2] > 1:
        raise UserError(f"variant=plusplus leaves the order of {spec.shape[2]} channels to its output, and "
                        f"output={config.output} has none; use output=mixture, or variant=gated")
    output = autoregressive.output_of(config, spec)
    return _NETWORKS[config.variant](config, spec, output), output


def make(config: Config, spec: DataSpec, axis_name: str | None = None) -> Generative:
    """The learner and its model for images of a shape.

    Raises:
        UserError: as `network`.
    """
    return autoregressive.make(config, spec, *network(config, spec), axis_name)


def make_run(config: Config, spec: DataSpec, axis_name: str | None = None, shards: int = 1) -> Run:
    """A PixelCNN on a dataset that lies on the device (`data`: `Examples`)."""
    learner = make(config, spec, axis_name).learner
    return minibatches.run_of(learner, spec.num_examples, config.batch_size, axis_name, shards)
