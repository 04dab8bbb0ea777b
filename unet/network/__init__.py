"""The network: operators, blocks, the U-Net itself. Needs torch alone."""
