"""The network of a variational autoencoder: encoders to one or two layers of Gaussian latents, and decoders back.

Shapes: `B` batch, `D` pixels of an image, `Z` latent, `Y` classes, `P` outputs a pixel.
"""

import math
from typing import Any

import jax.numpy as jnp
from flax import linen

from jaxdl import nn
from jaxdl.core.types import Array

Gaussian = tuple[Array, Array]  # mean and log-variance [..., B, Z]


class Network(linen.Module):
    """Encoder and decoder. `y` [B, Y] is the class, one-hot, or None; `dtype` is the precision of the layers."""

    shape: tuple[int, int, int]
    outputs: int
    config: Any  # vae.Config
    dtype: Any = "float32"

    def setup(self) -> None:
        """Make the layers."""
        c, how = self.config, {"activation": self.config.activation, "dtype": self.dtype}
        self.encoder = nn.MLP(c.hidden_sizes, **how)
        self.posterior = nn.GaussianHead(c.latent_size, dtype=self.dtype)
        self.decoder = nn.MLP(c.hidden_sizes[::-1], **how)
        if c.network == "conv":
            self.down = nn.ConvEncoder(c.conv_channels, **how)
            self.pixels = nn.ConvDecoder((*self.shape[:2], self.outputs * self.shape[2]), c.conv_channels[::-1], **how)
        else:
            self.pixels = nn.Dense(self.outputs * math.prod(self.shape), dtype=self.dtype)
        if self.two_layers:
            self.second_encoder = nn.MLP(c.second_hidden_sizes, **how)
            self.second_posterior = nn.GaussianHead(c.second_latent_size, dtype=self.dtype)
            self.second_decoder = nn.MLP(c.second_hidden_sizes[::-1], **how)
            self.prior = nn.GaussianHead(c.latent_size, dtype=self.dtype)

    @property
    def two_layers(self) -> bool:
        """Whether there is a second layer of latents above the first."""
        return self.config.second_latent_size is not None

    def encode(self, x: Array, y: Array | None) -> Gaussian:
        """q(z|x) of [B, D]: mean and log-variance [B, Z]."""
        if self.config.network == "conv":
            x = self.down(x.reshape(-1, *self.shape)).reshape(len(x), -1)
        return self.posterior(self.encoder(_with_class(x, y)))

    def second_encode(self, z: Array, y: Array | None) -> Gaussian:
        """q(z_2|z_1): [..., B, Z] -> mean and log-variance [..., B, Z_2]."""
        return self.second_posterior(self.second_encoder(_with_class(z, y)))

    def second_decode(self, z: Array, y: Array | None) -> Gaussian:
        """p(z_1|z_2): [..., B, Z_2] -> mean and log-variance [..., B, Z]."""
        return self.prior(self.second_decoder(_with_class(z, y)))

    def decode(self, z: Array, y: Array | None) -> Array:
        """What p(x|z) is made of: [..., B, Z] -> [..., B, P, D]."""
        h = self.decoder(_with_class(z, y))
        if self.config.network == "mlp":
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
