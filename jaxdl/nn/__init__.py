"""Networks as flax.linen modules: torsos that turn observations or images into features, and heads on top of them.

Parameters and activations are float32, and layers multiply in `dtype` (`precision`). Kernels begin uniform with
variance 1 / fan_in (LeCun et al. 1998), biases at zero; `init` compiles faster than flax's own.

Shapes: `B` batch, `H W C` an image, `F` features.
"""

from jaxdl.nn.activations import activation, pieces
from jaxdl.nn.convolution import Conv, ConvTranspose, causal_mask, conv, conv_transpose
from jaxdl.nn.dense import Dense
from jaxdl.nn.dropout import drop_connect, dropout, dropout_in
from jaxdl.nn.heads import CategoricalHead, GaussianHead, QHead
from jaxdl.nn.hierarchical import HierarchicalHead, huffman
from jaxdl.nn.images import ConvDecoder, ConvEncoder, decode_image, encode_image, smallest
from jaxdl.nn.initializers import (
    Initial,
    Normal,
    Orthogonal,
    Uniform,
    glorot_uniform,
    he_uniform,
    init,
    initializer,
    lecun_uniform,
    small_uniform,
)
from jaxdl.nn.noisy import NoisyDense, noise
from jaxdl.nn.norm import BatchNorm, normalized
from jaxdl.nn.pooling import fractional_max_pool, max_over_places, max_pool
from jaxdl.nn.precision import FLOAT32, Compute
from jaxdl.nn.recurrent import CELLS, GRU, LSTM, RNN, lstm_gates, unroll, unroll_gates, unroll_layers, unroll_steps, zero_carry
from jaxdl.nn.torsos import MLP, Form, NatureConv, as_images, encode

__all__ = ["CELLS", "FLOAT32", "GRU", "LSTM", "MLP", "RNN", "BatchNorm", "CategoricalHead", "Compute", "Conv", "ConvDecoder",
           "ConvEncoder", "ConvTranspose", "Dense", "Form", "GaussianHead", "HierarchicalHead", "Initial", "NatureConv",
           "NoisyDense", "Normal", "Orthogonal", "QHead", "Uniform", "activation", "as_images", "causal_mask", "conv",
           "conv_transpose", "decode_image", "drop_connect", "dropout", "dropout_in", "encode", "encode_image",
           "fractional_max_pool", "glorot_uniform", "he_uniform", "huffman", "init", "initializer", "lecun_uniform",
           "lstm_gates", "max_over_places", "max_pool", "noise", "normalized", "pieces",
           "small_uniform", "smallest", "unroll", "unroll_gates", "unroll_layers",
           "unroll_steps", "zero_carry"]
