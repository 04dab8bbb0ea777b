"""A training run: build the objects from a config, fit, evaluate."""
