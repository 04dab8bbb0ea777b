"""Speed of the network, its data loader and its operators, timed in turns in one process."""
