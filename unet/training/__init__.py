"""A training run: build the objects from a config, fit, evaluate."""

from unet.training.deferred_torchmetrics import defer_torchmetrics

defer_torchmetrics()  # before any module of this package imports Lightning
