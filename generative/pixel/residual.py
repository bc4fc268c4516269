"""Residual blocks around something causal: the PixelCNN and both PixelRNNs of one paper.

    h_0 = conv_A(x) [2 F],   h_l = h_l-1 + up_l(core_l(h_l-1)),   outputs = head(h_L)

van den Oord et al., "Pixel recurrent neural networks" (2016), table 1 and figure 5: a masked convolution of 7x7 (kind A),
blocks of 2 F features around a core of F features, two convolutions of 1x1. A class adds to the input of the core.

Shapes: `F` features, `L` blocks.
"""

from collections.abc import Callable

from jaxdl.core.types import Array, DataSpec
from jaxdl.generative.pixel import outputs
from jaxdl.generative.pixel.autoregressive import Config, Network
from jaxdl.generative.pixel.layers import Blocks, Chain, Conv, Layer, head, network


def make(config: Config, spec: DataSpec, output: outputs.Output, core: Layer,
         activation: Callable[..., Array] | None = None) -> Network:
    """The network for images of a shape around a core, 2 F features -> F, with an activation of what the core gives."""
    width, groups = config.width, output.groups
    block = Chain((core, Conv("up", 2 * width, groups, before=activation)))
    return network([Conv("first", 2 * width, groups, (config.window, config.window), "A"),
                    Blocks(block, config.num_blocks, "blocks"),
                    head(config.head_features, groups, output.outputs)], config, spec, output)
