"""Load checkpoints and predict images with them. Needs torch alone."""
