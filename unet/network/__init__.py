"""The U-Net, its blocks and its resampling operators. Needs torch alone."""
