"""The global state of a run's process: seeds, threads, precision, determinism, warnings."""

import logging
import random
import warnings

import numpy as np
import torch
from omegaconf import DictConfig

from unet.hardware import keep_freed_memory
from unet.io.provenance import reset_peak_memory
from unet.training.config_limits import validate_config

DEFAULT_THREADS = torch.get_num_threads()
"""The number of threads that torch selects for the machine."""


def setup_process(config: DictConfig) -> None:
    """Validate the config (UserError) and set the process's seeds, threads, precision and determinism."""
    validate_config(config)
    random.seed(config.seed)
    np.random.seed(config.seed)
    torch.manual_seed(config.seed)
    keep_freed_memory()
    reset_peak_memory()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    torch.set_num_threads(config.threads or DEFAULT_THREADS)
    torch.use_deterministic_algorithms(False)
    # A debugging option of deterministic mode that writes every new tensor once.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_float32_matmul_precision("high" if torch.cuda.is_available() else "highest")  # TF32 where it exists
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # no banner: the summary has its information
    for message in (
        "does not have many workers",
        "smaller than the logging interval",
        "`isinstance\\(treespec, LeafSpec\\)` is deprecated",  # Lightning's own call
        "could not find the monitored key",  # a run without validation
        "Checkpoint directory .* exists and is not empty",  # a resumed run
        "your dataloader is not resumable",  # its sampler starts at the right item
        "It is recommended to use `self.log\\(.*sync_dist",  # every process evaluates the whole split
        "Grad strides do not match bucket view strides",  # of one-channel weights in channels-last layout
    ):
        warnings.filterwarnings("ignore", message=f".*{message}")
