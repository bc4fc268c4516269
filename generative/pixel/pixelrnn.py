"""PixelRNN: images pixel by pixel by LSTMs, along rows or along diagonals.

Each variant's network has its own module, with its paper. Training and drawing, which they share, are in `autoregressive`, and
distributions of a pixel in `outputs`.
"""

from typing import Literal

from jaxdl.core.config import config as settings
from jaxdl.core.types import DataSpec
from jaxdl.data import minibatches
from jaxdl.generative.pixel import autoregressive, outputs, rnn_diagonal, rnn_row
from jaxdl.generative.task import model_algorithm

_NETWORKS = {"row": rnn_row.make, "diagonal": rnn_diagonal.make}


@settings
class Config(autoregressive.Config):
    """Settings of the PixelRNN."""

    variant: Literal["row", "diagonal"] = "row"
    """The network: Row LSTM, or Diagonal BiLSTM."""


validate = autoregressive.validate
total_steps = minibatches.total_steps


def network(config: Config, spec: DataSpec) -> tuple[autoregressive.Network, outputs.Output]:
    """The network for images of a shape, and the distribution of a pixel that it parametrizes.

    Raises:
        UserError: as `autoregressive.output_of`.
    """
    output = autoregressive.output_of(config, spec)
    return _NETWORKS[config.variant](config, spec, output), output


make, make_run = autoregressive.bound(network, autoregressive.validate)


ALGORITHM = model_algorithm(
    "pixelrnn", "images pixel by pixel: Row LSTM, or Diagonal BiLSTM", Config, validate, make, make_run,
    total_steps, autoregressive.SCORE, autoregressive.CURVES, autoregressive.abilities)
