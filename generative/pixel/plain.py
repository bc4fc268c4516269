"""The plain PixelCNN: in the core of each block a masked convolution (van den Oord et al. 2016, figure 5, right).

    block(h) = up(relu(conv_B(relu(down(relu(h))))))

Its stacked windows leave a blind spot: pixels above and further to the right are never seen (van den Oord et al.,
"Conditional image generation with PixelCNN decoders", 2016, figure 1).
"""

from jaxdl.core.types import DataSpec
from jaxdl.generative.pixel import outputs, residual
from jaxdl.generative.pixel.autoregressive import Config, Network
from jaxdl.generative.pixel.layers import Chain, Conv, relu


def make(config: Config, spec: DataSpec, output: outputs.Output) -> Network:
    """The network for images of a shape."""
    width, groups = config.width, output.groups
    core = Chain((Conv("down", width, groups, before=relu),
                  Conv("mid", width, groups, (3, 3), before=relu, by_class="class")), "middle")
    return residual.make(config, spec, output, core, relu)
