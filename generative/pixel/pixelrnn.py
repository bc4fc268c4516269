"""PixelRNN: images pixel by pixel through LSTMs, along rows or along diagonals.

Each variant's network is in a module of its own, with its paper; what they share, training and drawing, is in `autoregressive`,
and what is said of a pixel in `pixels`.
"""

from typing import Literal

from jaxdl.core.config import config as settings
from jaxdl.core.types import DataSpec, Generative, Run
from jaxdl.data import minibatches
from jaxdl.generative.pixel import autoregressive, outputs, rnn_diagonal, rnn_row

_NETWORKS = {"row": rnn_row.make, "diagonal": rnn_diagonal.make}


@settings
class Config(autoregressive.Config):
    """Settings of the PixelRNN."""

    variant: Literal["row", "diagonal"] = "row"
    """The network: Row LSTM, or Diagonal BiLSTM."""


validate = autoregressive.validate
total_steps = minibatches.total_steps


def network(config: Config, spec: DataSpec) -> tuple[autoregressive.Network, outputs.Output]:
    """The network for images of a shape, and what it says of a pixel.

    Raises:
        UserError: as `autoregressive.output_of`.
    """
    output = autoregressive.output_of(config, spec)
    return _NETWORKS[config.variant](config, spec, output), output


def make(config: Config, spec: DataSpec, axis_name: str | None = None) -> Generative:
    """The learner and its model for images of a shape.

    Raises:
        UserError: as `network`.
    """
    return autoregressive.make(config, spec, *network(config, spec), axis_name)


def make_run(config: Config, spec: DataSpec, axis_name: str | None = None, shards: int = 1) -> Run:
    """A PixelRNN on a dataset that lies on the device (`data`: `Examples`)."""
    learner = make(config, spec, axis_name).learner
    return minibatches.run_of(learner, spec.num_examples, config.batch_size, axis_name, shards)
