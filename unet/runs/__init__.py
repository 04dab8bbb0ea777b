"""Runs: the command line, folder names, one run, sweeps, resuming."""
