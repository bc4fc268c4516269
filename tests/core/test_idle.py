"""Settings that do nothing beside the others are refused of a new run, and let pass of one that is there."""

import json
from dataclasses import replace

import pytest

from jaxdl.core.config import refuse_idle, without_idle
from jaxdl.core.errors import UserError
from jaxdl.experiments import algorithms, run_folder
from jaxdl.generative import autoencoder, gan, vae
from jaxdl.generative.pixel import pixelcnn, pixelrnn
from jaxdl.optim import Config as OptimConfig
from jaxdl.supervised import classifier


@pytest.mark.parametrize(("config", "needed"), [
    (pixelcnn.Config(levels=16), "levels=16 is of likelihood=categorical or mixture, and likelihood is bernoulli"),
    (pixelcnn.Config(num_mixtures=5), "num_mixtures=5 is of likelihood=mixture"),
    (pixelrnn.Config(likelihood="mixture", binarize="fixed"), "binarize=fixed is of likelihood=bernoulli"),
    (pixelcnn.Config(num_scales=2), "num_scales=2 is of variant=plusplus"),
    (pixelcnn.Config(variant="plusplus", window=5), "window=5 is of variant=plain or gated"),
    (pixelcnn.Config(variant="plusplus", head_features=5), "head_features=5 is of variant=plain or gated"),
    (vae.Config(likelihood="gaussian", binarize="fixed"), "binarize=fixed is of likelihood=bernoulli"),
    (vae.Config(conv_channels=(8,)), "is of network=conv, and network is mlp"),
    (vae.Config(second_hidden_sizes=(8,)), "is of second_latent_size, and second_latent_size is None"),
    (vae.Config(objective="iwae", free_bits=0.5), "free_bits=0.5 is of objective=elbo"),
    (autoencoder.Config(corruption_level=0.5), "corruption_level=0.5 is of corruption=gaussian or mask"),
    (autoencoder.Config(network="mlp", conv_channels=(8,)), "is of network=conv"),
    (classifier.Config(network="mlp", conv_channels=(8,)), "is of network=conv"),
    (gan.Config(class_conditioning="concatenation"), "is of conditional, and conditional is False"),
    (vae.Config(optim=OptimConfig(momentum=0.5)), "momentum=0.5 is of optimizer=momentum or nesterov or muon"),
    (vae.Config(optim=OptimConfig(lr_steps=5)), "lr_steps=5 is of schedule=step"),
    (gan.Config(optim=OptimConfig(optimizer="sgd", beta1=0.3)), "beta1=0.3 is of optimizer=adam"),
])
def test_what_does_nothing_is_refused_and_can_be_left_out(config, needed):
    with pytest.raises(UserError, match=needed.replace("(", r"\(")):
        refuse_idle(config)
    refuse_idle(without_idle(config))
    assert without_idle(config) != config


def test_defaults_are_never_refused_whatever_they_meet():
    for name in algorithms.ALGORITHMS:
        config = algorithms.load(name).Config()
        refuse_idle(config)
        assert without_idle(config) == config
    refuse_idle(vae.Config(likelihood="gaussian"))
    refuse_idle(vae.Config(second_latent_size=5, second_hidden_sizes=()))
    refuse_idle(gan.Config(optim=OptimConfig(optimizer="sgd")))  # whose beta1 is not the GAN's
    refuse_idle(gan.Config(optim=replace(gan.Config().optim, optimizer="sgd")))


def test_a_run_that_is_there_opens_with_them_and_a_new_one_is_refused(tmp_path):
    values = {"algo": "pixelcnn", "config": {"levels": 16}, "train": {}}
    (tmp_path / "config.json").write_text(json.dumps(values))
    settings = run_folder.open_run(tmp_path)
    assert settings.config.levels == 16
    settings.validate()
    with pytest.raises(UserError, match="levels=16"):
        settings.refuse_idle()
    swept = run_folder.Settings("vae", vae.Config(), replace(settings.train, sweep=("rms_decay=0.1,0.2",)))
    with pytest.raises(UserError, match=r"rms_decay=0.1 is of optimizer=rmsprop"):
        swept.refuse_idle()
