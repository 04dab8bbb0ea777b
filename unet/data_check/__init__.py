"""Checks of a data set before training: the content of its files, errors and warnings, suggested settings."""
