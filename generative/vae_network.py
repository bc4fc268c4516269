"""The encoder and decoder of a VAE with one or two layers of Gaussian latents.

Shapes: `B` images, `H W C` an image, `D` = H * W * C, `P` outputs a number of it, `Z` latent, `Y` classes.
"""

import math
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen

from jaxdl import nn
from jaxdl.core.types import Array

Gaussian = tuple[Array, Array]  # mean and log-variance [..., B, Z]


class Network(linen.Module):
    """Encoder and decoder. `y` [B, Y] is the class, one-hot, or None; `dtype` is the precision of the layers."""

    shape: tuple[int, int, int]  # H, W, C
    outputs: int  # P
    network: Literal["mlp", "conv"]
    conv_channels: tuple[int, ...]
    hidden_sizes: tuple[int, ...]
    activation: str
    latent_size: int
    second_latent_size: int | None
    second_hidden_sizes: tuple[int, ...]
    dtype: Any = "float32"

    def setup(self) -> None:
        """Make the layers."""
        how = {"activation": self.activation, "dtype": self.dtype}
        self.encoder = nn.MLP(self.hidden_sizes, **how)
        self.posterior = nn.GaussianHead(self.latent_size)
        self.decoder = nn.MLP(self.hidden_sizes[::-1], **how)
        if self.network == "conv":
            self.down = nn.ConvEncoder(self.conv_channels, **how)
            self.pixels = nn.ConvDecoder((*self.shape[:2], self.outputs * self.shape[2]), self.conv_channels[::-1], **how)
        else:
            self.pixels = nn.Dense(self.outputs * math.prod(self.shape))
        if self.two_layers:
            self.second_encoder = nn.MLP(self.second_hidden_sizes, **how)
            self.second_posterior = nn.GaussianHead(self.second_latent_size)
            self.second_decoder = nn.MLP(self.second_hidden_sizes[::-1], **how)
            self.prior = nn.GaussianHead(self.latent_size)

    @property
    def two_layers(self) -> bool:
        """Whether there is a second layer of latents above the first."""
        return self.second_latent_size is not None

    def encode(self, x: Array, y: Array | None) -> Gaussian:
        """q(z|x) of [B, D]: mean and log-variance [B, Z]."""
        if self.network == "conv":
            x = self.down(x.reshape(-1, *self.shape)).reshape(len(x), -1)
        return self.posterior(self.encoder(_with_class(x, y)))

    def second_encode(self, z: Array, y: Array | None) -> Gaussian:
        """q(z_2|z_1): [..., B, Z] -> mean and log-variance [..., B, Z_2]."""
        return self.second_posterior(self.second_encoder(_with_class(z, y)))

    def second_decode(self, z: Array, y: Array | None) -> Gaussian:
        """p(z_1|z_2): [..., B, Z_2] -> mean and log-variance [..., B, Z]."""
        return self.prior(self.second_decoder(_with_class(z, y)))

    def decode(self, z: Array, y: Array | None) -> Array:
        """Parameters of p(x|z): [..., B, Z] -> [..., B, P, D]."""
        h = self.decoder(_with_class(z, y))
        if self.network == "mlp":
            return self.pixels(h).reshape(*z.shape[:-1], self.outputs, -1)
        x = self.pixels(h.reshape(-1, h.shape[-1]))
        return jnp.moveaxis(x.reshape(*z.shape[:-1], -1, self.outputs, self.shape[2]), -2, -3).reshape(
            *z.shape[:-1], self.outputs, -1)

    def __call__(self, x: Array, y: Array | None) -> Array:
        z, _ = self.encode(x, y)
        if self.two_layers:
            z, _ = self.second_decode(self.second_encode(z, y)[0], y)
        return self.decode(z, y)


def _with_class(x: Array, y: Array | None) -> Array:
    return x if y is None else jnp.concatenate([x, jnp.broadcast_to(y, (*x.shape[:-1], y.shape[-1]))], -1)
